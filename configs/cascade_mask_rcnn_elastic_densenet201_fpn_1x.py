# Cascade Mask R-CNN, DenseNet-201 + Elastic, FPN, 1x schedule on COCO 2017.
# The ELASTIC paper has no detection figures and none of full length was measured here. Give ImageNet weights with
# --pretrained FILE; without, the backbone starts from random weights.
_base_ = "mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmms_plugin.ElasticDenseNet",
        depth=201,
        elastic=True,
        frozen_stages=1,
        norm_eval=True,
    ),
    neck=dict(in_channels=[384, 832, 1696, 1808]),
)
