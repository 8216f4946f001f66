"""Give a map another height and width by cropping or repeating at the right and bottom."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmms_plugin.layers.graph_capture import is_capturing


def fit_to(x: Tensor, size: tuple[int, int]) -> Tensor:
    """``[N, C, H, W] -> [N, C, *size]``: crop at the right and bottom, or repeat the last row and column.

    While a graph is captured, rows and columns are picked by number: slicing and padding would fix which of the two
    sizes is the larger. Picking takes longer, so it is not done otherwise.
    """
    height, width = x.shape[2:]
    if is_capturing():
        rows, columns = (
            torch.arange(side, device=x.device).clamp(max=last - 1)
            for side, last in zip(size, (height, width), strict=True)
        )
        return x.index_select(2, rows).index_select(3, columns)
    x = x[:, :, : size[0], : size[1]]
    below, right = size[0] - x.shape[2], size[1] - x.shape[3]
    return F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x
