"""Greedy non-maximum suppression and Soft-NMS, one pair of boxes at a time, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence


def iou(a: Sequence[float], b: Sequence[float], offset: int) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2) of width x2 - x1 + offset; 0 for two empty ones."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    union = sum(areas) - width * height
    return width * height / union if union else 0.0


def nms(boxes: Sequence[Sequence[float]], scores: Sequence[float], threshold: float, offset: int) -> list[int]:
    """Indices of the boxes that stay, best first; of equal scores the first one is better."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(iou(boxes[i], boxes[k], offset) <= threshold for k in kept):
            kept.append(i)
    return kept


def soft_nms(
    boxes: Sequence[Sequence[float]],
    scores: Sequence[float],
    threshold: float,
    sigma: float,
    min_score: float,
    method: str,
    offset: int,
) -> list[tuple[int, float]]:
    """(index, lowered score) of the boxes that stay, best first; boxes are dropped when below ``min_score``."""
    rest = dict(enumerate(scores))
    result: list[tuple[int, float]] = []
    while rest:
        best = max(rest, key=lambda i: rest[i])
        result.append((best, rest.pop(best)))
        for i in list(rest):
            overlap = iou(boxes[best], boxes[i], offset)
            if method == "gaussian":
                rest[i] *= math.exp(-overlap * overlap / sigma)
            elif overlap >= threshold:
                rest[i] *= 0.0 if method == "naive" else 1 - overlap
            if rest[i] < min_score:
                del rest[i]
    return result
