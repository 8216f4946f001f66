"""Memory that training needs for activations: what autograd keeps for the backward pass."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn


def kept_for_backward(module: nn.Module, x: torch.Tensor) -> int:
    """Bytes of the tensors that ``module(x)`` keeps for the backward pass, in training mode.

    Tensors that share memory count once; parameters and buffers, which are there anyway, do not count. Works on the
    meta device. What a framework's own workspace needs comes on top.

    Args:
        x: input of the module; two pictures at least where a batch norm sees maps of one pixel.
    """
    there = {_storage(tensor) for tensor in chain(module.parameters(), module.buffers())}
    kept: dict[int, torch.Tensor] = {}  # the tensors stay alive, so that no address is used twice

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if _storage(tensor) not in there:
            kept[_storage(tensor)] = tensor.detach()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = module.train()(x)
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del outputs
    return total


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
