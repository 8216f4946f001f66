# VGG-16 on CIFAR-100 with four resizing layers of constant factors, by default those from which sa_vgg16.py starts; for
# others `model.backbone.initial_scale=(0.6,0.9,0.7,0.8)`. The recipe is that of sa_vgg16.py. The authors' page has
# accuracies of 200 random shapes as a figure only. Not measured here.
_base_ = "./sa_vgg16.py"

model = dict(backbone=dict(fixed_shape=True))
optim_wrapper = dict(constructor="DefaultOptimWrapperConstructor")
custom_hooks = []
