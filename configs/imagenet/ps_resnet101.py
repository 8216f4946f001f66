# PS-ResNet-101 on ImageNet: 120 epochs, cosine, batch 256 (PSConv paper, section 4.1).
# The paper's Table 1: top-1 / top-5 error 19.954 / 5.052. Not measured here.
_base_ = "./ps_resnet50.py"

model = dict(backbone=dict(depth=101))
