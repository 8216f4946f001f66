# DenseNet-BC-100 (growth 12) on CIFAR-100 with seven classifiers, after the sixth and the twelfth layer of each dense
# block and at the end: a baseline of MSDNet, with the recipe of msdnet_anytime.py. The article names no depth. For
# classifiers after other layers set `model.backbone.out_indices` and `model.head.in_channels`. Not measured here.
_base_ = "./msdnet_anytime.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmms_plugin.ElasticDenseNet",
        depth=100,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        small_stem=True,
        output="blocks",
        out_indices=(5, 11, 21, 27, 37, 43, 47),
    ),
    head=dict(in_channels=[96, 168, 180, 252, 222, 294, 342], linear="last"),
)
