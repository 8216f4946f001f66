# The two-stage twin of retinanet_r18_large_shapes: the same backbone in a small Mask R-CNN, whose second stage sees
# whole proposals. What was measured is in docs/seeing_scale.md; the commands are the same.
_base_ = "mask_rcnn_ps_r18_shapes.py"

iterations = 400
model = dict(
    backbone=dict(
        _delete_=True,
        type="mmdet.ResNet",
        depth=18,
        base_channels=16,
        stem_channels=16,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(0, 1),
        zero_init_residual=False,
    ),
    neck=dict(in_channels=[16, 32], out_channels=32),
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32),
        bbox_head=dict(in_channels=32, fc_out_channels=128),
        mask_roi_extractor=dict(out_channels=32),
        mask_head=dict(in_channels=32, conv_out_channels=32),
    ),
)
train_cfg = dict(max_iters=iterations, val_interval=10 * iterations)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.02, by_epoch=False, begin=0, end=20),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=20, end=iterations, eta_min=1e-5),
]
default_hooks = dict(checkpoint=dict(interval=iterations))
