# ResNet-101 on ImageNet: the plain twin of ps_resnet101.py.
# The PSConv paper's Table 1: top-1 / top-5 error 21.102 / 5.696. Not measured here.
_base_ = "./ps_resnet101.py"

model = dict(backbone=dict(dilation_pattern=(1, 1, 1, 1)))
