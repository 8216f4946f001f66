"""Initial weights, as the ``init_cfg`` that mmengine applies."""

from __future__ import annotations

from collections.abc import Sequence

from mmms_plugin.layers.norm import ConfigType

InitConfig = ConfigType | Sequence[ConfigType] | None

_NORMS = dict(type="Constant", val=1, layer=["_BatchNorm", "GroupNorm"])

# He et al., 2015, by the number of outputs, as ResNet's authors do.
HE_INIT: list[ConfigType] = [dict(type="Kaiming", layer="Conv2d"), _NORMS]
# By the number of inputs: for layers with far more inputs than outputs, such as DenseNet's 1x1 layers.
HE_FAN_IN_INIT: list[ConfigType] = [dict(type="Kaiming", layer="Conv2d", mode="fan_in"), _NORMS]
