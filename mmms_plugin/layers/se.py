"""Squeeze-and-excitation (Hu et al., 2018), as the SE variants of PS-ResNet and ELASTIC use it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """Scale channels by a gate computed from their means.

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
