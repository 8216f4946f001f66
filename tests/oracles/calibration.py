"""Expected and maximum calibration error of a list of detections, one detection at a time."""

from __future__ import annotations

from collections.abc import Sequence


def calibration_errors(detections: Sequence[tuple[float, bool]], intervals: int = 10) -> tuple[float, float]:
    """ECE and MCE of (score, right), in equal intervals of score whose upper limit belongs to the next one."""
    expected = largest = 0.0
    for k in range(intervals):
        low, high = k / intervals, (k + 1) / intervals
        inside = [d for d in detections if low <= d[0] and (d[0] < high or k == intervals - 1)]
        if inside:
            gap = abs(sum(score for score, _ in inside) - sum(right for _, right in inside)) / len(inside)
            expected += gap * len(inside) / len(detections)
            largest = max(largest, gap)
    return expected, largest
