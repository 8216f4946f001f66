"""Tensors as on Apple's MPS, which has no float64: what computes in it there raises TypeError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves


class OnMps(Tensor):
    """A tensor that its results inherit from, until ``cpu()`` brings them back."""

    @classmethod
    def __torch_function__(
        cls, function: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is Tensor.cpu:
            return args[0].as_subclass(Tensor)
        result = super().__torch_function__(function, types, args, kwargs or {})
        if any(isinstance(leaf, cls) and leaf.dtype == torch.float64 for leaf in tree_leaves(result)):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return result
