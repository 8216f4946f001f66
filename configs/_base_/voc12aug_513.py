# PASCAL VOC 2012 with the SBD masks, after section 4.3 of the ELASTIC paper and the authors' code, segment.py: pictures
# scaled by 0.5 to 2, crop 513, batch 16, SGD 0.007 with poly decay 0.9, momentum 0.9, weight decay 5e-4, 50 epochs of
# 10,582 images. Evaluation is at the original size, padded to 513. Two things differ, as mmseg has them: pictures are
# padded at the right and at the bottom, where the authors pad all sides alike, and batch norms are synchronised.
_base_ = ["mmseg::_base_/datasets/pascal_voc12_aug.py", "mmseg::_base_/default_runtime.py"]

crop_size = (513, 513)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="mmms_plugin.RandomScale", scale_range=(0.5, 2.0)),
    dict(type="RandomCrop", crop_size=crop_size),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
voc_root = "data/VOCdevkit/VOC2012"
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        datasets=[
            dict(
                type="PascalVOCDataset",
                data_root=voc_root,
                data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
                ann_file="ImageSets/Segmentation/train.txt",
                pipeline=train_pipeline,
            ),
            dict(
                type="PascalVOCDataset",
                data_root=voc_root,
                data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClassAug"),
                ann_file="ImageSets/Segmentation/aug.txt",
                pipeline=train_pipeline,
            ),
        ]
    ),
)

val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))

max_iters = 50 * 662  # 10,582 images in batches of 16
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=max_iters // 10)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optimizer = dict(type="SGD", lr=0.007, momentum=0.9, weight_decay=5e-4)
optim_wrapper = dict(type="OptimWrapper", optimizer=optimizer)
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=0, begin=0, end=max_iters, by_epoch=False)]
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=max_iters // 10, max_keep_ckpts=3),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    visualization=dict(type="SegVisualizationHook"),
)
