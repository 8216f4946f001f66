# Shape Adaptor on FGVC-Aircraft at 224 px: 200 epochs, batch 8, learning rate 0.01, Nesterov momentum, cosine per
# epoch; the short side is resized to 256. The alphas have their own optimizer (SGD 0.1, Nesterov, cosine per epoch),
# which takes a step every 20 iterations, counted in each epoch. The recipe is that of the authors' code, README.md and
# model_training.py. Needs --image-dir: the pictures as train/<class>/ and val/<class>/.
_base_ = "./imagenet_sa.py"

model = dict(
    data_preprocessor=dict(
        num_classes=100, mean=[122.349, 130.2285, 136.2465], std=[53.7285, 52.275, 60.486], to_rgb=True
    ),
    head=dict(num_classes=100),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="ResizeEdge", scale=256, edge="short", backend="pillow"),
    dict(type="RandomCrop", crop_size=224),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="PackInputs"),
]
train_dataloader = dict(batch_size=8, dataset=dict(data_root="data/aircraft", pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root="data/aircraft"))
test_dataloader = dict(dataset=dict(data_root="data/aircraft"))
train_cfg = dict(max_epochs=200)
optim_wrapper = dict(optimizer=dict(lr=0.01, weight_decay=5e-4))
custom_hooks = [dict(type="mmms_plugin.ShapeAdaptorHook")]
param_scheduler = dict(T_max=200)
auto_scale_lr = dict(base_batch_size=8)
