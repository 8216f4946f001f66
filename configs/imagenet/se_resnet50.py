# SE-ResNet-50 on ImageNet: the plain twin of ps_se_resnet50.py.
# The PSConv paper's Table 1: top-1 / top-5 error 22.192 / 6.040. Not measured here.
_base_ = "./ps_se_resnet50.py"

model = dict(backbone=dict(dilation_pattern=(1, 1, 1, 1)))
