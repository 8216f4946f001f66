# ResNet-50 on ImageNet as designed by hand, with the recipe of sa_r50.py: its plain twin.
# The paper's Table 1: top-1 error 22.82 (accuracy 77.18). Not measured here.
_base_ = "./sa_r50.py"

model = dict(backbone=dict(mode="human", limit_side=None))
optim_wrapper = dict(constructor="DefaultOptimWrapperConstructor")
custom_hooks = []
