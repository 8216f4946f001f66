# PS-ResNet-50 on ImageNet: 120 epochs, cosine, batch 256 (PSConv paper, section 4.1).
# The paper's Table 1: top-1 / top-5 error 21.126 / 5.724. Not measured here.
_base_ = "../_base_/imagenet_224.py"

model = dict(
    # the paper's 1, 2, 1, 4 in the order of the authors' weights, as in the detectors, which start from these
    backbone=dict(type="mmms_plugin.PSResNet", depth=50, dilation_pattern=(2, 1, 4, 1), out_indices=(3,)),
    head=dict(in_channels=2048),
)
param_scheduler = dict(_delete_=True, type="CosineAnnealingLR", by_epoch=True, T_max=120)
