# ResNeXt-101 32x4d on ImageNet: the plain twin of ps_resnext101_32x4d.py; x101.py has the ELASTIC paper's recipe.
# The PSConv paper's Table 1: top-1 / top-5 error 20.502 / 5.390. Not measured here.
_base_ = "./ps_resnext101_32x4d.py"

model = dict(backbone=dict(dilation_pattern=(1, 1, 1, 1), extra_dilation1=False))
