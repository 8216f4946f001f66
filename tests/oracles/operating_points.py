"""The best score threshold of a list of detections, by trying every score, one detection at a time."""

from __future__ import annotations

from collections.abc import Sequence


def best_threshold(
    detections: Sequence[tuple[float, bool]], objects: int, goal: str, wanted: float = 0.0
) -> tuple[float, float, float, float, int, int] | None:
    """Score, precision, recall, F1, number kept and number matching; None if no score reaches the goal.

    Args:
        detections: score of each, and whether it matches an object.
        objects: how many there are.
        goal: 'f1', 'precision' or 'recall'.
        wanted: the precision or recall to reach.
    """
    best, best_worth = None, 0.0
    for score in sorted({score for score, _ in detections}, reverse=True):
        kept = [hit for other, hit in detections if other >= score]
        hits = sum(kept)
        if not objects or not hits:
            continue
        precision, recall = hits / len(kept), hits / objects
        f1 = 2 * hits / (len(kept) + objects)
        if goal == "f1":
            worth = f1
        elif goal == "precision":
            worth = recall if precision >= wanted else 0.0
        else:
            worth = 1.0 if recall >= wanted else 0.0
        if worth > best_worth:
            best, best_worth = (score, precision, recall, f1, len(kept), hits), worth
    return best
