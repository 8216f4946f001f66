"""Numbers that help to choose size bins and anchors from a data set's own objects.

Anchors follow RetinaNet's parametrisation (Lin et al. 2017, section 4: a base side per pyramid level, octaves between)
and the anchor generators of the hosts (``scales``, ``ratios`` = height / width, ``strides``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mmms_plugin.size_ap.objects.anchors import best_scale

FPN_STRIDES = (4, 8, 16, 32, 64)  # of the hosts' Mask R-CNN
DEFAULT_SCALE = 8.0  # theirs


@dataclass(frozen=True)
class AnchorSuggestion:
    """Anchors for a feature pyramid: sides are ``scale * stride`` px, one octave apart.

    Attributes:
        scale: for ``anchor_generator.scales=[scale]``. strides: of the pyramid's levels, px. sides: anchor sides, px.
        ratios: height / width. covered: share of the objects with an anchor of IoU 0.5, over all places on its grid.
    """

    scale: float
    strides: tuple[int, ...]
    sides: tuple[float, ...]
    ratios: tuple[float, ...]
    covered: float


def quantile_edges(sides: np.ndarray, count: int) -> tuple[float, ...]:
    """Inner edges of ``count`` bins with equally many objects: side in px, rounded to what stays readable.

    Args:
        sides: (n,) square roots of the areas, px. count: bins wanted; edges that coincide are merged.
    """
    if not len(sides):
        return ()
    edges = np.quantile(sides, np.arange(1, count) / count)
    return tuple(sorted({readable(float(edge)) for edge in edges if edge > 0}))


def bins_option(edges: Sequence[float]) -> str:
    """``--bins`` for bins between the edges (side in px): ``q1=0:12,q2=12:31,q3=31:``."""
    bounds = ["0", *(f"{edge:g}" for edge in edges), "inf"]
    return ",".join(f"q{i + 1}={low}:{high}" for i, (low, high) in enumerate(pairwise(bounds)))


def suggest_anchors(
    sides: np.ndarray, aspects: np.ndarray, strides: tuple[int, ...] = FPN_STRIDES
) -> AnchorSuggestion | None:
    """The scale (a power of sqrt 2) whose anchors cover most objects, wherever these lie, and three ratios.

    Args:
        sides: (n,) box sides sqrt(w h), px, > 0. aspects: (n,) height / width. strides: of the levels, px.
    Returns:
        None without objects. Of 1 to 64, and of scales that cover equally many the one nearest 8, the hosts' default.
    """
    if not len(sides):
        return None
    logs = np.quantile(np.log2(np.clip(aspects, 1 / 64, 64)), [1 / 6, 1 / 2, 5 / 6])
    ratios = tuple(sorted({readable(float(ratio)) for ratio in 2**logs}))
    boxes = np.stack([sides / np.sqrt(aspects), sides * np.sqrt(aspects)], 1)
    anchors = [(DEFAULT_SCALE * step / ratio**0.5, DEFAULT_SCALE * step * ratio**0.5, step, step)
               for step in strides for ratio in ratios]  # fmt: skip
    multiple, left_out = best_scale(boxes, np.array(anchors))
    best = DEFAULT_SCALE * multiple
    sides_px = tuple(readable(best * stride) for stride in strides)
    return AnchorSuggestion(readable(best), strides, sides_px, ratios, 1 - left_out)


def readable(value: float) -> float:
    """Three significant digits; whole numbers from 100 up."""
    if value <= 0 or not math.isfinite(value):
        return value
    return float(round(value)) if value >= 100 else float(f"{value:.3g}")
