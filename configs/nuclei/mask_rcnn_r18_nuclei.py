# The plain twin of mask_rcnn_ps_r18_nuclei: every PSConv at one dilation, which is mmdet's ResNet-18.
_base_ = "./mask_rcnn_ps_r18_nuclei.py"

model = dict(backbone=dict(dilation_pattern=(1, 1, 1, 1)))
