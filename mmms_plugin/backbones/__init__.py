"""Backbones, one family per file; all return a tuple of NCHW maps and declare out_channels and out_strides."""

from mmms_plugin.backbones.dla import DLA
from mmms_plugin.backbones.elastic_densenet import ElasticDenseNet
from mmms_plugin.backbones.elastic_resnext import ElasticResNeXt
from mmms_plugin.backbones.msdnet import MSDNet
from mmms_plugin.backbones.ps_resnet import PSResNet

__all__ = ["DLA", "ElasticDenseNet", "ElasticResNeXt", "MSDNet", "PSResNet"]
