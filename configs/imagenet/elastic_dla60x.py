# DLA-X60 + Elastic on ImageNet: 120 epochs, steps at 30, 60 and 90, batch 256 (ELASTIC paper, section 4).
# The paper's Table 2: top-1 / top-5 error 21.25 / 5.71. Not measured here.
_base_ = "../_base_/imagenet_224.py"

model = dict(
    backbone=dict(type="mmms_plugin.DLA", arch="60x", elastic="full", out_indices=(5,)), head=dict(in_channels=1024)
)
