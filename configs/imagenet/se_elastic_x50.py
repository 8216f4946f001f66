# SE-ResNeXt-50 + Elastic on ImageNet: 120 epochs, steps at 30, 60 and 90, batch 256 (ELASTIC paper, section 4).
# The paper's Table 2: top-1 / top-5 error 21.38 / 5.86. Not measured here.
_base_ = "../_base_/imagenet_224.py"

model = dict(
    backbone=dict(type="mmms_plugin.ElasticResNeXt", depth=50, elastic="full", out_indices=(3,), se_ratio=16),
    head=dict(in_channels=2048),
)
