# ResNet-50 on FGVC-Aircraft as designed by hand, with the recipe of sa_r50.py: its plain twin.
# Not measured here.
_base_ = "./sa_r50.py"

model = dict(backbone=dict(mode="human", limit_side=None))
optim_wrapper = dict(constructor="DefaultOptimWrapperConstructor")
custom_hooks = []
