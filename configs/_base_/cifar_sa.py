# Shape Adaptor on CIFAR: 200 epochs, batch 128, Nesterov momentum, cosine per epoch. The alphas have their own
# optimizer (SGD 0.1, Nesterov, cosine per epoch), which takes a step every 20 iterations, counted in each epoch. The
# recipe is that of the authors' code, model_training.py.
_base_ = "./cifar_32.py"

optim_wrapper = dict(constructor="mmms_plugin.ShapeAdaptorConstructor")
custom_hooks = [dict(type="mmms_plugin.ShapeAdaptorHook")]
param_scheduler = dict(_delete_=True, type="CosineAnnealingLR", by_epoch=True, T_max=200)
train_cfg = dict(max_epochs=200)
