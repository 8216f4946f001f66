# ResNet-101 on COCO labels, with the recipe of x50_coco.py.
# The ELASTIC paper's Table 3: F1 per class 69.98, F1 overall 74.58 (on val2014). Not measured here.
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
