"""Signs of a mistake in boxes, scores or labels that are well-formed, as lines for the user to judge.

Boxes given as xyxy instead of xywh show in two shares that no correct file has together: nearly every box would also
be a valid xyxy box inside its picture (third number above the first, fourth above the second), and many leave the
picture when read as x, y, width, height. A correct xywh box that leaves the picture by more than the tolerance is
rare, and one of which width > x and height > y lies in the upper left or fills the picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco.columns import shown

ENOUGH, JUDGED = 5, 10_000  # boxes to judge from: at least, and about so many of very many
LEAVING, ORDERED = 0.15, 0.97  # shares that speak for xyxy


def box_notes(boxes: NDArray, pixels: NDArray, what: str) -> tuple[str, ...]:
    """Notes on degenerate, normalised and xyxy boxes.

    Args:
        boxes: (n, 4) x y width height, px. pixels: (n, 2) width and height of their pictures, 0 where unknown.
        what: "objects" or "predictions".
    """
    if not len(boxes):
        return ()
    notes = []
    flat = int(((boxes[:, 2] == 0) | (boxes[:, 3] == 0)).sum())
    if flat:
        notes.append(f"{flat} of {len(boxes)} {what} have a box of zero width or height")
    if len(boxes) >= ENOUGH and boxes.max() <= 1.5 and boxes[:, 2:].max() > 0:
        notes.append(f"all boxes of the {what} lie within 0..1.5: are they normalised? Pixels are expected")
        return tuple(notes)
    few = slice(None, None, max(1, len(boxes) // JUDGED))
    leaving, ordered = xyxy_shares(boxes[few], pixels[few])
    if len(boxes) >= ENOUGH and leaving >= LEAVING and ordered >= ORDERED:
        notes.append(
            f"the boxes of the {what} look like [x1, y1, x2, y2]: read as [x, y, width, height], as COCO's are, "
            f"{leaving:.0%} leave their image; as [x1, y1, x2, y2] {ordered:.0%} are valid boxes inside it"
        )
    return tuple(notes)


def xyxy_shares(boxes: NDArray, pixels: NDArray) -> tuple[float, float]:
    """Share of boxes that leave their picture read as xywh, and share that are valid inside it read as xyxy."""
    extent = boxes[:, :2].max(0) + 1.0  # where sizes are unknown: no picture is smaller than its boxes' corners
    limits = np.where(pixels > 0, pixels, np.maximum(extent, boxes[:, 2:].max(0)))
    slack = 2 + 0.02 * limits
    leaving = (boxes[:, :2] + boxes[:, 2:] > limits + slack).any(1)
    ordered = (boxes[:, 2:] >= boxes[:, :2]).all(1) & (boxes[:, 2:] <= limits + slack).all(1)
    return float(leaving.mean()), float(ordered.mean())


def score_notes(scores: NDArray) -> tuple[str, ...]:
    """A note on scores outside 0..1 (logits, percentages): AP needs only their order, thresholds need their values."""
    outside = (scores < 0) | (scores > 1)
    if not outside.any():
        return ()
    spread = f"{scores.min():g} to {scores.max():g}"
    return (f"{outside.sum()} of {len(scores)} scores are outside 0..1 ({spread}); AP uses only their order",)


def label_hint(ids: NDArray, known: NDArray) -> str:
    """What unknown category ids look like: 0-based labels, or class numbers 1..n of a file with gaps in its ids."""
    used, count = np.unique(ids), len(known)
    listed = f"write the annotation file's own ids ({shown(np.sort(known))})"
    if used[0] == 0 and used[-1] < count:
        return f"; they look like 0-based labels 0..{count - 1}: {listed}"
    if used[0] >= 1 and used[-1] <= count and known.max() > count:
        return f"; they look like class numbers 1..{count}: {listed}"
    return f"; it has {count}: {shown(np.sort(known))}"
