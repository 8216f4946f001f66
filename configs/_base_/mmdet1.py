# What differs between mmdet 1.0, with which the PSConv authors trained their detectors (github.com/d-li14/PSConv,
# configs/psconv), and mmdet 3: parts for the configs named *_published.py. Box coders and anchors of mmdet 1.0 count a
# box's side from the first to the last pixel, both included. Anchors that leave the picture are not trained, and an
# object is also assigned the boxes that fit it best.
mmdet1 = dict(
    rpn_head=dict(
        anchor_generator=dict(type="LegacyAnchorGenerator", center_offset=0.5),
        bbox_coder=dict(type="LegacyDeltaXYWHBBoxCoder"),
        loss_bbox=dict(_delete_=True, type="SmoothL1Loss", beta=1.0 / 9.0, loss_weight=1.0),
    ),
    extractor=dict(roi_layer=dict(sampling_ratio=2, aligned=False)),
    bbox_head=dict(
        bbox_coder=dict(type="LegacyDeltaXYWHBBoxCoder"),
        loss_bbox=dict(_delete_=True, type="SmoothL1Loss", beta=1.0, loss_weight=1.0),
    ),
    train_cfg=dict(
        rpn=dict(allowed_border=0),
        rpn_proposal=dict(max_per_img=2000),
        rcnn=dict(assigner=dict(match_low_quality=True)),
    ),
    clip_grad=dict(max_norm=35, norm_type=2),
    param_scheduler=[
        dict(type="LinearLR", start_factor=1.0 / 3, by_epoch=False, begin=0, end=500),
        dict(type="MultiStepLR", begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
    ],
)
