# Cascade Mask R-CNN, DLA-X60, FPN, 1x schedule on COCO 2017, not measured here:
# the plain twin of cascade_mask_rcnn_elastic_dla60x_fpn_1x.py.
_base_ = "./cascade_mask_rcnn_elastic_dla60x_fpn_1x.py"

model = dict(backbone=dict(elastic="none"))
