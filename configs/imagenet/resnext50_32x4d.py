# ResNeXt-50 32x4d on ImageNet: the plain twin of ps_resnext50_32x4d.py; x50.py has the ELASTIC paper's recipe.
# The PSConv paper's Table 1: top-1 / top-5 error 21.802 / 6.084. Not measured here.
_base_ = "./ps_resnext50_32x4d.py"

model = dict(backbone=dict(dilation_pattern=(1, 1, 1, 1), extra_dilation1=False))
