"""Shared by layers and networks: norms, initial weights, squeeze-and-excitation, whether a graph is captured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmms_plugin.compat.networks import build_norm_layer
from mmms_plugin.compat.torch_internals import is_dispatch_observed, is_forward_mode_active, is_functorch_active

ConfigType = Mapping[str, Any]

BATCH_NORM: ConfigType = MappingProxyType(dict(type="BN", requires_grad=True))


def build_norm(norm_cfg: ConfigType, channels: int) -> nn.Module:
    """The norm layer of a config, without mmcv's name for it, so that keys are torchvision's for every kind of norm.

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


InitConfig = ConfigType | Sequence[ConfigType] | None  # the init_cfg that mmengine applies

_NORMS = dict(type="Constant", val=1, layer=["_BatchNorm", "GroupNorm"])

# He et al., 2015, by the number of outputs, as ResNet's authors do.
HE_INIT: list[ConfigType] = [dict(type="Kaiming", layer="Conv2d"), _NORMS]
# By the number of inputs, for layers with far more inputs than outputs, such as DenseNet's 1x1 layers.
HE_FAN_IN_INIT: list[ConfigType] = [dict(type="Kaiming", layer="Conv2d", mode="fan_in"), _NORMS]


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation (Hu et al., 2018): scale channels by a gate computed from their means.

    Args:
        channels: C.
        ratio: reduction, C / ratio hidden channels.

    Shape: ``[N, C, H, W] -> [N, C, H, W]``.
    Raises: ValueError if ``ratio`` leaves no hidden channel.
    """

    def __init__(self, channels: int, ratio: int = 16) -> None:
        super().__init__()
        if not isinstance(ratio, int) or not 1 <= ratio <= channels:
            raise ValueError(f"se_ratio={ratio!r}: allowed are integers from 1 to the number of channels, {channels}")
        self.fc1 = nn.Conv2d(channels, channels // ratio, 1)
        self.fc2 = nn.Conv2d(channels // ratio, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))
        return x * gate


def is_capturing() -> bool:
    """Whether the running code is being compiled, exported or traced rather than executed.

    Sizes may then be symbols, which a layer neither checks nor slices by: a check would become a condition on them.
    Covers ``torch.compile``, ``torch.export``, ``torch.jit.trace`` and both ONNX exporters.
    """
    return torch.compiler.is_compiling() or _is_tracing()


def is_observed() -> bool:
    """Whether torch counts or imitates the operators that run (a dispatch mode such as ``FlopCounterMode`` is active).

    A layer then has the multiply-adds that it is described by, and avoids paths that have more and are faster.
    """
    return is_dispatch_observed()


def is_transformed() -> bool:
    """Whether ``torch.func`` or forward-mode differentiation transforms the code: they need torch's own operators."""
    return is_functorch_active() or is_forward_mode_active()


def _is_tracing() -> bool:
    traced: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call, unused-ignore]
    return traced or torch.onnx.is_in_onnx_export()


def sum_terms(terms: Sequence[Tensor]) -> Tensor:
    """The sum of at least one tensor, without the zero that ``sum`` starts from."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
