# ResNeXt-50 on ImageNet: 120 epochs, steps at 30, 60 and 90, batch 256 (ELASTIC paper, section 4).
# The plain twin of elastic_x50.py. The paper's Table 2: top-1 / top-5 error 22.23 / 6.25. Not measured here.
_base_ = ["../_base_/imagenet_224.py", "../_base_/backbones/x50_classifier.py"]

model = dict(
    backbone={{_base_.x50_classifier}},
    head=dict(in_channels=2048),
)
