# Cascade R-CNN, PS-ResNeXt-101 32x4d, FPN, 1x schedule on COCO 2017. The authors (github.com/d-li14/PSConv) report 44.4
# box AP on val2017, from ImageNet weights (their figure, not measured here). Give such weights with --pretrained FILE;
# without them, the backbone starts from random weights.
# That AP was trained with the settings of mmdet 1.0: gradients clipped at 35, warm-up from 1/3, unaligned RoIAlign.
# Here they are those of mmdet 3; cascade_mask_rcnn_ps_r50_fpn_1x_published.py has the published ones.
_base_ = "./cascade_rcnn_ps_r101_fpn_1x.py"

# The published weights of 32 groups have extra dilation-1 kernels that the paper does not describe; set False for the
# paper's layer.
model = dict(backbone=dict(groups=32, base_width=4, extra_dilation1=True))
