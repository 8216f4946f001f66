# Cascade R-CNN, PS-ResNet-50, FPN, 1x schedule on COCO 2017.
# The authors (github.com/d-li14/PSConv) give 41.9 box AP on val2017,
# from ImageNet weights (their figure, not measured here). Give such weights with --pretrained FILE; otherwise the
# backbone starts from random weights.
_base_ = "mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmms_plugin.PSResNet",
        depth=50,
        dilation_pattern=(2, 1, 4, 1),  # the paper's 1, 2, 1, 4 in the order of the authors' weights
        frozen_stages=1,
        norm_eval=True,
    )
)
