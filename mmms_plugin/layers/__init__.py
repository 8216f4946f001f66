"""Layers: tensor in, tensor out. They know no stages and no host."""

from mmms_plugin.layers.common import SqueezeExcitation
from mmms_plugin.layers.elastic import BottleneckPath, Elastic, ElasticConv2d, ElasticPolicy, elastic_bottleneck
from mmms_plugin.layers.ps_conv import PSConv2d
from mmms_plugin.layers.ps_conv_variants import DepthwisePSConv2d, DynamicPSConv2d
from mmms_plugin.layers.resampling import Downsample, Upsample
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
