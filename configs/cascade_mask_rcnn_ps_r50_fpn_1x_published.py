# Cascade Mask R-CNN, PS-ResNet-50, FPN, 1x schedule on COCO 2017, with the settings of mmdet 1.0, as published: smooth
# L1 losses, 2000 proposals, gradients clipped at 35, warm-up from 1/3, unaligned RoIAlign.
# The PSConv paper (table 7) gives 42.9 box AP and 36.9 mask AP on val2017, from ImageNet weights (their
# figures, not measured here). Give such weights with --pretrained FILE; without them, the backbone starts from random
# weights. For other backbones, take `model.backbone` of cascade_mask_rcnn_ps_r101_fpn_1x.py or ..._x101_32x4d_....
_base_ = [
    "mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py",
    "./_base_/backbones/ps_r50.py",
    "./_base_/mmdet1.py",
]

model = dict(
    backbone={{_base_.ps_r50}},
    rpn_head={{_base_.mmdet1.rpn_head}},
    roi_head=dict(
        bbox_roi_extractor={{_base_.mmdet1.extractor}},
        mask_roi_extractor={{_base_.mmdet1.extractor}},
        bbox_head=[
            dict(
                type="Shared2FCBBoxHead",
                in_channels=256,
                fc_out_channels=1024,
                roi_feat_size=7,
                num_classes=80,
                reg_class_agnostic=True,
                bbox_coder=dict(type="LegacyDeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=stds),
                loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type="SmoothL1Loss", beta=1.0, loss_weight=1.0),
            )
            for stds in ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])
        ],
    ),
    train_cfg=dict(
        rcnn=[
            dict(
                assigner=dict(
                    type="MaxIoUAssigner",
                    pos_iou_thr=iou,
                    neg_iou_thr=iou,
                    min_pos_iou=iou,
                    match_low_quality=True,
                    ignore_iof_thr=-1,
                ),
                sampler=dict(type="RandomSampler", num=512, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True),
                mask_size=28,
                pos_weight=-1,
                debug=False,
            )
            for iou in (0.5, 0.6, 0.7)
        ],
    ),
)
optim_wrapper = dict(clip_grad={{_base_.mmdet1.clip_grad}})
param_scheduler = {{_base_.mmdet1.param_scheduler}}
