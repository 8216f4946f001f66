# MobileNetV2 on FGVC-Aircraft as designed by hand, with the recipe of sa_mobilenetv2.py: its plain twin.
# The authors' page, table of AutoSC: top-1 error 22.36 (accuracy 77.64) at 330 M multiply-adds. Not measured here.
_base_ = "./sa_mobilenetv2.py"

model = dict(backbone=dict(mode="human", limit_side=None))
optim_wrapper = dict(constructor="DefaultOptimWrapperConstructor")
custom_hooks = []
