# MobileNetV2 of width 1.1 on ImageNet, compressed by shape adaptors (AutoSC): 100 epochs, batch 256, cosine.
# The authors' page, table of AutoSC: top-1 error 27.7 (accuracy 72.3) at 324 M multiply-adds; as designed, width 1.0,
# 28.2 at 330 M. Not measured here.
_base_ = "../_base_/imagenet_sa.py"

model = dict(
    backbone=dict(
        type="mmms_plugin.ShapeAdaptorMobileNetV2",
        width_multiplier=1.1,
        mode="autosc",
        limit_side=15,
        out_indices=(7,),
        resize_outputs=False,
    ),
    head=dict(in_channels=1408),
)
optim_wrapper = dict(optimizer=dict(lr=0.05, weight_decay=4e-5))
custom_hooks = [dict(type="mmms_plugin.ShapeAdaptorHook", step=200)]
