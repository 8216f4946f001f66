"""Multi-scale deformable attention (Zhu et al., "Deformable DETR", 2021, equation (3)) where mmcv has no compiled op.

mmcv calls its op on a GPU only, and computes the same in plain torch on the CPU; here that is used on every device. It
keeps the sampled values of all points, which takes more memory than the compiled op.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _attend(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)


def forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Weighted sums [B, Q, M * D] of bilinear samples.

    Args:
        value: [B, K, M, D], the K pixels of all levels, M heads.
        value_spatial_shapes: [L, 2], height and width of each level.
        value_level_start_index, im2col_step: of the compiled op; not needed.
        sampling_locations: [B, Q, M, L, P, 2], x and y from 0 to 1.
        attention_weights: [B, Q, M, L, P].
    """
    return _attend(value, value_spatial_shapes, sampling_locations, attention_weights)


def backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Write the gradients of ``forward`` for grad_output [B, Q, M * D] into the three ``grad_`` tensors."""
    with torch.enable_grad():
        inputs = [tensor.detach().requires_grad_() for tensor in (value, sampling_locations, attention_weights)]
        output = _attend(inputs[0], value_spatial_shapes, inputs[1], inputs[2])
        gradients = torch.autograd.grad(output, inputs, grad_output)
    for target, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients, strict=True):
        target.copy_(gradient)
