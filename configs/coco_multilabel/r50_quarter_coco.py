# ResNet-50 with a quarter of the channels for the 80 classes of COCO, several labels a picture: small enough for a CPU.
# Give weights with --pretrained FILE, such as those of cifar10/r50_quarter_64px.py. Not from a paper. What was measured
# is in docs/status.md.
_base_ = "../_base_/coco_labels_224.py"

model = dict(
    backbone=dict(
        type="mmms_plugin.ShapeAdaptorResNet",
        depth=50,
        mode="human",
        base_channels=16,
        out_indices=(3,),
        resize_outputs=False,
        zero_init_residual=False,
    ),
    head=dict(in_channels=512),
)
