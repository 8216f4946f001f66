# Shape Adaptor on ImageNet: the alphas have their own optimizer (Shape Adaptor paper, section 3: SGD 0.1, Nesterov,
# cosine, one step every 20 iterations). The schedule of the weights is ours: the authors' page states none.
_base_ = "./imagenet_224.py"

optim_wrapper = dict(constructor="mmms_plugin.ShapeAdaptorConstructor")
custom_hooks = [dict(type="mmms_plugin.ShapeAdaptorHook")]
param_scheduler = dict(_delete_=True, type="CosineAnnealingLR", by_epoch=True, T_max=120, convert_to_iter_based=True)
