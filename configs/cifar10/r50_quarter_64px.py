# A ResNet-50 with a quarter of the channels and the stem of ImageNet, on CIFAR-10 enlarged to 64 px: gives the weights
# that nuclei/mask_rcnn_r50_quarter_nuclei.py and its twin are fine-tuned from. Not from a paper; not measured here.
_base_ = "./r50_small.py"

model = dict(backbone=dict(stem="imagenet", base_channels=16), head=dict(in_channels=512))
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(64, 64)),
    dict(type="RandomCrop", crop_size=64, padding=8),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="PackInputs"),
]
test_pipeline = [dict(type="LoadImageFromFile"), dict(type="Resize", scale=(64, 64)), dict(type="PackInputs")]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
