# DenseNet-201 for the 80 classes of COCO, several labels a picture: 36 epochs, batch 96, binary cross-entropy
# (ELASTIC paper, section 4.2). The paper's Table 3, on COCO 2014: F1 per class 69.95, overall 74.50; not
# measured here. Give ImageNet weights with --pretrained FILE; the paper fine-tunes.
_base_ = ["../_base_/coco_labels_224.py", "../_base_/backbones/densenet201_classifier.py"]

model = dict(
    backbone={{_base_.densenet201_classifier}},
    head=dict(in_channels=1920),
)
