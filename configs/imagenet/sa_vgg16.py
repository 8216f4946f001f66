# VGG-16 on ImageNet, every resizing layer a shape adaptor: 100 epochs, batch 256, cosine.
# The paper's Table 1: top-1 error 26.47 (accuracy 73.53). Not measured here.
_base_ = "../_base_/imagenet_sa.py"

model = dict(
    backbone=dict(
        type="mmms_plugin.ShapeAdaptorVGG",
        mode="standard",
        limit_side=15,
        resize_outputs=False,
        init_cfg=[
            dict(type="Xavier", layer="Conv2d", distribution="uniform"),
            dict(type="Constant", layer="_BatchNorm", val=1),
        ],
    ),
    head=dict(in_channels=512, init_cfg=dict(type="Xavier", layer="Linear", distribution="uniform")),
)
