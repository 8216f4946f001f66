# The model of `make demo`: a small Mask R-CNN, PS-ResNet-18 at half width, from scratch on generated shapes (192 px).
#   mmms make-shapes data/shapes --colours && mmms train demo/mask_rcnn_ps_r18_shapes --coco-dir data/shapes
# What was measured is in docs/status.md.
_base_ = "../_base_/small_mask_rcnn.py"

iterations = 300
model = dict(
    backbone=dict(base_channels=32, stem_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256]),
    roi_head=dict(bbox_head=dict(num_classes=5), mask_head=dict(num_classes=5)),
    train_cfg=dict(rcnn=dict(sampler=dict(num=64))),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(192, 192), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=8, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(batch_size=8, dataset=dict(pipeline=test_pipeline))
train_cfg = dict(max_iters=iterations, val_interval=10 * iterations)
optim_wrapper = dict(optimizer=dict(lr=1.5e-3))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.02, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=30, end=iterations, eta_min=1e-5),
]
default_hooks = dict(checkpoint=dict(interval=iterations))
custom_hooks = [dict(type="mmms_plugin.ProgressHook")]
