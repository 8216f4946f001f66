# ResNet-50 on CIFAR-10, every resizing layer a shape adaptor: 200 epochs, batch 128, cosine.
# The paper's Table 1: top-1 error 4.52 (accuracy 95.48). Not measured here.
_base_ = "../_base_/cifar_sa.py"

model = dict(
    backbone=dict(
        type="mmms_plugin.ShapeAdaptorResNet",
        depth=50,
        mode="standard",
        stem="cifar",
        design_size=32,
        out_indices=(3,),
        resize_outputs=False,
        zero_init_residual=False,
    ),
    head=dict(in_channels=2048),
)
