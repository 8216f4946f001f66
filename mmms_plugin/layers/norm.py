"""Norm layers from a config."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mmcv.cnn import build_norm_layer
from torch import nn

ConfigType = Mapping[str, Any]

BATCH_NORM: ConfigType = MappingProxyType(dict(type="BN", requires_grad=True))


def build_norm(norm_cfg: ConfigType, channels: int) -> nn.Module:
    """The norm layer of a config, without the name that mmcv gives it: keys stay torchvision's for every kind of norm.

    Raises: ValueError if mmcv cannot build it.
    """
    try:
        norm: nn.Module = build_norm_layer(dict(norm_cfg), channels)[1]
    except (TypeError, KeyError, AssertionError) as error:
        raise ValueError(
            f"norm_cfg={norm_cfg!r}: allowed is the type of a norm layer (BN, SyncBN, GN with num_groups, ...) with "
            "its arguments"
        ) from error
    return norm
