# Mask R-CNN, ResNeXt-50 + Elastic, FPN, from scratch on small microscopy pictures (256 px, one class):
#   mmms train nuclei/mask_rcnn_elastic_x50_nuclei --coco-dir DIR
# Not from the paper. What was measured is in docs/status.md.
_base_ = "./mask_rcnn_ps_r18_nuclei.py"

model = dict(
    backbone=dict(_delete_=True, type="mmms_plugin.ElasticResNeXt", depth=50, elastic="full", zero_init_residual=False),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
