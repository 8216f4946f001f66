# PS-ResNeXt-101 32x4d on ImageNet: 120 epochs, cosine, batch 256 (PSConv paper, section 4.1).
# The paper's Table 1: top-1 / top-5 error 19.498 / 4.724. Not measured here.
_base_ = "./ps_resnet50.py"

# Like the published weights and the detectors here, which start from these; set False for the paper's layer.
model = dict(backbone=dict(depth=101, groups=32, base_width=4, extra_dilation1=True))
