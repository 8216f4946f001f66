"""How well anchors fit objects, wherever these lie, and which to start from.

Anchors are ``[k, 4]``: width and height, and the distances to the next of the same kind across and down, in px.
An anchor of an object's size is of no use where the next one is half an object away: on 2,422 nuclei of some 20 px,
anchors of 16 px on a grid of 16 px, which fit in size, gave a box AP of 0.215, those of 16 px on a grid of 4 px 0.369.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.size_ap.results import readable

FITTING = 0.5  # IoU with the best anchor from which an object counts as covered
SCALES = 2.0 ** np.arange(-3, 3.01, 0.5)  # multiples of the anchors that are tried
PLACES = 32  # where an object may lie on the grid of anchors
MOST = 2000  # objects that are laid on the grid; of more, some of every size
FPN_STRIDES = (4, 8, 16, 32, 64)  # of the hosts' Mask R-CNN
DEFAULT_SCALE = 8.0  # theirs


def off_anchors(boxes: NDArray[np.float64], anchors: NDArray[np.float64]) -> float:
    """Share of boxes ``[n, 2]``, width and height, without an anchor of IoU 0.5, over all places where they may lie."""
    order = np.argsort(boxes.prod(1), kind="stable")
    chosen = boxes[order[np.linspace(0, len(boxes) - 1, min(MOST, len(boxes))).round().astype(int)]]
    return float((best_ious(chosen, anchors) < FITTING).mean())


def best_ious(boxes: NDArray[np.float64], anchors: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[n, 32]``: the largest IoU of each box ``[n, 2]`` with an anchor, at evenly spread places of the grid."""
    places = _places(anchors[:, 2:].max(0))
    best = np.zeros((len(boxes), len(places)))
    for width, height, *steps in anchors:
        away = np.abs((places + np.divide(steps, 2)) % steps - np.divide(steps, 2))  # from the nearest anchor's middle
        both = _overlap(boxes[:, 0], width, away[:, 0]) * _overlap(boxes[:, 1], height, away[:, 1])
        best = np.maximum(best, both / np.maximum(boxes.prod(1)[:, None] + width * height - both, 1e-12))
    return best


def _places(largest: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[32, 2]`` middles of an object in one cell of the coarsest grid, evenly spread there and in all finer ones."""
    golden = np.array([0.7548776662466927, 0.5698402909980532])  # x^3 = x + 1: the golden ratio of the plane
    return (np.arange(PLACES)[:, None] * golden % 1) * largest


def _overlap(side: NDArray[np.float64], other: float, away: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[n, 32]`` px that two intervals share whose middles are ``away`` from each other."""
    shared = (side[:, None] + other) / 2 - away
    return np.clip(np.minimum(shared, np.minimum(side, other)[:, None]), 0, None)


def best_scale(boxes: NDArray[np.float64], anchors: NDArray[np.float64]) -> tuple[float, float]:
    """The multiple of the anchors that leaves fewest objects off them, and that share; of equals the nearest to 1."""
    trials = [(off_anchors(boxes, anchors * [scale, scale, 1, 1]), float(scale)) for scale in SCALES]
    share, scale = min(trials, key=lambda trial: (round(trial[0], 6), abs(np.log2(trial[1]))))
    return scale, share


@dataclass(frozen=True)
class AnchorSuggestion:
    """Anchors for a feature pyramid: sides are ``scale * stride`` px, one octave apart.

    Attributes:
        scale: for ``anchor_generator.scales=[scale]``.
        strides: of the pyramid's levels, px.
        sides: of the anchors, px.
        ratios: height / width.
        covered: share of the objects with an anchor of IoU 0.5, over all places on its grid.
    """

    scale: float
    strides: tuple[int, ...]
    sides: tuple[float, ...]
    ratios: tuple[float, ...]
    covered: float


def suggest_anchors(
    sides: np.ndarray, aspects: np.ndarray, strides: tuple[int, ...] = FPN_STRIDES
) -> AnchorSuggestion | None:
    """The scale (a power of sqrt 2) whose anchors cover most objects, wherever these lie, and three ratios.

    Parametrised as in RetinaNet (Lin et al. 2017, section 4: a base side per pyramid level, octaves between) and in the
    hosts' anchor generators (``scales``, ``ratios`` = height / width, ``strides``).

    Args:
        sides: (n,) box sides sqrt(w h), px, > 0.
        aspects: (n,) height / width.
        strides: of the levels, px.

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
