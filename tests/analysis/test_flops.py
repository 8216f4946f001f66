"""Multiply-adds of convolutions, and bilinear up-sampling apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_plugin.analysis.flops import UPSAMPLE_OPS, count


class Up(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return nn.Upsample(scale_factor=2, mode="bilinear")(F.interpolate(x, scale_factor=2))


def test_bilinear_up_sampling_counts_apart_and_nearest_does_not():
    cost = count(nn.Sequential(nn.Conv2d(3, 2, 1), Up()), torch.empty(1, 3, 4, 6, device="meta"))
    assert cost.upsampling == UPSAMPLE_OPS * 2 * (8 * 12 + 32 * 48)
    assert cost.macs == 3 * 2 * 4 * 6
