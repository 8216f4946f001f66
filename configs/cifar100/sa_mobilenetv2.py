# MobileNetV2 on CIFAR-100, every resizing layer a shape adaptor: 200 epochs, batch 128, cosine.
# The paper's Table 1: top-1 error 24.26 (accuracy 75.74). Not measured here.
_base_ = "../_base_/cifar100_sa.py"

model = dict(
    backbone=dict(
        type="mmms_plugin.ShapeAdaptorMobileNetV2",
        mode="standard",
        stem="cifar",
        design_size=32,
        out_indices=(7,),
        resize_outputs=False,
    ),
    head=dict(in_channels=1280),
)
