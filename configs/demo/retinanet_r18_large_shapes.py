# A one-stage detector that sees too little: RetinaNet on the second stage of mmdet's ResNet-18 at quarter width, whose
# cells see about 61 px, for generated objects of 96 px and more. The experiment behind `mmms advise`:
#   mmms make-shapes data/large --large --train 400 --format coco
#   mmms advise --coco-dir data/large --config demo/retinanet_r18_large_shapes --write advised.py
#   mmms compare-seeds demo/retinanet_r18_large_shapes advised.py --seeds 3 --train '--coco-dir data/large' --out runs
# What was measured is in docs/seeing_scale.md.
_base_ = "mask_rcnn_ps_r18_shapes.py"

iterations = 600
model = dict(
    _delete_=True,
    type="RetinaNet",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type="mmdet.ResNet",
        depth=18,
        base_channels=16,
        stem_channels=16,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(1,),
        zero_init_residual=False,
    ),
    neck=dict(
        type="ChannelMapper",
        in_channels=[32],
        kernel_size=1,
        out_channels=64,
        norm_cfg=dict(type="BN"),
        act_cfg=dict(type="ReLU"),
    ),
    bbox_head=dict(
        type="RetinaHead",
        num_classes=5,
        in_channels=64,
        feat_channels=64,
        stacked_convs=1,
        anchor_generator=dict(type="AnchorGenerator", scales=[12, 16, 20], ratios=[0.75, 1.0, 1.33], strides=[8]),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[1.0] * 4),
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="L1Loss", loss_weight=1.0),
    ),
    train_cfg=dict(
        assigner=dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1),
        sampler=dict(type="PseudoSampler"),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type="nms", iou_threshold=0.5), max_per_img=100
    ),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(192, 192), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_evaluator = dict(metric="bbox")
test_evaluator = dict(metric="bbox")
train_cfg = dict(max_iters=iterations, val_interval=10 * iterations)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.02, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=30, end=iterations, eta_min=1e-5),
]
default_hooks = dict(checkpoint=dict(interval=iterations))
