# DenseNet-201 on ImageNet: 120 epochs, steps at 30, 60 and 90, batch 256 (ELASTIC paper, section 4).
# The plain twin of elastic_densenet201.py. The paper's Table 2: top-1 / top-5 error 22.25 / 6.26. Not measured here.
_base_ = ["../_base_/imagenet_224.py", "../_base_/backbones/densenet201_classifier.py"]

model = dict(
    backbone={{_base_.densenet201_classifier}},
    head=dict(in_channels=1920),
)
