# Mask R-CNN, ResNet-50 with Shape Adaptors in AutoTL mode, FPN, 1x schedule on COCO 2017. No paper has this detector's
# figures and no full training was measured here. AutoTL is for fine-tuning: give the weights of a plain ResNet-50 with
# --pretrained FILE (torchvision's as they are, or any that mmms convert wrote). The shape starts close to ResNet's own,
# with every factor at 0.55 instead of 0.5, and is learned with the task. The stem runs at full resolution, and maps are
# resized to strides 4, 8, 16 and 32 for FPN.
_base_ = "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmms_plugin.ShapeAdaptorResNet",
        depth=50,
        mode="autotl",
        frozen_stages=-1,  # a frozen stage could not learn its shape
        norm_eval=True,
    )
)
optim_wrapper = dict(constructor="mmms_plugin.ShapeAdaptorConstructor")
custom_hooks = [dict(type="mmms_plugin.ShapeAdaptorHook")]
