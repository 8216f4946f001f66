# ResNet-101 on COCO labels, with the recipe of x50_coco.py.
# The ELASTIC paper's Table 3, on COCO 2014: F1 per class 69.98, overall 74.58; not measured here.
_base_ = "./x50_coco.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmms_plugin.PSResNet",
        depth=101,
        dilation_pattern=(1, 1, 1, 1),
        out_indices=(3,),
    ),
)
