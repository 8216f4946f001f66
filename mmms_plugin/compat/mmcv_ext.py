"""Stands in for ``mmcv._ext`` where mmcv has no compiled ops; signatures as called by mmcv/ops/*.py of mmcv 2.1.0.

Supplied: ``nms``, ``softnms``, ``roi_align_*``, ``sigmoid_focal_loss_*``, ``ms_deform_attn_*``, which Faster, Mask and
Cascade R-CNN, RetinaNet, FCOS, RTMDet, Deformable DETR and DINO use, on any device. Every other op of mmcv's can be
imported, and says its name and the remedy when called.

Which code is used: torchvision's compiled ops where they work and give mmcv's results, else plain torch. They do not
where offset is 1, pool_mode is 'max', or torch has to be deterministic (torchvision's gradient on a GPU is not).
On the CPU RoIAlign in plain torch is used in any case: on feature maps it is faster than the compiled ones.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mmms_plugin.compat import deformable_attention, focal_loss, roi_align, torchvision_ops
from mmms_plugin.compat import nms as plain_nms
from mmms_plugin.errors import UserError

_MAX, _AVERAGE = 0, 1  # pool_mode


class MissingOpError(UserError, NotImplementedError):
    """An op of mmcv's that only a compiled mmcv has."""


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices [K] of the boxes [N, 4] that stay, best score first; see ``compat.nms.nms``."""
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

    With pool_mode 0 (max), argmax_y and argmax_x, of output's shape, receive the place of each maximum.
    """
    roi_align.check_rois(rois, len(input), aligned)
    pooling = roi_align.Pooling((aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned)
    if pool_mode == _MAX:
        roi_align.maximum_forward(input, rois, output, argmax_y, argmax_x, pooling)
    elif _compiled_roi_align(input):
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
    if pool_mode == _MAX:
        roi_align.maximum_backward(grad_output, rois, argmax_y, argmax_x, grad_input)
    elif _compiled_roi_align(grad_output):
        size = (spatial_scale, aligned_height, aligned_width, *grad_input.shape, sampling_ratio, aligned)
        grad_input.copy_(torch.ops.torchvision._roi_align_backward(grad_output.float(), rois.float(), *size))
    else:
        roi_align.average_backward(grad_output, rois, grad_input, pooling)


ms_deform_attn_forward = deformable_attention.forward
ms_deform_attn_backward = deformable_attention.backward
sigmoid_focal_loss_forward = focal_loss.loss
sigmoid_focal_loss_backward = focal_loss.gradient


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
        raise MissingOpError(
            f"mmcv op {name!r} is not supplied: the installed mmcv has no compiled ops (mmcv-lite), and only nms, "
            "softnms, roi_align, sigmoid_focal_loss and ms_deform_attn are supplied in their place. Install a compiled "
            "mmcv 2.1.0: 'make mmcv', or pip install one built for your torch"
        )

    missing.__name__ = name
    return missing
