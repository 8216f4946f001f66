# DenseNet-201 on ImageNet: 120 epochs, steps at 30, 60 and 90, batch 256 (ELASTIC paper, section 4).
# The plain twin of elastic_densenet201.py. The paper's Table 2: top-1 / top-5 error 22.25 / 6.26. Not measured here.
_base_ = "../_base_/imagenet_224.py"

model = dict(
    backbone=dict(type="mmms_plugin.ElasticDenseNet", depth=201, elastic=False, with_cp=True, out_indices=(3,)),
    head=dict(in_channels=1920),
)
