# DLA-Up, DLA-X-60, on PASCAL VOC 2012 with the SBD masks. The ELASTIC paper (table 5) reports 69.96 mIoU on val from
# ImageNet weights (their figure, not measured here). Give those weights with --pretrained FILE; without them, the
# backbone starts from random weights. Recipe: section 4.3 and the authors' code, weight decay 1e-4 for DLA, batch norm
# momentum 0.05.
_base_ = ["./_base_/dla60x_up.py", "./_base_/voc12aug_513.py"]

optim_wrapper = dict(optimizer=dict(weight_decay=1e-4))
