# ResNet-50 whose shape is learned while it is fine-tuned (AutoTL): 120 epochs, batch 256, cosine, learning rate 0.01.
# For pictures of your own: --image-dir DIR, and the weights of a plain ResNet-50 with --pretrained FILE. The authors'
# page has accuracies of fine-grained data sets (birds 84.29, cars 93.66, flowers 96.22). Not measured here.
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
optim_wrapper = dict(optimizer=dict(lr=0.01))
