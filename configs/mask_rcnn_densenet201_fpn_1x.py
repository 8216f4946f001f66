# Mask R-CNN, DenseNet-201, FPN, 1x schedule on COCO 2017, not measured here:
# the plain twin of mask_rcnn_elastic_densenet201_fpn_1x.py.
_base_ = "./mask_rcnn_elastic_densenet201_fpn_1x.py"

model = dict(backbone=dict(elastic=False), neck=dict(in_channels=[256, 512, 1792, 1920]))
