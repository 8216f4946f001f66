# Mask R-CNN, ResNet-50 with a quarter of the channels, FPN, on the pictures of mask_rcnn_ps_r18_nuclei.py: plain
# fine-tuning, twin of mask_rcnn_sa_r50_quarter_nuclei.py. Give weights with --pretrained FILE, such as those of
# cifar10/r50_quarter_64px.py. Not from a paper. What was measured is in docs/status.md.
_base_ = "./mask_rcnn_ps_r18_nuclei.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmms_plugin.ShapeAdaptorResNet",
        depth=50,
        mode="human",
        base_channels=16,
    )
)
