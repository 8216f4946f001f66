# A sequence of six ResNets of 8 to 62 layers on CIFAR-100, each with its own classifier and no shared weights: a
# baseline of MSDNet, with the recipe of msdnet_anytime.py. The article names no depths. With
# `model.head.ensemble=True` each answers with the mean of the scores so far. Not measured here.
_base_ = "./msdnet_anytime.py"

resnet = dict(
    type="mmms_plugin.PSResNet",
    dilation_pattern=(1, 1, 1, 1),
    num_stages=3,
    strides=(1, 2, 2),
    dilations=(1, 1, 1),
    stem_channels=16,
    base_channels=16,
    small_stem=True,
    out_indices=(2,),
    zero_init_residual=False,
)
model = dict(
    backbone=dict(
        _delete_=True,
        type="mmms_plugin.ModelSequence",
        networks=[dict(depth=depth, **resnet) for depth in (8, 14, 20, 32, 44, 62)],
    ),
    head=dict(in_channels=[64] * 6, linear="all"),
)
