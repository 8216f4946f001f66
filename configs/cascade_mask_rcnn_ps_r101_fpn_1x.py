# Cascade Mask R-CNN, PS-ResNet-101, FPN, 1x schedule on COCO 2017.
# The PSConv paper (table 7) gives 44.6 box AP and 38.4 mask AP on val2017, from ImageNet weights (their
# figures, not measured here). Give such weights with --pretrained FILE; without them, the backbone starts from random
# weights.
# That AP was trained with the settings of mmdet 1.0: gradients clipped at 35, warm-up from 1/3, unaligned RoIAlign.
# Here they are those of mmdet 3; cascade_mask_rcnn_ps_r50_fpn_1x_published.py has the published ones.
_base_ = "./cascade_mask_rcnn_ps_r50_fpn_1x.py"

model = dict(backbone=dict(depth=101))
