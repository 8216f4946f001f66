# A small plain ResNet-29 for CIFAR-10, 8.8 MMAC: what msdnet_small.py costs up to its last exit (8.6).
# No paper has it; not measured here.
_base_ = "./resnext29_small.py"

model = dict(backbone=dict(groups=1, base_width=48))
