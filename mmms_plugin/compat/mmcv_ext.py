"""Replaces ``mmcv._ext`` where mmcv has no compiled ops; signatures as called by mmcv/ops/*.py of mmcv 2.1.0.

Supplied: ``nms``, ``softnms``, ``roi_align_*``, ``sigmoid_focal_loss_*``, ``ms_deform_attn_*``, which Faster, Mask and
Cascade R-CNN, RetinaNet, FCOS, RTMDet, Deformable DETR and DINO use, on any device. Every other op of mmcv can be
imported; a call raises an error with its name and the remedy, as does RoIAlign with pool_mode 'max'.

Torchvision's compiled ops are used where they work and give mmcv's results, else plain torch. They do not for an offset
of 1, nor where torch has to be deterministic (torchvision's gradient on a GPU is not). On the CPU RoIAlign always runs
in plain torch, which is faster on feature maps than the compiled ops.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mmms_plugin.compat import nms as plain_nms
from mmms_plugin.compat import roi_align, torchvision_ops
from mmms_plugin.errors import UserError

AVERAGE = 1  # pool_mode
NOT_SUPPLIED = (
    "is not supplied: the installed mmcv has no compiled ops (mmcv-lite), and only nms, softnms, roi_align (averages), "
    "sigmoid_focal_loss and ms_deform_attn are supplied in their place. Install a compiled mmcv 2.1.0: 'make mmcv', or "
    "pip install one built for your torch"
)


class MissingOpError(UserError, NotImplementedError):
    """An op that only a compiled mmcv has."""


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices [K] of the boxes [N, 4] that are kept, best score first; see ``compat.nms.nms``."""
    if offset == 0 and torchvision_ops.usable(boxes.device.type):
        dtype = torch.float64 if boxes.dtype == torch.float64 else torch.float32
        # mmcv compares with a float32 threshold, torchvision with a float64 one.
        threshold = torch.tensor(iou_threshold, dtype=dtype).item()
        return torch.ops.torchvision.nms(boxes.to(dtype), scores.to(dtype), threshold)
    return plain_nms.nms(boxes, scores, iou_threshold, offset)


softnms = plain_nms.softnms


def _compiled_roi_align(tensor: Tensor) -> bool:
    return (
        tensor.device.type != "cpu"
        and not torch.are_deterministic_algorithms_enabled()
        and torchvision_ops.usable(tensor.device.type)
    )


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Pool RoIs [R, 5] (image, x1, y1, x2, y2) from input [B, C, H, W] into output [R, C, height, width].

    ``argmax_y`` and ``argmax_x`` are only for pool_mode 0 (max), which is not supplied.

    Raises:
        MissingOpError: ``pool_mode`` is 0.
    """
    if pool_mode != AVERAGE:
        raise MissingOpError(f"mmcv op 'roi_align' with pool_mode='max' {NOT_SUPPLIED}")
    roi_align.check_rois(rois, len(input), aligned)
    pooling = roi_align.Pooling((aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned)
    if _compiled_roi_align(input):
        size = (spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned)
        output.copy_(torch.ops.torchvision.roi_align(input.float().contiguous(), rois.float(), *size))
    else:
        roi_align.average_forward(input, rois, output, pooling)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of ``roi_align_forward`` for grad_output [R, C, height, width], into grad_input [B, C, H, W]."""
    pooling = roi_align.Pooling((aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned)
    if _compiled_roi_align(grad_output):
        size = (spatial_scale, aligned_height, aligned_width, *grad_input.shape, sampling_ratio, aligned)
        grad_input.copy_(torch.ops.torchvision._roi_align_backward(grad_output.float(), rois.float(), *size))
    else:
        roi_align.average_backward(grad_output, rois, grad_input, pooling)


# Sigmoid focal loss: Lin et al., "Focal Loss for Dense Object Detection" (2017), equation (5). mmdet calls mmcv's op
# only on a GPU, and its own Python version on the CPU. Deviations from the compiled op:
# 1. Logarithms are computed from the logits, not from rounded probabilities, which matters for large losses.
# 2. The class weight of background rows (target = number of classes) is 1; the compiled op reads past the weights' end.


def _hits(logits: Tensor, target: Tensor) -> Tensor:
    return target[:, None] == torch.arange(logits.shape[1], device=logits.device)


def _row_weight(weight: Tensor, target: Tensor) -> Tensor | float:
    """Weight [N, 1] of each row's class, from weight [C] or an empty tensor (no weights)."""
    return F.pad(weight.float(), (0, 1), value=1.0)[target][:, None] if weight.numel() else 1.0


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the loss of each logit of ``input`` [N, C] with classes ``target`` [N] into ``output`` [N, C]."""
    x = input.float()
    positive = -alpha * (-x).sigmoid() ** gamma * F.logsigmoid(x)
    negative = -(1 - alpha) * x.sigmoid() ** gamma * F.logsigmoid(-x)
    output.copy_(torch.where(_hits(x, target), positive, negative) * _row_weight(weight, target))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative of each logit's loss by that logit into ``grad_input`` [N, C]."""
    x = input.float()
    p, q = x.sigmoid(), (-x).sigmoid()
    positive = -alpha * q**gamma * (q - gamma * p * F.logsigmoid(x))
    negative = (1 - alpha) * p**gamma * (p - gamma * q * F.logsigmoid(-x))
    grad_input.copy_(torch.where(_hits(x, target), positive, negative) * _row_weight(weight, target))


# Multi-scale deformable attention: Zhu et al., "Deformable DETR" (2021), equation (3). mmcv calls its op only on a
# GPU; its version in plain torch, for the CPU, is used here on every device. It keeps the sampled values of all points,
# which takes more memory than the compiled op.


def _attend(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)


def ms_deform_attn_forward(
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
        value_level_start_index: of the compiled op; not used.
        sampling_locations: [B, Q, M, L, P, 2], x and y from 0 to 1.
        attention_weights: [B, Q, M, L, P].
        im2col_step: of the compiled op; not used.
    """
    return _attend(value, value_spatial_shapes, sampling_locations, attention_weights)


def ms_deform_attn_backward(
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
    """Gradients of ``ms_deform_attn_forward`` for grad_output [B, Q, M * D], into the three ``grad_`` tensors."""
    with torch.enable_grad():
        inputs = [tensor.detach().requires_grad_() for tensor in (value, sampling_locations, attention_weights)]
        output = _attend(inputs[0], value_spatial_shapes, inputs[1], inputs[2])
        gradients = torch.autograd.grad(output, inputs, grad_output)
    for target, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients, strict=True):
        target.copy_(gradient)


def get_compiler_version() -> str:
    """For mmcv's report of the environment."""
    return "n/a (mmcv has no compiled ops)"


def get_compiling_cuda_version() -> str:
    """For mmcv's report of the environment."""
    return "n/a (mmcv has no compiled ops)"


def __getattr__(name: str) -> Callable[..., None]:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def missing(*args: object, **kwargs: object) -> None:
        raise MissingOpError(f"mmcv op {name!r} {NOT_SUPPLIED}")

    missing.__name__ = name
    return missing
