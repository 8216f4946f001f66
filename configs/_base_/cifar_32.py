# CIFAR at 32 px, batch 128, padded random crops and flips, SGD with Nesterov momentum; a linear classifier. Needs
# --image-dir: the pictures of CIFAR as train/<class>/ and val/<class>/.
_base_ = "./classification.py"

model = dict(
    type="ImageClassifier",
    data_preprocessor=dict(
        num_classes=10, mean=[125.307, 122.961, 113.8575], std=[51.5865, 50.847, 51.255], to_rgb=True
    ),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(type="LinearClsHead", num_classes=10, loss=dict(type="CrossEntropyLoss", loss_weight=1.0)),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(32, 32)),  # no change for CIFAR's own pictures
    dict(type="RandomCrop", crop_size=32, padding=4),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="PackInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(32, 32)),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="CustomDataset", data_root="data/cifar", data_prefix="train", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="CustomDataset", data_root="data/cifar", data_prefix="val", pipeline=test_pipeline),
)
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4))
param_scheduler = dict(type="MultiStepLR", by_epoch=True, milestones=[150, 225], gamma=0.1)
train_cfg = dict(max_epochs=300)
auto_scale_lr = dict(base_batch_size=128)
