# DeepLabV3, ResNet-101, on PASCAL VOC 2012 with the SBD masks. The text of the ELASTIC paper (section 4.3) reports
# 77.21 mIoU on val from ImageNet weights, as DeepLabV3's own paper (not measured here). The recipe is that of
# deeplabv3_x50_voc12aug.py, with weight decay 1e-4 (section 4.3); batch norm momentum is taken from there, too.
_base_ = "./deeplabv3_x50_voc12aug.py"

norm_cfg = dict(type="SyncBN", requires_grad=True)
model = dict(
    backbone=dict(
        _delete_=True,
        type="mmms_plugin.PSResNet",
        depth=101,
        dilation_pattern=(1, 1, 1, 1),
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        multi_grid=(1, 2, 4),
        norm_cfg=norm_cfg,
    ),
)
optim_wrapper = dict(optimizer=dict(weight_decay=1e-4))
