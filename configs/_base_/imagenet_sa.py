# Shape Adaptor on ImageNet: 100 epochs, batch 256, Nesterov momentum, cosine per epoch. The alphas have their own
# optimizer (SGD 0.1, Nesterov, cosine per epoch), which takes a step every 1500 iterations, counted in each epoch. The
# recipe is that of the authors' code, model_training_imagenet.py.
_base_ = "./imagenet_224.py"

train_cfg = dict(max_epochs=100)
optim_wrapper = dict(constructor="mmms_plugin.ShapeAdaptorConstructor", optimizer=dict(nesterov=True))
custom_hooks = [dict(type="mmms_plugin.ShapeAdaptorHook", step=1500)]
param_scheduler = dict(_delete_=True, type="CosineAnnealingLR", by_epoch=True, T_max=100)
