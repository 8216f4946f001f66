# PS-ResNeXt-29 8x64d on CIFAR-100, trained like its plain twin. The PSConv paper's Table 6: top-1 error 17.138 +- 0.286
# (five runs). Not measured here.
_base_ = "./resnext29_8x64d.py"

model = dict(backbone=dict(dilation_pattern=(1, 2, 1, 4)))
