# ResNeXt-29 16x64d on CIFAR-100: 300 epochs, steps at 150 and 225, batch 128, weight decay 5e-4.
# The plain twin of ps_resnext29_16x64d.py. The PSConv paper's Table 6: top-1 error 17.538 +- 0.094. Not measured here.
_base_ = "./resnext29_8x64d.py"

model = dict(backbone=dict(groups=16))
