"""Slow references for the merging of tiles: every pair, in Python's floats."""

from __future__ import annotations

from collections.abc import Sequence

Box = Sequence[float]


def overlap(a: Box, b: Box, metric: str) -> float:
    """IoU or IoS of two boxes."""
    inter = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    one, other = ((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    whole = one + other - inter if metric == "iou" else min(one, other)
    return inter / whole if whole > 0 else 0.0


def merge(
    boxes: Sequence[Box], scores: Sequence[float], labels: Sequence[int], method: str, metric: str, threshold: float
) -> list[tuple[float, int, Box]]:
    """(score, class, box) of the objects, the best first, for distinct scores."""
    found = []
    for label in sorted(set(labels)):
        queue = sorted((i for i in range(len(boxes)) if labels[i] == label), key=lambda i: -scores[i])
        owner: dict[int, int] = {}
        lists: dict[int, list[int]] = {}
        for i in queue:
            if i not in owner:
                owner[i], lists[i] = i, []
            elif method != "nmm":
                continue
            near = [j for j in queue if j not in owner and overlap(boxes[i], boxes[j], metric) >= threshold]
            for j in sorted(near) if method == "nmm" else near:
                owner[j] = owner[i]
                lists[owner[i]].append(j)
        for i, others in lists.items():
            box = list(boxes[i])
            for j in others if method != "nms" else ():
                if overlap(box, boxes[j], metric) >= threshold:
                    box = [min(box[0], boxes[j][0]), min(box[1], boxes[j][1]),
                           max(box[2], boxes[j][2]), max(box[3], boxes[j][3])]  # fmt: skip
            found.append((scores[i], label, box))
    return sorted(found, reverse=True)
