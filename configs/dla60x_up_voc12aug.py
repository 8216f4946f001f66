# DLA-Up, DLA-X-60, on PASCAL VOC 2012 with the SBD masks. The ELASTIC paper (table 5) reports 69.96 mIoU on val from
# ImageNet weights (their figure, not measured here). Give those weights with --pretrained FILE; without them, the
# backbone starts from random weights. Recipe: section 4.3 and the authors' code, weight decay 1e-4 for DLA, batch norm
# momentum 0.1. In the levels the authors' checkpointing updates statistics twice, which is one update with 0.19.
_base_ = ["./_base_/dla60x_up.py", "./_base_/voc12aug_513.py"]

custom_hooks = [
    dict(type="mmms_plugin.NormMomentumHook", momenta={"backbone": 0.19, "backbone.base_layer": 0.1, "neck": 0.1})
]
optim_wrapper = dict(optimizer=dict(weight_decay=1e-4))
