# DeepLabV3, ResNeXt-101, on PASCAL VOC 2012 with the SBD masks.
# The ELASTIC paper (table 5) reports 77.47 mIoU on val from ImageNet weights (their figure, not measured here).
_base_ = "./deeplabv3_x50_voc12aug.py"

model = dict(backbone=dict(depth=101))
