"""What torch offers without documenting it: the only door to it, and what to mend when torch changes it.

``tests/compat/test_torch_internals.py`` compares each function with documented ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Pair = tuple[int, int]


def is_dispatch_observed() -> bool:
    """Whether a dispatch mode is active, such as ``FlopCounterMode``."""
    return torch._C._len_torch_dispatch_stack() > 0


def is_functorch_active() -> bool:
    """Whether ``torch.func`` transforms the running code (``vmap``, ``grad``)."""
    return bool(torch._C._are_functorch_transforms_active())


def is_forward_mode_active() -> bool:
    """Whether the running code is inside ``torch.autograd.forward_ad.dual_level``."""
    return bool(torch.autograd.forward_ad._current_level >= 0)


def has_kernel(operator: str, device_type: str) -> bool:
    """Whether an operator ('library::name') is compiled for devices of a type; False if it does not exist."""
    try:
        return bool(torch._C._dispatch_has_kernel_for_dispatch_key(operator, device_type.upper()))
    except RuntimeError:  # no operator or type of that name
        return False


def conv2d_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    geometry: tuple[Pair, Pair, Pair],
    groups: int,
    needed: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of ``F.conv2d`` by its input and its weight, together; None where not needed.

    Args:
        grad: of the output, ``[N, C_out, H', W']``.
        x: the input, ``[N, C_in, H, W]``.
        weight: ``[C_out, C_in / groups, kh, kw]``.
        geometry: stride, padding and dilation.
        groups: of the convolution.
        needed: the gradient by the input, and by the weight.
    """
    stride, padding, dilation = geometry
    by_input, by_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, dilation, False, (0, 0), groups, (*needed, False)
    )
    return by_input, by_weight


def onednn_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1x1 convolution of stride 1 by oneDNN, with gradients: float32 on the CPU, ``[N, C_in, H, W]``."""
    y: Tensor = torch.mkldnn_convolution(x, weight, bias, (0, 0), (1, 1), (1, 1), 1)  # type: ignore[attr-defined]
    return y


def end_workers(loader: Any) -> None:
    """End the worker processes of a DataLoader that keeps them, or of what iterates over one; nothing for others."""
    iterator: Any = getattr(loader, "_iterator", None)
    if hasattr(iterator, "_shutdown_workers"):
        iterator._shutdown_workers()
