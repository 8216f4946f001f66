# Mask R-CNN, PS-ResNeXt-101 32x4d, FPN, 1x schedule on COCO 2017.
# The PSConv paper (table 7) gives 42.4 box AP and 38.0 mask AP on val2017, from ImageNet weights (their
# figures, not measured here). Give such weights with --pretrained FILE; without them, the backbone starts from random
# weights.
# That AP was trained with the settings of mmdet 1.0: smooth L1 losses, 2000 proposals, gradients clipped at 35, warm-up
# from 1/3, unaligned RoIAlign. Here they are those of mmdet 3; mask_rcnn_ps_r50_fpn_1x_published.py has the
# published ones.
_base_ = "./mask_rcnn_ps_r101_fpn_1x.py"

# The published weights of 32 groups have extra dilation-1 kernels that the paper does not describe; set False for the
# paper's layer.
model = dict(backbone=dict(groups=32, base_width=4, extra_dilation1=True))
