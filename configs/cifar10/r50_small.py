# The plain twin of sa_r50_small.py and sa_r50_small_autosc.py, with strides as designed by hand: 5.2 MMAC.
# No paper has it; not measured here.
_base_ = "./sa_r50_small.py"

model = dict(backbone=dict(mode="human"))
optim_wrapper = dict(constructor="DefaultOptimWrapperConstructor")
custom_hooks = []
