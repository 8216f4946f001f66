"""Layers: tensor in, tensor out. They know no stages and no host."""

from mmms_plugin.layers.depthwise_ps_conv import DepthwisePSConv2d
from mmms_plugin.layers.dynamic_ps_conv import DynamicPSConv2d
from mmms_plugin.layers.elastic import Downsample, Elastic, ElasticPolicy, Upsample
from mmms_plugin.layers.elastic_bottleneck import BottleneckPath, elastic_bottleneck
from mmms_plugin.layers.elastic_conv import ElasticConv2d
from mmms_plugin.layers.ps_conv import PSConv2d
from mmms_plugin.layers.se import SqueezeExcitation
from mmms_plugin.layers.shape_adaptor import ShapeAdaptor

__all__ = [
    "BottleneckPath",
    "DepthwisePSConv2d",
    "Downsample",
    "DynamicPSConv2d",
    "Elastic",
    "ElasticConv2d",
    "ElasticPolicy",
    "PSConv2d",
    "ShapeAdaptor",
    "SqueezeExcitation",
    "Upsample",
    "elastic_bottleneck",
]
