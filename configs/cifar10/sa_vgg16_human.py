# VGG-16 on CIFAR-10 as designed by hand, with the recipe of sa_vgg16.py: its plain twin.
# The paper's Table 1: top-1 error 5.89 (accuracy 94.11). Not measured here.
_base_ = "./sa_vgg16.py"

model = dict(backbone=dict(mode="human"))
optim_wrapper = dict(constructor="DefaultOptimWrapperConstructor")
custom_hooks = []
