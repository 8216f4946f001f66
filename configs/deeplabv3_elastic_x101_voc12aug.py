# DeepLabV3, ResNeXt-101 with Elastic, on PASCAL VOC 2012 with the SBD masks.
# The ELASTIC paper (table 5) reports 78.51 mIoU on val from ImageNet weights (their figure, not measured here).
_base_ = "./deeplabv3_x50_voc12aug.py"

model = dict(backbone=dict(depth=101, elastic="full"))
