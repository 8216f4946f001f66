# MobileNetV2 on ImageNet, every resizing layer a shape adaptor: 120 epochs, batch 256, cosine.
# The paper's Table 1: top-1 error 26.68 (accuracy 73.32). Not measured here.
_base_ = "../_base_/imagenet_sa.py"

model = dict(
    backbone=dict(
        type="mmms_plugin.ShapeAdaptorMobileNetV2",
        mode="standard",
        out_indices=(7,),
        resize_outputs=False,
    ),
    head=dict(in_channels=1280),
)
