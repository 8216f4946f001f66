# Cascade R-CNN, PS-ResNet-101, FPN, 1x schedule on COCO 2017. The authors (github.com/d-li14/PSConv) report 43.8 box AP
# on val2017, from ImageNet weights (their figure, not measured here). Give such weights with --pretrained FILE;
# without them, the backbone starts from random weights.
# That AP was trained with the settings of mmdet 1.0: gradients clipped at 35, warm-up from 1/3, unaligned RoIAlign.
# Here they are those of mmdet 3; cascade_mask_rcnn_ps_r50_fpn_1x_published.py has the published ones.
_base_ = "./cascade_rcnn_ps_r50_fpn_1x.py"

model = dict(backbone=dict(depth=101))
