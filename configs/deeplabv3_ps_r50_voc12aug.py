# DeepLabV3, PS-ResNet-50, on PASCAL VOC 2012 with the SBD masks. The PSConv paper has no segmentation figures and no
# full training was measured here. The recipe is that of the ELASTIC paper (section 4.3): output stride 16, multi-grid
# (1, 2, 4), ASPP (6, 12, 18). Batch norm momentum is 0.05 everywhere, and the heads are mmseg's.
_base_ = ["mmseg::_base_/models/deeplabv3_r50-d8.py", "./_base_/voc12aug_513.py"]

norm_cfg = dict(type="SyncBN", requires_grad=True, momentum=0.05)
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=(513, 513), test_cfg=dict(size=(513, 513))),
    backbone=dict(
        _delete_=True,
        type="mmms_plugin.PSResNet",
        depth=50,
        dilation_pattern=(2, 1, 4, 1),
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        multi_grid=(1, 2, 4),
        norm_cfg=norm_cfg,
    ),
    decode_head=dict(dilations=(1, 6, 12, 18), channels=256, num_classes=21, norm_cfg=norm_cfg),
    auxiliary_head=dict(num_classes=21, norm_cfg=norm_cfg),
)
