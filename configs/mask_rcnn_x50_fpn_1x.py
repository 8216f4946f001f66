# Mask R-CNN, ResNeXt-50, FPN, 1x schedule on COCO 2017, not measured here:
# the plain twin of mask_rcnn_elastic_x50_fpn_1x.py.
_base_ = "./mask_rcnn_elastic_x50_fpn_1x.py"

model = dict(backbone=dict(elastic="none"))
