# ResNet-50 on SVHN as designed by hand, with the recipe of sa_r50.py: its plain twin.
# The paper's Table 1: top-1 error 3.26 (accuracy 96.74). Not measured here.
_base_ = "./sa_r50.py"

model = dict(backbone=dict(mode="human"))
optim_wrapper = dict(constructor="DefaultOptimWrapperConstructor")
custom_hooks = []
