"""Backbones, one family per file; all return a tuple of NCHW maps and declare out_channels and out_strides."""

from mmms_plugin.backbones.dla import DLA
from mmms_plugin.backbones.elastic_densenet import ElasticDenseNet
from mmms_plugin.backbones.elastic_resnext import ElasticResNeXt
from mmms_plugin.backbones.model_sequence import ModelSequence
from mmms_plugin.backbones.msdnet import MSDNet
from mmms_plugin.backbones.ps_resnet import PSResNet
from mmms_plugin.backbones.shape_mobilenet import ShapeAdaptorMobileNetV2
from mmms_plugin.backbones.shape_resnet import ShapeAdaptorResNet
from mmms_plugin.backbones.shape_vgg import ShapeAdaptorVGG

__all__ = [
    "DLA",
    "ElasticDenseNet",
    "ElasticResNeXt",
    "MSDNet",
    "ModelSequence",
    "PSResNet",
    "ShapeAdaptorMobileNetV2",
    "ShapeAdaptorResNet",
    "ShapeAdaptorVGG",
]
