# VGG-16 on CIFAR-100, every resizing layer a shape adaptor: 200 epochs, batch 128, cosine.
# The paper's Table 1: top-1 error 20.84 (accuracy 79.16). Not measured here.
_base_ = "../_base_/cifar100_sa.py"

model = dict(
    backbone=dict(
        type="mmms_plugin.ShapeAdaptorVGG",
        mode="standard",
        design_size=32,
        resize_outputs=False,
    ),
    head=dict(in_channels=512),
)
