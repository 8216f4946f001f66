# DLA-X-60 with the iterative deep aggregation decoder down to stride 2; a model without data or schedule.
norm_cfg = dict(type="SyncBN", requires_grad=True)
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(513, 513),
        test_cfg=dict(size=(513, 513)),
    ),
    backbone=dict(type="mmms_plugin.DLA", arch="60x", out_indices=(1, 2, 3, 4, 5), norm_cfg=norm_cfg),
    neck=dict(type="mmms_plugin.DLAUp", in_channels=[32, 128, 256, 512, 1024], norm_cfg=norm_cfg),
    decode_head=dict(type="mmms_plugin.DLAUpHead", in_channels=32, num_classes=21, down_ratio=2),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
