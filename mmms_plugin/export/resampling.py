"""Elastic's down- and up-sampling in few nodes: one pooling; one enlargement, which is cropped where it has to be.

In a captured graph ``layers/resampling.py`` picks rows and columns by index, because slices would compare sizes that
are symbols. Engines take long for that. Here the enlargement is an operator of its own, of whose output torch knows
nothing but the size, and which is translated for ONNX by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmms_plugin.layers.common import is_capturing
from mmms_plugin.layers.resampling import Downsample, Upsample

SCHEMA = "(Tensor x, int ratio, bool linear, SymInt height, SymInt width, bool crops) -> Tensor"


@torch.library.custom_op("mmms_plugin::enlarge", mutates_args=(), schema=SCHEMA)
def enlarge(x: Tensor, ratio: int, linear: bool, height: int, width: int, crops: bool) -> Tensor:
    """``[N, C, h, w]`` up-sampled by the ratio, bilinearly or by repetition, and cropped to the height and width.

    Args:
        x: the map.
        ratio: an integer.
        linear: bilinear.
        height, width: of the output in px.
        crops: False promises that it need not be cropped.
    """
    mode: Any = dict(mode="bilinear", align_corners=False) if linear else dict(mode="nearest")
    return F.interpolate(x, scale_factor=float(ratio), **mode)[:, :, :height, :width].clone()


@enlarge.register_fake
def _(x: Tensor, ratio: int, linear: bool, height: int, width: int, crops: bool) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], height, width)


class Enlargement(nn.Module):
    """An ``Upsample`` as one operator.

    Attributes:
        crops: whether a run had to crop.
    """

    def __init__(self, up: Upsample) -> None:
        super().__init__()
        self.ratio, self.linear, self.crops = up.ratio, up.method == "bilinear", False

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        if not is_capturing():
            self.crops |= (x.shape[-2] * self.ratio, x.shape[-1] * self.ratio) != tuple(size)
        y: Tensor = enlarge(x, self.ratio, self.linear, *size, self.crops)
        return y


def replace_resampling(model: nn.Module) -> None:
    """Replace the layers that have a form of few nodes; the model is changed in place."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is Upsample and child.method in ("bilinear", "nearest"):
                setattr(parent, name, Enlargement(child))
            elif type(child) is Downsample and child.pool and child.ratio == 2 and child.method != "dilated":
                # the mean of the pixels that there are is that of repeated ones
                setattr(parent, name, nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False))


def find_crops(model: nn.Module, run: Callable[[], object] | None) -> None:
    """Let enlargements crop only where they do in a run with a picture of representative size; None: everywhere."""
    for module in model.modules():
        if isinstance(module, Enlargement):
            module.crops = run is None
    if run is not None:
        run()


def onnx_translations() -> dict[Any, Callable[..., Any]]:
    """The operators of this module in ONNX, as ``torch.onnx.export`` takes them."""
    from onnxscript import opset18

    op: Any = opset18  # whose types are those of tensors only

    def translated(x: Any, ratio: int, linear: bool, height: Any, width: Any, crops: bool) -> Any:
        scales = op.Constant(value_floats=[1.0, 1.0, float(ratio), float(ratio)])
        # onnxruntime has fast forms of these two only
        mode, place = ("linear", "half_pixel") if linear else ("nearest", "asymmetric")
        y = op.Resize(x, None, scales, mode=mode, coordinate_transformation_mode=place, nearest_mode="floor")
        if not crops:
            return y
        number = op.Constant(value_ints=[1])
        ends = op.Concat(op.Reshape(height, number), op.Reshape(width, number), axis=0)
        return op.Slice(y, op.Constant(value_ints=[0, 0]), ends, op.Constant(value_ints=[2, 3]))

    return {torch.ops.mmms_plugin.enlarge.default: translated}
