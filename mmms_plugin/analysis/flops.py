"""Parameters and multiply-adds, of any registered backbone and of the ELASTIC paper's tables side by side.

Models are built and run on the meta device: shapes only, no memory and no arithmetic. Counted are convolutions and
linear layers; up-sampling is counted apart, at the 8 operations a value that the authors' code adds
(github.com/allenai/elastic), which explains the paper's figures where they are above the multiply-adds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

UPSAMPLE_OPS = 8  # operations a value, of bilinear up-sampling


@dataclass(frozen=True)
class Cost:
    """Parameters, multiply-adds of one picture, and operations of bilinear up-sampling beside them."""

    params: int
    macs: int
    upsampling: int


def measure(backbone: Mapping[str, Any], size: tuple[int, int], classes: int | None = None) -> Cost:
    """Cost of a backbone's config dict on one picture ``[1, 3, *size]``, with a linear classifier for ``classes``.

    Raises: ValueError for what the backbone refuses; KeyError if ``type`` is not registered.
    """
    with torch.device("meta"), torch.no_grad():
        model = MODELS.build(dict(backbone))
        head = nn.Linear(model.out_channels[-1], classes) if classes else None
        mapping = {torch.ops.aten.upsample_bilinear2d: _count_upsampling}
        with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
            maps = model.eval()(torch.empty(1, backbone.get("in_channels", 3), *size))
            if head is not None:
                head(maps[-1].mean((2, 3)))
    counts = counter.get_flop_counts()["Global"]
    upsampling = counts.pop(torch.ops.aten.upsample_bilinear2d, 0)
    modules = [model] if head is None else [model, head]
    params = sum(p.numel() for module in modules for p in module.parameters())
    return Cost(params, sum(counts.values()) // 2, upsampling)


def _count_upsampling(*_args: Any, out_shape: Any = None, **_options: Any) -> int:
    return UPSAMPLE_OPS * math.prod(out_shape)
