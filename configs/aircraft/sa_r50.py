# ResNet-50 on FGVC-Aircraft, every resizing layer a shape adaptor; the last map has a side of at most 30: 200 epochs,
# batch 8, cosine. The paper's Table 1 has its accuracy, which the authors' page does not repeat. Not measured here.
_base_ = "../_base_/aircraft_sa.py"

model = dict(
    backbone=dict(
        type="mmms_plugin.ShapeAdaptorResNet",
        depth=50,
        mode="standard",
        limit_side=30,
        out_indices=(3,),
        resize_outputs=False,
        zero_init_residual=False,
    ),
    head=dict(in_channels=2048),
)
