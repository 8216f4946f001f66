# mask_rcnn_r50_quarter_nuclei.py with a shape that is learned while fine-tuning (AutoTL). The alphas step every 5
# iterations in place of 20, as the training is short. No paper has it; not measured here.
_base_ = "./mask_rcnn_r50_quarter_nuclei.py"

model = dict(backbone=dict(mode="autotl"))
optim_wrapper = dict(constructor="mmms_plugin.ShapeAdaptorConstructor")
custom_hooks = [dict(type="mmms_plugin.ShapeAdaptorHook", step=5)]
