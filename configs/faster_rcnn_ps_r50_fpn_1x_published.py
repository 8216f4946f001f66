# Faster R-CNN, PS-ResNet-50, FPN, 1x schedule on COCO 2017, with the settings of mmdet 1.0, as published: smooth L1
# losses, 2000 proposals, gradients clipped at 35, warm-up from 1/3, unaligned RoIAlign.
# The authors (github.com/d-li14/PSConv) report 38.4 box AP on val2017, from ImageNet weights (their
# figure, not measured here). Give such weights with --pretrained FILE; without them, the backbone starts from random
# weights. For other backbones, take `model.backbone` of faster_rcnn_ps_r101_fpn_1x.py or ..._x101_32x4d_....
_base_ = [
    "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
    "./_base_/backbones/ps_r50.py",
    "./_base_/mmdet1.py",
]

model = dict(
    backbone={{_base_.ps_r50}},
    rpn_head={{_base_.mmdet1.rpn_head}},
    roi_head=dict(
        bbox_roi_extractor={{_base_.mmdet1.extractor}},
        bbox_head={{_base_.mmdet1.bbox_head}},
    ),
    train_cfg={{_base_.mmdet1.train_cfg}},
)
optim_wrapper = dict(clip_grad={{_base_.mmdet1.clip_grad}})
param_scheduler = {{_base_.mmdet1.param_scheduler}}
