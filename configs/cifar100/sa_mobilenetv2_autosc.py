# MobileNetV2 on CIFAR-100, compressed by shape adaptors (AutoSC): 200 epochs, batch 128, cosine.
# The authors' page, table of AutoSC: top-1 error 25.19 (accuracy 74.81) at 91.5 M multiply-adds; as designed
# 26.20 at 94.7 M. Not measured here.
_base_ = "../_base_/cifar100_sa.py"

model = dict(
    backbone=dict(
        type="mmms_plugin.ShapeAdaptorMobileNetV2",
        mode="autosc",
        stem="cifar",
        design_size=32,
        out_indices=(7,),
        resize_outputs=False,
    ),
    head=dict(in_channels=1280),
)
optim_wrapper = dict(optimizer=dict(weight_decay=4e-5))
