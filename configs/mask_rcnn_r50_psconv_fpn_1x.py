# Any backbone with a conv_cfg takes the layer: here mmdet's own ResNet, unchanged, in Mask R-CNN.
# mmdet gives conv_cfg to all layers of the blocks; a kernel size of 1 makes PSConv a plain convolution. Its stem
# becomes poly-scale too, unlike PSResNet's. The paper has no figure for this variant and none was measured here.
_base_ = "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"

model = dict(
    backbone=dict(conv_cfg=dict(type="mmms_plugin.PSConv"), frozen_stages=-1, norm_eval=False, init_cfg=None),
)
