# VGG-16 on FGVC-Aircraft, every resizing layer a shape adaptor; the last map has a side of at most 30: 200 epochs,
# batch 8, cosine. The paper's Table 1 has its accuracy, which the authors' page does not repeat. Not measured here.
_base_ = "../_base_/aircraft_sa.py"

model = dict(
    backbone=dict(
        type="mmms_plugin.ShapeAdaptorVGG",
        mode="standard",
        limit_side=30,
        resize_outputs=False,
        init_cfg=[
            dict(type="Xavier", layer="Conv2d", distribution="uniform"),
            dict(type="Constant", layer="_BatchNorm", val=1),
        ],
    ),
    head=dict(in_channels=512, init_cfg=dict(type="Xavier", layer="Linear", distribution="uniform")),
)
