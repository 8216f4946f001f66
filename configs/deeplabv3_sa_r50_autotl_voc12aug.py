# DeepLabV3, ResNet-50 with Shape Adaptors in AutoTL mode, on PASCAL VOC 2012 with the SBD masks. No paper has this
# model's figures and no full training was measured here. Give the weights of a plain ResNet-50 with --pretrained FILE.
# The heads take the maps at their learned sizes. The recipe is that of deeplabv3_ps_r50_voc12aug.
_base_ = "./deeplabv3_ps_r50_voc12aug.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmms_plugin.ShapeAdaptorResNet",
        depth=50,
        mode="autotl",
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        multi_grid=(1, 2, 4),
        resize_outputs=False,
        norm_cfg=dict(type="SyncBN", requires_grad=True, momentum=0.05),
    ),
)
optim_wrapper = dict(constructor="mmms_plugin.ShapeAdaptorConstructor")
custom_hooks = [dict(type="mmms_plugin.ShapeAdaptorHook")]
