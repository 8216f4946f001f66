"""Layers: tensor in, tensor out. They know no stages and no host."""

from mmms_plugin.layers.depthwise_ps_conv import DepthwisePSConv2d
from mmms_plugin.layers.dynamic_ps_conv import DynamicPSConv2d
from mmms_plugin.layers.ps_conv import PSConv2d
from mmms_plugin.layers.se import SqueezeExcitation

__all__ = ["DepthwisePSConv2d", "DynamicPSConv2d", "PSConv2d", "SqueezeExcitation"]
