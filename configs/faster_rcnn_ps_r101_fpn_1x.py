# Faster R-CNN, PS-ResNet-101, FPN, 1x schedule on COCO 2017. The authors (github.com/d-li14/PSConv) report 40.9 box AP
# on val2017, from ImageNet weights (their figure, not measured here). Give such weights with --pretrained FILE;
# without them, the backbone starts from random weights.
_base_ = "./faster_rcnn_ps_r50_fpn_1x.py"

model = dict(backbone=dict(depth=101))
