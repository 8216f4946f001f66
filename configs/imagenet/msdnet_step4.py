# MSDNet with five exits, steps of 4 layers, on ImageNet: 90 epochs, steps at 30 and 60, batch 256. The recipe is
# that of the authors' PyTorch code, with plain momentum. The MSDNet paper shows its figures as curves only, Figure 5.
# Not measured here.
_base_ = "../_base_/imagenet_224.py"

model = dict(
    backbone=dict(type="mmms_plugin.MSDNet", arch="imagenet_step4", output="exits"),
    neck=None,
    head=dict(
        _delete_=True,
        type="mmms_plugin.MultiExitHead",
        num_classes=1000,
        in_channels=[384, 384, 352, 304, 560],
    ),
)
train_cfg = dict(max_epochs=90)
param_scheduler = dict(milestones=[30, 60])
