# MobileNetV2 on ImageNet as designed by hand, with the recipe of sa_mobilenetv2.py: its plain twin.
# The paper's Table 1: top-1 error 28.28 (accuracy 71.72). Not measured here.
_base_ = "./sa_mobilenetv2.py"

model = dict(backbone=dict(mode="human", limit_side=None))
optim_wrapper = dict(constructor="DefaultOptimWrapperConstructor")
custom_hooks = []
