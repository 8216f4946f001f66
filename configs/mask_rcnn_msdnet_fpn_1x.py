# Mask R-CNN, MSDNet (ImageNet setting with steps of 4 layers), FPN, 1x schedule on COCO 2017. The MSDNet paper has no
# detection figures and no full training was measured here. Give ImageNet weights with --pretrained FILE; without them,
# the backbone starts from random weights.
_base_ = "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmms_plugin.MSDNet",
        arch="imagenet_step4",
        frozen_stages=0,  # the stem; the first block reaches all scales
        norm_eval=True,
    ),
    neck=dict(in_channels=[112, 256, 544, 560]),
)
