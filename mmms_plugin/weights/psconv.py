"""The published 1.5x parameterisation of PSConv (github.com/d-li14/PSConv) as the single weight of ``PSConv2d``.

A published layer adds three convolutions: grouped with dilation 2, grouped with dilation 4 on swapped channel halves,
and a dense one with dilation 1, zero where the other two have their blocks. Their blocks fill one plain weight. Where
the published mask misses blocks (grouped layers), the dense weight has values beneath the dilated ones: those go to
``extra_weight``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from mmms_plugin.layers.ps_conv import published_mask

PATTERN = (2, 1, 4, 1)
PARTS = len(PATTERN)
EXTRA = ".extra_weight"


def join_published(parts: Mapping[str, Tensor], backbone: Mapping[str, Any]) -> dict[str, Tensor]:
    """The three published weights as ``{'weight', 'extra_weight'}``.

    Args:
        parts: 'dilation2' and 'dilation4', ``[C_out, C_in / groups / 4, kh, kw]``, and 'dilation1',
            ``[C_out, C_in / groups, kh, kw]``.
        backbone: config with ``groups``.
    Raises: ValueError if a part is missing or the shapes do not belong together.
    """
    missing = {"dilation1", "dilation2", "dilation4"} - set(parts)
    if missing:
        raise ValueError(f"its weights of {', '.join(sorted(missing))} are missing")
    dense, groups = parts["dilation1"], backbone.get("groups", 1)
    if any(part.dim() != 4 or not part.numel() for part in parts.values()):
        raise ValueError(f"shapes {[tuple(p.shape) for p in parts.values()]}: expected [C_out, C_in / groups, kh, kw]")
    rows, columns = dense.shape[0] // groups // PARTS, dense.shape[1] // PARTS
    small = (dense.shape[0], columns, *dense.shape[2:])
    if rows * groups * PARTS != dense.shape[0] or any(parts[d].shape != small for d in ("dilation2", "dilation4")):
        raise ValueError(f"shapes {[tuple(p.shape) for p in parts.values()]} do not belong together, {groups} groups")
    weight = dense.clone().view(groups, PARTS, rows, PARTS, columns, *dense.shape[2:])
    extra = weight.new_empty(groups, PARTS, rows, 2, columns, *dense.shape[2:])
    for out in range(PARTS):
        for slot, (name, inp) in enumerate((("dilation2", out), ("dilation4", (out + 2) % PARTS))):
            extra[:, out, :, slot] = weight[:, out, :, inp]
            weight[:, out, :, inp] = parts[name].view(groups, PARTS, rows, columns, *dense.shape[2:])[:, out]
    return {"weight": weight.view(dense.shape), "extra_weight": extra.view(dense.shape[0], -1, *dense.shape[2:])}


def beneath_mask(extra: Tensor, groups: int) -> Tensor:
    """Values of an ``extra_weight`` that the published mask covers, and should be zero: one-dimensional."""
    blocks = extra.view(groups, PARTS, -1, 2, extra.shape[1] // 2, *extra.shape[2:])
    mask = published_mask(groups)
    found = [
        blocks[group, out, :, slot].flatten()
        for group in range(groups)
        for out in range(PARTS)
        for slot, inp in enumerate((out, (out + 2) % PARTS))
        if mask[group, out, inp]
    ]
    return torch.cat(found)


def unmasked_layers(state: Mapping[str, Tensor], groups: int) -> dict[str, float]:
    """Layers whose extra weights are not zero beneath the published mask, with the largest magnitude there."""
    largest = {key: float(beneath_mask(state[key], groups).abs().max()) for key in extra_keys(state)}
    return {key.removesuffix(EXTRA): value for key, value in largest.items() if value > 0}


def extra_keys(state: Iterable[str]) -> list[str]:
    """Keys of the extra dilation-1 weights."""
    return [key for key in state if key.endswith(EXTRA)]
