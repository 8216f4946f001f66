# SE-ResNeXt-50 on ImageNet: 120 epochs, steps at 30, 60 and 90, batch 256 (ELASTIC paper, section 4).
# The plain twin of se_elastic_x50.py. The paper's Table 2: top-1 / top-5 error 21.87 / 5.93. Not measured here.
_base_ = "../_base_/imagenet_224.py"

model = dict(
    backbone=dict(type="mmms_plugin.ElasticResNeXt", depth=50, elastic="none", out_indices=(3,), se_ratio=16),
    head=dict(in_channels=2048),
)
