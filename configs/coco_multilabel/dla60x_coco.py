# DLA-X60 for the 80 classes of COCO, several labels a picture: 36 epochs, batch 96, binary cross-entropy
# (ELASTIC paper, section 4.2). The paper's Table 3, on COCO 2014: F1 per class 70.79, overall 75.41; not
# measured here. Give ImageNet weights with --pretrained FILE; the paper fine-tunes.
_base_ = ["../_base_/coco_labels_224.py", "../_base_/backbones/dla60x_classifier.py"]

model = dict(backbone={{_base_.dla60x_classifier}}, head=dict(in_channels=1024))
