"""The Elastic bottleneck of ResNeXt and DLA: left of Figure 3 of the ELASTIC paper (github.com/allenai/elastic).

The paths of a ResNeXt bottleneck are divided over branches; their sum precedes one batch norm, which is the block's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from mmms_plugin.layers.elastic import Elastic, ElasticPolicy


class BottleneckPath(nn.Sequential):
    """1x1, grouped 3x3 and 1x1 layer: ``[N, in_channels, H, W] -> [N, out_channels, H / stride, W / stride]``.

    ``relu2`` gives the activations of which section 4.1.1 makes the scale policy score.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        out_channels: int,
        stride: int,
        dilation: int,
        groups: int,
        norm: Callable[[int], nn.Module],
    ) -> None:
        conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, groups, bias=False)
        layers = OrderedDict(
            conv1=nn.Conv2d(in_channels, width, 1, bias=False),
            bn1=norm(width),
            relu1=nn.ReLU(inplace=True),
            conv2=conv2,
            bn2=norm(width),
            relu2=nn.ReLU(inplace=True),
            conv3=nn.Conv2d(width, out_channels, 1, bias=False),
        )
        super().__init__(layers)


def elastic_bottleneck(
    policy: ElasticPolicy,
    in_channels: int,
    width: int,
    out_channels: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 32,
    lower: bool = True,
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
) -> Elastic:
    """The summed paths of one bottleneck, ``[N, in_channels, H, W] -> [N, out_channels, H / stride, W / stride]``.

    Args:
        policy: ratios and shares; the groups are divided by the shares, and the ``width`` channels with them.
        lower: False keeps all branches at full resolution, as in strided blocks and the last stage.
        norm: makes the norm layer for a number of channels.

    Branches are called ``high``, ``low``, ``low2``, ... in the order of the policy.
    Raises: ValueError if ``groups`` does not divide ``width`` or is too small for the shares.
    """
    if groups < 1 or width < 1 or width % groups:
        raise ValueError(f"groups={groups}: must divide the width of the 3x3 layer, which is {width}")
    branches, ratios = {}, []
    for i, (ratio, count) in enumerate(policy.divide(groups, "groups")):
        name = ("high", "low")[i] if i < 2 else f"low{i}"
        branches[name] = BottleneckPath(
            in_channels, width // groups * count, out_channels, stride, dilation, count, norm
        )
        ratios.append(ratio if lower else 1)
    return Elastic(branches, ratios, policy.method, policy.pool, in_channels=in_channels, out_channels=out_channels)
