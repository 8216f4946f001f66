# DLA-X60 on ImageNet: 120 epochs, steps at 30, 60 and 90, batch 256 (ELASTIC paper, section 4).
# The plain twin of elastic_dla60x.py. The paper's Table 2: top-1 / top-5 error 21.92 / 6.03. Not measured here.
_base_ = ["../_base_/imagenet_224.py", "../_base_/backbones/dla60x_classifier.py"]

model = dict(backbone={{_base_.dla60x_classifier}}, head=dict(in_channels=1024))
