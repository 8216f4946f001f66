# VGG-16 on ImageNet as designed by hand, with the recipe of sa_vgg16.py: its plain twin.
# The paper's Table 1: top-1 error 26.08 (accuracy 73.92). Not measured here.
_base_ = "./sa_vgg16.py"

model = dict(backbone=dict(mode="human", limit_side=None))
optim_wrapper = dict(constructor="DefaultOptimWrapperConstructor")
custom_hooks = []
