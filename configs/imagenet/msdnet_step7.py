# MSDNet with five exits, steps of 7 layers, on ImageNet: 90 epochs, steps at 30 and 60, batch 256.
# The MSDNet paper shows its figures as curves only, Figure 5. Not measured here.
_base_ = "./msdnet_step4.py"

model = dict(
    backbone=dict(arch="imagenet_step7"),
    head=dict(in_channels=[576, 640, 608, 528, 976]),
)
