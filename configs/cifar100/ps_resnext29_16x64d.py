# PS-ResNeXt-29 16x64d on CIFAR-100, trained like its plain twin. The PSConv paper's Table 6: top-1 error 16.528 +-
# 0.353 (five runs). Not measured here.
_base_ = "./resnext29_16x64d.py"

model = dict(backbone=dict(dilation_pattern=(1, 2, 1, 4)))
