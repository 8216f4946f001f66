# VGG-16 on CIFAR-100 as designed by hand, with the recipe of sa_vgg16.py: its plain twin.
# The paper's Table 1: top-1 error 24.61 (accuracy 75.39). Not measured here.
_base_ = "./sa_vgg16.py"

model = dict(backbone=dict(mode="human"))
optim_wrapper = dict(constructor="DefaultOptimWrapperConstructor")
custom_hooks = []
