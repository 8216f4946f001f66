# Mask R-CNN, DLA-X60 + Elastic, FPN, from scratch on small microscopy pictures (256 px, one class):
#   mmms train nuclei/mask_rcnn_elastic_dla60x_nuclei --coco-dir DIR
# Not from the paper. What was measured is in docs/status.md.
_base_ = "./mask_rcnn_ps_r18_nuclei.py"

model = dict(
    backbone=dict(_delete_=True, type="mmms_plugin.DLA", arch="60x", elastic="full"),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
