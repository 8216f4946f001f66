# DLA-Up, DLA-X-60 with Elastic, on PASCAL VOC 2012 with the SBD masks.
# The ELASTIC paper (table 5) reports 73.59 mIoU on val from ImageNet weights (their figure, not measured here).
_base_ = "./dla60x_up_voc12aug.py"

model = dict(backbone=dict(elastic=True))
