"""Average pooling by 2 and bilinear up-sampling by 2, quick for NCHW tensors on the CPU too.

There torch pools value by value, and up-samples by way of a copy to NHWC and back. Sums of whole rows take an eighth
and half of the time (measured, one core; a third less with the backward pass). Elsewhere, and in captured graphs,
torch's own functions are used.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmms_plugin.layers.graph_capture import is_capturing


def halve(x: Tensor) -> Tensor:
    """``[N, C, H, W] -> [N, C, H / 2, W / 2]``, means of 2 x 2 pixels; H and W are even."""
    if not _slow_in_torch(x):
        return F.avg_pool2d(x, 2)
    rows = x[..., 0::2, :] + x[..., 1::2, :]
    return (rows[..., 0::2] + rows[..., 1::2]) * 0.25


def double(x: Tensor) -> Tensor:
    """``[N, C, H, W] -> [N, C, 2 H, 2 W]``, bilinear with ``align_corners=False``."""
    if not _slow_in_torch(x):
        return F.interpolate(x, (x.shape[-2] * 2, x.shape[-1] * 2), mode="bilinear", align_corners=False)
    return _double_along(_double_along(x, 3), 2)


def _double_along(x: Tensor, axis: int) -> Tensor:
    # new pixels lie a quarter before and after the old ones; the border repeats
    length = x.shape[axis]
    before = torch.cat((x.narrow(axis, 0, 1), x.narrow(axis, 0, length - 1)), axis)
    after = torch.cat((x.narrow(axis, 1, length - 1), x.narrow(axis, length - 1, 1)), axis)
    pairs = torch.stack((torch.lerp(x, before, 0.25), torch.lerp(x, after, 0.25)), axis + 1)
    return pairs.flatten(axis, axis + 1)


def _slow_in_torch(x: Tensor) -> bool:
    if x.device.type != "cpu" or is_capturing():
        return False
    return x.dtype in (torch.float32, torch.float64) and x.is_contiguous()
