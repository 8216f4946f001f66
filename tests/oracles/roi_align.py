"""RoIAlign one sample at a time, in float64: He et al., "Mask R-CNN" (2017), section 3, with mmcv's conventions."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

Tap = tuple[int, int, float]  # y, x, weight


def bilinear_taps(y: float, x: float, height: int, width: int) -> list[Tap]:
    """The four pixels around (y, x) and their weights; none where it lies more than a pixel outside."""
    if y < -1 or y > height or x < -1 or x > width:
        return []
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    fy, fx = y - top, x - left
    return [
        (top, left, (1 - fy) * (1 - fx)),
        (top, right, (1 - fy) * fx),
        (bottom, left, fy * (1 - fx)),
        (bottom, right, fy * fx),
    ]


def bin_samples(
    roi: np.ndarray, shape: tuple[int, ...], size: tuple[int, int], scale: float, ratio: int, aligned: bool
) -> Iterator[tuple[int, int, list[list[Tap]]]]:
    """(bin row, bin column, taps of each of its samples) for one RoI (x1, y1, x2, y2)."""
    shift = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (float(v) * scale - shift for v in roi)
    width, height = x2 - x1, y2 - y1
    if not aligned:
        width, height = max(width, 1.0), max(height, 1.0)
    bin_h, bin_w = height / size[0], width / size[1]
    ny, nx = (ratio, ratio) if ratio > 0 else (math.ceil(bin_h), math.ceil(bin_w))
    for row in range(size[0]):
        for column in range(size[1]):
            yield (
                row,
                column,
                [
                    bilinear_taps(
                        y1 + row * bin_h + (i + 0.5) * bin_h / ny, x1 + column * bin_w + (j + 0.5) * bin_w / nx, *shape
                    )
                    for i in range(ny)
                    for j in range(nx)
                ],
            )


def roi_align(
    features: np.ndarray,
    rois: np.ndarray,
    grad_output: np.ndarray,
    scale: float,
    ratio: int,
    aligned: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Output [R, C, h, w] and gradient [B, C, H, W] for grad_output [R, C, h, w]."""
    output = np.zeros(grad_output.shape)
    grad_input = np.zeros(features.shape)
    for r, (image, *roi) in enumerate(rois):
        b = int(image)
        for row, column, samples in bin_samples(
            np.array(roi), features.shape[2:], grad_output.shape[2:], scale, ratio, aligned
        ):
            for c in range(features.shape[1]):
                values = [sum(weight * features[b, c, y, x] for y, x, weight in taps) for taps in samples]
                share = 1.0 / max(len(values), 1)
                output[r, c, row, column] = sum(values) * share
                for taps in samples:
                    for y, x, weight in taps:
                        grad_input[b, c, y, x] += grad_output[r, c, row, column] * weight * share
    return output, grad_input
