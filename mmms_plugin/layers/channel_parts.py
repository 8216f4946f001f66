"""Channels viewed as groups of parts, and parts put into another order; for NCHW and channels_last tensors.

With 2 groups of 4 parts, 16 channels are the view ``[N, 2, 4, 2, H, W]``. Taking the parts in the order (1, 2, 3, 0)
turns the channels of the first group from 0 1 | 2 3 | 4 5 | 6 7 to 2 3 | 4 5 | 6 7 | 0 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Whether a 4-D tensor is stored as NHWC and not also as NCHW."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def regroup(x: Tensor, split: tuple[int, int, int], move: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Apply ``move(view, axis of b)`` to ``[N, C, H, W]`` viewed as ``[N, a, b, c, H, W]`` with ``split=(a, b, c)``.

    A channels_last tensor is viewed as ``[N, H, W, a, b, c]``, so that it stays one. One of a, b, c may be -1.
    """
    last = is_channels_last(x)
    axis = 3 if last else 1
    y = move((x.movedim(1, 3) if last else x).unflatten(axis, split), axis + 1).flatten(axis, axis + 2)
    return y.movedim(3, 1) if last else y


def transpose_parts(view: Tensor, axis: int) -> Tensor:
    """Swap b and c of a view ``[N, a, b, c, H, W]`` or ``[N, H, W, a, b, c]``; ``axis`` is that of b."""
    return view.transpose(axis, axis + 1)


def take_parts(x: Tensor, groups: int, parts: int, order: Sequence[int]) -> Tensor:
    """The channel parts of every group in the given order: ``[N, groups * parts * c, H, W]`` to the chosen parts."""
    if list(order) == list(range(parts)):
        return x
    runs = _runs(order)
    return regroup(x, (groups, parts, -1), lambda v, axis: torch.cat([v.narrow(axis, a, n) for a, n in runs], axis))


def inverse(order: Sequence[int]) -> list[int]:
    """The order that undoes ``order``: (1, 2, 3, 0) gives [3, 0, 1, 2]."""
    return sorted(range(len(order)), key=lambda position: order[position])


def _runs(order: Sequence[int]) -> list[tuple[int, int]]:
    """``[(first, count), ...]`` of the ascending runs, to copy neighbours together: (1, 2, 3, 0) has 2 runs."""
    runs: list[tuple[int, int]] = []
    for part in order:
        if runs and part == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((part, 1))
    return runs
