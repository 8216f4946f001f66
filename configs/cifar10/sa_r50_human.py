# ResNet-50 on CIFAR-10 as designed by hand, with the recipe of sa_r50.py: its plain twin.
# The paper's Table 1: top-1 error 4.50 (accuracy 95.50). Not measured here.
_base_ = "./sa_r50.py"

model = dict(backbone=dict(mode="human"))
optim_wrapper = dict(constructor="DefaultOptimWrapperConstructor")
custom_hooks = []
