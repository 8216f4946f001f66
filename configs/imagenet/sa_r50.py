# ResNet-50 on ImageNet, every resizing layer a shape adaptor: 100 epochs, batch 256, cosine.
# The paper's Table 1: top-1 error 21.26 (accuracy 78.74). Not measured here.
_base_ = "../_base_/imagenet_sa.py"

model = dict(
    backbone=dict(
        type="mmms_plugin.ShapeAdaptorResNet",
        depth=50,
        mode="standard",
        limit_side=15,
        out_indices=(3,),
        resize_outputs=False,
        zero_init_residual=False,
    ),
    head=dict(in_channels=2048),
)
