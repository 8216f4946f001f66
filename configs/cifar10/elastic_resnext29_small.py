# The small ResNeXt-29 for CIFAR-10 with Elastic in its first two stages: twin of two_path_resnext29_small.py.
# No paper has it; not measured here.
_base_ = "./two_path_resnext29_small.py"

model = dict(backbone=dict(elastic="simple"))
