"""RoIAlign in plain torch: forward and backward, averages only (``pool_mode='avg'``).

He et al., "Mask R-CNN" (2017), section 3. Half-pixel shift, adaptive grid and border are those of mmcv 2.1.0's
``roi_align`` op; results agree with it to rounding.

The average over a bin is linear in the feature map, and its weights are separable: a product of one row of y weights
and one of x weights. Each bin is thus a weighted bag of a few pixels, and the whole pooling a sparse matrix
[bins, pixels] times the feature map as [pixels, channels]: ``embedding_bag`` in both directions. RoIs with the same
sampling grid are computed together, so that all bags of one call are of the same length.

Deviations from the compiled op:
1. Arithmetic is in float32 (float64 for float64 input), also for float16 and bfloat16 input.
2. On the CPU a RoI of negative or non-finite size, or of an image that does not exist, raises ValueError, where the
   compiled op fails an assertion or reads foreign memory. Other devices do not check it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 1 << 21  # entries of the sparse matrix that are computed at once
SCATTER_CHUNK = 1 << 23  # entries that are sorted at once in the backward pass


@dataclass(frozen=True)
class Pooling:
    """Settings: output size (height, width), scale from image to map, sampling, half-pixel shift."""

    output_size: tuple[int, int]
    spatial_scale: float
    sampling_ratio: int
    aligned: bool


@dataclass(frozen=True)
class _Axis:
    """Start, bin size and sample count per bin of every RoI, all [R], along y or x of a map ``size`` pixels long."""

    start: Tensor
    bin_size: Tensor
    count: Tensor
    bins: int
    size: int

    def bin_taps(self, rows: Tensor, count: int, adaptive: bool) -> tuple[Tensor, Tensor]:
        """Pixel and weight, both [G, bins, taps]: the share of each pixel in a bin's average."""
        step = self.bin_size[rows, None, None]
        first = self.start[rows, None, None] + torch.arange(self.bins, device=step.device).view(1, -1, 1) * step
        coords = first + (torch.arange(count, device=step.device) + 0.5) * step / count
        inside = (coords >= -1) & (coords <= self.size)
        coords = coords.clamp(0, self.size - 1)
        if not adaptive:  # samples may be far apart: each has its own two neighbours
            low = coords.floor()
            upper = coords - low
            pixel = torch.stack([low, (low + 1).clamp_(max=self.size - 1)], -1).long()
            weight = torch.stack([1 - upper, upper], -1) * inside[..., None]
            return pixel.flatten(-2), weight.flatten(-2) / count
        # An adaptive grid's samples are at most one pixel apart: they touch at most count + 1 successive pixels, and
        # the weight of a pixel is the sum of the samples' hat functions there.
        pixel = coords[..., :1].floor() + torch.arange(count + 1, device=coords.device)
        hats = (1 - (coords[..., None, :] - pixel[..., None]).abs()).clamp_(min=0) * inside[..., None, :]
        return pixel.clamp_(max=self.size - 1).long(), hats.sum(-1) / count


def check_rois(rois: Tensor, batch: int, aligned: bool) -> None:
    """Raise ValueError for a RoI [image, x1, y1, x2, y2] that cannot be pooled; CPU only, as it would stall a GPU."""
    if rois.device.type != "cpu":
        return
    image, sizes = rois[:, 0], (rois[:, 3:] - rois[:, 1:3]).float()
    good = (image >= 0) & (image < batch) & sizes.isfinite().all(1)
    if aligned:
        good &= (sizes >= 0).all(1)
    if not good.all():
        row = int((~good).nonzero()[0])
        raise ValueError(
            f"rois[{row}] = {rois[row].tolist()}: must be (image, x1, y1, x2, y2) with image in 0..{batch - 1}, "
            "x1 <= x2, y1 <= y2, all finite (not finite means that the model has diverged)"
        )


def _axes(corners: Tensor, height: int, width: int, pooling: Pooling) -> tuple[_Axis, _Axis]:
    """The y and the x axis of all RoIs, from corners [R, 4] in the image."""
    corners = corners * pooling.spatial_scale - (0.5 if pooling.aligned else 0.0)
    sizes = corners[:, 2:] - corners[:, :2]
    if not pooling.aligned:
        sizes = sizes.clamp(min=1)
    axes = []
    for dim, bins, pixels in ((1, pooling.output_size[0], height), (0, pooling.output_size[1], width)):
        bin_size = sizes[:, dim] / bins
        if pooling.sampling_ratio > 0:
            count = torch.full_like(bin_size, pooling.sampling_ratio, dtype=torch.long)
        else:
            count = bin_size.float().ceil().clamp_(min=0).long()
        axes.append(_Axis(corners[:, dim].contiguous(), bin_size, count, bins, pixels))
    return axes[0], axes[1]


def _groups(y: _Axis, x: _Axis, entries_per_cell: int) -> Iterator[tuple[Tensor, int, int]]:
    """(rows, y count, x count) for RoIs with the same grid, in chunks of bounded memory; empty grids are left out."""
    if not len(y.count):
        return
    counts, group = torch.stack([y.count, x.count], 1).unique(dim=0, return_inverse=True)
    order = group.sort(stable=True).indices
    for rows, (ny, nx) in zip(order.split(group.bincount().tolist()), counts.tolist(), strict=True):
        if ny and nx:
            cells = y.bins * x.bins * (ny + 1) * (nx + 1) * entries_per_cell + (y.bins * ny * ny + x.bins * nx * nx)
            for chunk in rows.split(max(1, CHUNK // cells)):
                yield chunk, ny, nx


def _bags(rois: Tensor, shape: torch.Size, pooling: Pooling) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(rows [G], pixels [G * bins, L], weights [G * bins, L]) of the sparse matrix, group by group.

    Pixels count through [batch, height, width], bins through [y, x].
    """
    _, _, height, width = shape
    rois = rois.nan_to_num(0.0, 0.0, 0.0)
    image = rois[:, 0].long()
    y, x = _axes(rois[:, 1:], height, width, pooling)
    index = torch.int32 if shape[0] * height * width < 2**31 else torch.int64
    origin = image * (height * width)
    adaptive = pooling.sampling_ratio <= 0
    for rows, ny, nx in _groups(y, x, 1 if adaptive else 4):
        y_pixel, y_weight = y.bin_taps(rows, ny, adaptive)
        x_pixel, x_weight = x.bin_taps(rows, nx, adaptive)
        line = (origin[rows, None, None] + y_pixel * width).to(index)
        pixel = line[:, :, None, :, None] + x_pixel.to(index)[:, None, :, None, :]
        weight = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]
        taps = y_pixel.shape[-1] * x_pixel.shape[-1]
        yield rows, pixel.reshape(-1, taps), weight.reshape(-1, taps)


def _compute_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _pixel_rows(images: Tensor, dtype: torch.dtype) -> Tensor:
    """[N, C, H, W] as [N * H * W, C]; a view where the memory format is channels_last or C is 1."""
    channels_last = images.to(dtype).permute(0, 2, 3, 1)
    if images.device.type != "cpu" or channels_last.is_contiguous():
        return channels_last.reshape(-1, images.shape[1])
    rows = channels_last.new_empty(channels_last.shape)
    for row, image in zip(rows, images.to(dtype), strict=True):  # torch transposes matrices faster than anything else
        row.view(-1, images.shape[1]).copy_(image.flatten(1).t())
    return rows.view(-1, images.shape[1])


def _store_rows(rows: Tensor, images: Tensor) -> None:
    """Write [N * H * W, C] into ``images`` [N, C, H, W]; the inverse of ``_pixel_rows``."""
    number, channels, height, width = images.shape
    rows = rows.to(images.dtype).view(number, height * width, channels)
    if images.device.type != "cpu" or not images.is_contiguous():
        images.copy_(rows.view(number, height, width, channels).permute(0, 3, 1, 2))
        return
    for image, row in zip(images, rows, strict=True):
        image.view(channels, -1).copy_(row.t())


def average_forward(features: Tensor, rois: Tensor, output: Tensor, pooling: Pooling) -> None:
    """Average-pool RoIs [R, 5] from features [B, C, H, W] into ``output`` [R, C, *output_size]."""
    dtype = _compute_dtype(features)
    table = _pixel_rows(features, dtype)
    bins = pooling.output_size[0] * pooling.output_size[1]
    pooled = table.new_zeros(len(rois), bins, table.shape[1])
    for rows, pixel, weight in _bags(rois.to(dtype), features.shape, pooling):
        bags = F.embedding_bag(pixel, table, mode="sum", per_sample_weights=weight)
        pooled.index_copy_(0, rows, bags.view(len(rows), bins, -1))
    _store_rows(pooled.view(-1, table.shape[1]), output)


def _scatter(bags: list[tuple[Tensor, Tensor, Tensor]], grad: Tensor, total: Tensor) -> None:
    """Add the transposed product to ``total`` [pixels, C] from grad [all bins, C], always in the same order."""
    pixel = torch.cat([p.flatten() for _, p, _ in bags])
    weight = torch.cat([w.flatten() for _, _, w in bags])
    source = torch.cat([b[:, None].expand_as(p).reshape(-1) for b, p, _ in bags])
    pixel, order = pixel.sort(stable=True)
    touched, count = pixel.unique_consecutive(return_counts=True)
    offsets = (count.cumsum(0) - count).to(source.dtype)
    part = F.embedding_bag(source[order], grad, offsets, mode="sum", per_sample_weights=weight[order])
    total.index_add_(0, touched, part)


def average_backward(grad_output: Tensor, rois: Tensor, grad_input: Tensor, pooling: Pooling) -> None:
    """Gradient of ``average_forward`` for grad_output [R, C, *output_size], into ``grad_input`` [B, C, H, W]."""
    dtype = _compute_dtype(grad_output)
    batch, channels, height, width = grad_input.shape
    bins = pooling.output_size[0] * pooling.output_size[1]
    grad = _pixel_rows(grad_output, dtype)
    total = grad.new_zeros(batch * height * width, channels)
    pending: list[tuple[Tensor, Tensor, Tensor]] = []
    size = 0
    for rows, pixel, weight in _bags(rois.to(dtype), grad_input.shape, pooling):
        bag = (rows[:, None] * bins + torch.arange(bins, device=rows.device)).flatten().to(pixel.dtype)
        pending.append((bag, pixel, weight))
        size += pixel.numel()
        if size >= SCATTER_CHUNK:
            _scatter(pending, grad, total)
            pending, size = [], 0
    if pending:
        _scatter(pending, grad, total)
    _store_rows(total, grad_input)
