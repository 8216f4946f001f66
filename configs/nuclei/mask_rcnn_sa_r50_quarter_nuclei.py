# mask_rcnn_r50_quarter_nuclei.py with a shape that is learned during fine-tuning (AutoTL). The alphas step every 5
# iterations in place of 20, as the training is short. Not from a paper. What was measured is in docs/status.md.
_base_ = "./mask_rcnn_r50_quarter_nuclei.py"

model = dict(backbone=dict(mode="autotl"))
optim_wrapper = dict(constructor="mmms_plugin.ShapeAdaptorConstructor")
custom_hooks = [dict(type="mmms_plugin.ShapeAdaptorHook", step=5)]
