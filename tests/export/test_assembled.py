"""PSConv layers with assembled kernels compute what the layers do, in a few nodes."""

from __future__ import annotations

import pytest
import torch

from mmms_plugin.export.assembled import AssembledPSConv2d
from mmms_plugin.layers import PSConv2d


@pytest.mark.parametrize(
    ("channels", "options", "groups"),
    [
        ((16, 32), {}, [2, 4, 4]),
        ((16, 16), dict(stride=2, dilation_pattern=(2, 1, 4, 1), bias=False), [2, 4, 4]),
        ((32, 32), dict(groups=4), [8, 16, 16]),
        ((32, 16), dict(groups=2, channel_order="cyclic"), [4, 8, 8]),
        ((12, 12), dict(dilation_pattern=(1, 3, 2), padding_mode="reflect"), [3, 3, 3]),
        ((12, 12), dict(dilation_pattern=(1, 1, 1, 2)), [2, 4, 4]),
        ((10, 14), {}, [1, 1, 1]),
        ((16, 16), dict(axes="input"), [1, 1, 1]),
        ((16, 16), dict(axes="output", channel_order="cyclic"), [1, 1, 1]),
        ((8, 8), dict(dilation_pattern=(1, 1)), [1]),
    ],
)
def test_the_same_outputs_by_one_convolution_for_each_dilation(channels, options, groups):
    torch.manual_seed(0)
    layer = PSConv2d(*channels, 3, padding=1, **options).eval()
    assembled = AssembledPSConv2d(layer)
    x = torch.randn(2, channels[0], 13, 16)
    with torch.no_grad():
        torch.testing.assert_close(assembled(x), layer(x), atol=2e-6, rtol=1e-5)
    assert sorted(count for _, count in assembled.multiples) == sorted(groups)
