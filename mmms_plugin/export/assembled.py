"""PSConv with its kernels assembled beforehand: a graph of few nodes, one convolution for each dilation.

A layer with the pattern (1, 2, 1, 4) becomes three grouped convolutions, each of which takes the channels in an order
of its own; their sum is brought back to the layer's order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmms_plugin.layers import PSConv2d
from mmms_plugin.layers.channel_parts import PartwiseConv2d


class AssembledPSConv2d(PartwiseConv2d):
    """What a ``PSConv2d`` computes, with constant kernels; ``[N, C_in, H, W] -> [N, C_out, H', W']``.

    Args:
        layer: whose weights are copied, in new orders.
    """

    outputs: Tensor | None

    def __init__(self, layer: PSConv2d) -> None:
        sizes: Any = dict(kernel_size=layer.kernel_size, stride=layer.stride, padding=layer.padding)
        sizes |= dict(dilation=layer.dilation, groups=layer.groups, padding_mode=layer.padding_mode)
        super().__init__(layer.in_channels, layer.out_channels, **sizes, bias=False, device="meta")
        del self.weight, self.bias
        convs, outputs = layer.assembled()
        self.multiples = [(conv.multiple, conv.groups) for conv in convs]
        for number, conv in enumerate(convs):
            self.register_buffer(f"weight{number}", conv.weight)
            self.register_buffer(f"inputs{number}", _order(conv.inputs, layer.in_channels))
        self.register_buffer("outputs", _order(outputs, layer.out_channels))
        # of the first convolution, whose channels are in another order than the layer's
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach()[outputs.argsort()])

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor | None = None
        for number, (multiple, groups) in enumerate(self.multiples):
            inputs, weight = self._buffers[f"inputs{number}"], self._buffers[f"weight{number}"]
            assert weight is not None
            part = x if inputs is None else x.index_select(1, inputs)
            bias = self.bias if total is None else None
            y = self.conv_part(part, weight, groups, multiple=multiple, bias=bias)
            total = y if total is None else total + y
        assert total is not None
        return total if self.outputs is None else total.index_select(1, self.outputs)


def assemble_kernels(model: nn.Module) -> int:
    """Replace every ``PSConv2d`` of a model, though not its subclasses; returns their number."""
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is PSConv2d
    ]
    for parent, name, layer in places:
        setattr(parent, name, AssembledPSConv2d(layer))
    return len(places)


def _order(channels: Tensor, count: int) -> Tensor | None:
    """None if they are all channels, in order: no node of the graph is then needed."""
    return None if torch.equal(channels, torch.arange(count, device=channels.device)) else channels
