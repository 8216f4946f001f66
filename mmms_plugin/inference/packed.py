"""PSConv whose kernels are put together once: at each call, with small maps, that takes longer than the arithmetic."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmms_plugin.inference.onednn import usable
from mmms_plugin.layers import PSConv2d
from mmms_plugin.layers.common import is_observed, is_transformed
from mmms_plugin.layers.conv_sum import Term, add_terms
from mmms_plugin.layers.ps_conv import cpu_terms


class PackedPSConv2d(PSConv2d, nn.Conv2d):
    """A PSConv that keeps, beside its weight, the kernels that it applies on a CPU; elsewhere it uses the weight."""

    terms: tuple[Term, ...]
    kernels: list[Tensor]
    packed_bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        recorded = torch.is_grad_enabled() and x.requires_grad
        fits = x.dim() == 4 and usable(x) and self.weight.device == x.device and self.weight.dtype == x.dtype
        if recorded or not fits or is_observed() or is_transformed():
            return super().forward(x)
        return add_terms(x, self.terms, self.kernels, self.packed_bias)

    def _load_from_state_dict(self, *args: Any) -> None:
        raise RuntimeError("this model was optimized for inference and keeps other kernels: load into the original")


def pack(layer: PSConv2d) -> None:
    """Make a float32 layer on the CPU one that keeps its kernels, in place; one that puts none together stays."""
    terms = cpu_terms(layer) if layer.weight.dtype == torch.float32 else ()
    if not terms:
        return
    layer.__class__ = PackedPSConv2d
    assert isinstance(layer, PackedPSConv2d)
    weight, bias = layer.weight.detach(), layer.bias
    layer.terms, layer.kernels = terms, [term.kernels(weight) for term in terms]
    in_order = None if bias is None else terms[0].outputs_backward(bias.detach().view(1, -1, 1, 1)).flatten()
    layer.packed_bias = in_order
