# ResNet-50 whose shape is learned while it is fine-tuned (AutoTL): 80 epochs, batch 8, cosine, learning rate
# 0.001, weight decay 5e-4 (the authors' code, model_training_autotl.py). For pictures of your own: --image-dir DIR, and
# the weights of a plain ResNet-50 with --pretrained FILE. The authors' page has accuracies of fine-grained data sets
# (birds 84.29, cars 93.66, flowers 96.22). For birds and cars, the authors resize the pictures to 224 x 224 without a
# crop; here every data set has the random crops that the others have. Not measured here.
_base_ = "../_base_/imagenet_sa.py"

model = dict(
    backbone=dict(
        type="mmms_plugin.ShapeAdaptorResNet",
        depth=50,
        mode="autotl",
        out_indices=(3,),
        resize_outputs=False,
    ),
    head=dict(in_channels=2048),
)
train_dataloader = dict(batch_size=8)
train_cfg = dict(max_epochs=80)
optim_wrapper = dict(optimizer=dict(lr=0.001, weight_decay=5e-4))
custom_hooks = [dict(type="mmms_plugin.ShapeAdaptorHook")]
param_scheduler = dict(T_max=80)
auto_scale_lr = dict(base_batch_size=8)
