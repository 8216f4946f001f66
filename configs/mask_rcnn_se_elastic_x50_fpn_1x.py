# Mask R-CNN, SE-ResNeXt-50 + Elastic, FPN, 1x schedule on COCO 2017.
# The ELASTIC paper has no detection figures and none of full length was measured here. Give ImageNet weights with
# --pretrained FILE; without, the backbone starts from random weights.
_base_ = "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmms_plugin.ElasticResNeXt",
        depth=50,
        elastic="full",
        se_ratio=16,
        frozen_stages=1,
        norm_eval=True,
    )
)
