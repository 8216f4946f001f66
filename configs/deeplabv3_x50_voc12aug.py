# DeepLabV3, ResNeXt-50, on PASCAL VOC 2012 with the SBD masks. The ELASTIC paper (table 5) reports 75.29 mIoU on val
# from ImageNet weights (their figure, not measured here). Give those weights with --pretrained FILE; without them, the
# backbone starts from random weights. Recipe: section 4.3 and the authors' code: output stride 16, multi-grid (1, 2, 4)
# times 2, ASPP (6, 12, 18), weight decay 5e-4, no auxiliary head, the loss averaged over pixels that are not void.
# Batch norm momentum is 0.05 in the stem and 0.0003 in ASPP. In the layers it is 0.05 twice, as the authors'
# checkpointing updates statistics twice, which is one update with 0.0975.
_base_ = ["mmseg::_base_/models/deeplabv3_r50-d8.py", "./_base_/voc12aug_513.py"]

norm_cfg = dict(type="SyncBN", requires_grad=True)
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=(513, 513), test_cfg=dict(size=(513, 513))),
    backbone=dict(
        _delete_=True,
        type="mmms_plugin.ElasticResNeXt",
        depth=50,
        elastic="none",
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        multi_grid=(1, 2, 4),
        norm_cfg=norm_cfg,
    ),
    decode_head=dict(
        _delete_=True,
        type="mmms_plugin.ASPPHead",
        in_channels=2048,
        channels=256,
        dilations=(1, 6, 12, 18),
        num_classes=21,
        norm_cfg=norm_cfg,
    ),
    auxiliary_head=None,
)
custom_hooks = [
    dict(
        type="mmms_plugin.NormMomentumHook",
        momenta={"backbone": 0.0975, "backbone.bn1": 0.05, "decode_head": 0.0003},
    )
]
