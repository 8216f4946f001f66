"""Sigmoid focal loss in plain torch: Lin et al., "Focal Loss for Dense Object Detection" (2017), equation (5).

mmdet calls mmcv's op on a GPU only (and its own Python version on the CPU); this one works on every device.

Deviations from the compiled op:
1. Logarithms are taken of the logits, not of rounded probabilities, which matters where a loss is large.
2. The class weight of background rows (target = number of classes) is 1; the compiled op reads past the weights' end.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def _hits(logits: Tensor, target: Tensor) -> Tensor:
    return target[:, None] == torch.arange(logits.shape[1], device=logits.device)


def _row_weight(weight: Tensor, target: Tensor) -> Tensor | float:
    """Weight [N, 1] of each row's class, from weight [C] or an empty tensor (no weights)."""
    return F.pad(weight.float(), (0, 1), value=1.0)[target][:, None] if weight.numel() else 1.0


def loss(input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float) -> None:
    """Write the loss of each logit of ``input`` [N, C] with classes ``target`` [N] into ``output`` [N, C]."""
    x = input.float()
    positive = -alpha * (-x).sigmoid() ** gamma * F.logsigmoid(x)
    negative = -(1 - alpha) * x.sigmoid() ** gamma * F.logsigmoid(-x)
    output.copy_(torch.where(_hits(x, target), positive, negative) * _row_weight(weight, target))


def gradient(input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float) -> None:
    """Write the derivative of each logit's loss by that logit into ``grad_input`` [N, C]."""
    x = input.float()
    p, q = x.sigmoid(), (-x).sigmoid()
    positive = -alpha * q**gamma * (q - gamma * p * F.logsigmoid(x))
    negative = (1 - alpha) * p**gamma * (p - gamma * q * F.logsigmoid(-x))
    grad_input.copy_(torch.where(_hits(x, target), positive, negative) * _row_weight(weight, target))
