# MobileNetV2 on FGVC-Aircraft, every resizing layer a shape adaptor; the last map has a side of at most 30: 200 epochs,
# batch 8, cosine. The paper's Table 1 has its accuracy, which the authors' page does not repeat. Not measured here.
_base_ = "../_base_/aircraft_sa.py"

model = dict(
    backbone=dict(
        type="mmms_plugin.ShapeAdaptorMobileNetV2",
        mode="standard",
        limit_side=30,
        out_indices=(7,),
        resize_outputs=False,
    ),
    head=dict(in_channels=1280),
)
optim_wrapper = dict(optimizer=dict(weight_decay=4e-5))
