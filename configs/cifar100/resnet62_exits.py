# ResNet-62 on CIFAR-100 with seven classifiers, after the fourth and the eighth of ten blocks at each resolution and at
# the end: a baseline of MSDNet, with the recipe of msdnet_anytime.py. The article names no depth. For classifiers after
# other blocks set `model.backbone.out_indices` and `model.head.in_channels` (16, 32 or 64). Not measured here.
_base_ = "./msdnet_anytime.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmms_plugin.PSResNet",
        depth=62,
        dilation_pattern=(1, 1, 1, 1),
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        stem_channels=16,
        base_channels=16,
        small_stem=True,
        output="blocks",
        out_indices=(3, 7, 13, 17, 23, 27, 29),
        zero_init_residual=False,
    ),
    head=dict(in_channels=[16, 16, 32, 32, 64, 64, 64], linear="last"),
)
