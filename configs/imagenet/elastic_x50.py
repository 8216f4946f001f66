# ResNeXt-50 + Elastic on ImageNet: 120 epochs, steps at 30, 60 and 90, batch 256 (ELASTIC paper, section 4).
# The paper's Table 2: top-1 / top-5 error 21.56 / 5.83. Not measured here.
_base_ = ["../_base_/imagenet_224.py", "../_base_/backbones/elastic_x50_classifier.py"]

model = dict(
    backbone={{_base_.elastic_x50_classifier}},
    head=dict(in_channels=2048),
)
