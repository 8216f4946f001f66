# MobileNetV2 on CIFAR-10, every resizing layer a shape adaptor: 200 epochs, batch 128, cosine.
# The paper's Table 1: top-1 error 6.14 (accuracy 93.86). Not measured here.
_base_ = "../_base_/cifar_sa.py"

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
optim_wrapper = dict(optimizer=dict(weight_decay=4e-5))
