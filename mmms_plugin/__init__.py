"""Multi-scale convolution layers and backbones for OpenMMLab (mmdet, mmseg, mmpretrain)."""

from mmms_plugin import compat

__version__ = "0.1.0"

compat.install()
