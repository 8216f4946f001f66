# VGG-16 on CIFAR-10, every resizing layer a shape adaptor: 200 epochs, batch 128, cosine.
# The paper's Table 1: top-1 error 4.65 (accuracy 95.35). Not measured here.
_base_ = "../_base_/cifar_sa.py"

model = dict(
    backbone=dict(
        type="mmms_plugin.ShapeAdaptorVGG",
        mode="standard",
        design_size=32,
        resize_outputs=False,
        init_cfg=[
            dict(type="Xavier", layer="Conv2d", distribution="uniform"),
            dict(type="Constant", layer="_BatchNorm", val=1),
        ],
    ),
    head=dict(in_channels=512, init_cfg=dict(type="Xavier", layer="Linear", distribution="uniform")),
)
