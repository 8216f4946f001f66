# Cascade Mask R-CNN, PS-ResNet-50, FPN, 1x schedule on COCO 2017.
# The PSConv paper (table 7) gives 42.9 box AP and 36.9 mask AP on val2017, from ImageNet weights (their
# figures, not measured here). Give such weights with --pretrained FILE; without them, the backbone starts from random
# weights.
# That AP was trained with the settings of mmdet 1.0: gradients clipped at 35, warm-up from 1/3, unaligned RoIAlign.
# Here they are those of mmdet 3; cascade_mask_rcnn_ps_r50_fpn_1x_published.py has the published ones.
_base_ = ["mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py", "./_base_/backbones/ps_r50.py"]

model = dict(backbone={{_base_.ps_r50}})
