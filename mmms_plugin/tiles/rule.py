"""The rule of `tiles.merging`; options of commands name its values, so this imports nothing."""

from __future__ import annotations

from dataclasses import dataclass

NMS, NMM, GREEDY = "nms", "nmm", "greedy-nmm"
METHODS, METRICS = (NMS, NMM, GREEDY), ("iou", "ios")


@dataclass(frozen=True)
class Rule:
    """When two boxes of a class are one object, and what becomes of them.

    Attributes:
        method: 'nms' keeps the box of the best score; 'greedy-nmm' joins to it those that match it, 'nmm' also those
            that match these. A match is checked again with the box that has grown so far.
        metric: 'iou', intersection over union, or 'ios', over the smaller box.
        threshold: overlap from which boxes match.
    """

    method: str = NMS
    metric: str = "ios"
    threshold: float = 0.5
