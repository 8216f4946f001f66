"""oneDNN's convolution, called directly.

On a CPU with one thread, torch computes 1x1 convolutions of stride 1 by ``_slow_conv2d``, a matrix product for each
picture. oneDNN, called directly, takes 0.6 to 0.9 of its time with NHWC maps of 40 px and
more; with NCHW maps it may take longer. With several threads, or 16 pictures, torch calls it by itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmms_plugin.compat.torch_internals import onednn_conv2d
from mmms_plugin.layers.common import is_capturing


def usable(x: Tensor) -> bool:
    """Whether oneDNN computes a convolution of ``x``: float32 on the CPU, outside captured graphs and autocast."""
    return bool(
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not is_capturing()
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
    )


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution of stride 1 that oneDNN computes where it can, otherwise torch."""

    @classmethod
    def of(cls, conv: nn.Conv2d) -> PointwiseConv2d:
        """With the weights of another."""
        new = cls(conv.in_channels, conv.out_channels, 1, bias=conv.bias is not None, device="meta")
        new.weight, new.bias = conv.weight, conv.bias
        return new.train(conv.training)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 4 and usable(x) and x.dtype == self.weight.dtype:
            return onednn_conv2d(x, self.weight, self.bias)
        return F.conv2d(x, self.weight, self.bias)
