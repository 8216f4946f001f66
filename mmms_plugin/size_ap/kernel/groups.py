"""Images grouped by the object sizes they contain, and what a second run gains in each group.

ELASTIC: Improving CNNs With Dynamic Scaling Policies (Wang et al., CVPR 2019), section 4.2, table 4: the images that
hold only small objects, only medium ones, small and large but not medium ones, and so on; relative improvement in each.

Multi-label F1 as in table 3: a class is predicted in an image if its best detection there scores at least a threshold
(the paper: probability above 0.5). 'Per class' is the mean of the F1 of every class, 'overall' the F1 of pooled counts.

Deviations:
1. The paper's table has one measure; here AP of detection stands beside both F1.
2. Sizes are COCO's 32 and 96 px, half-open, whatever the bins of the evaluation. Crowds have no size and do not affect
   the group, but the class of a crowd counts as present in the image.
3. A class with neither label nor prediction in a group has no F1 there and is left out of the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.size_ap.kernel.accumulate import Accumulator, mean_defined
from mmms_plugin.size_ap.kernel.matching import Candidates
from mmms_plugin.size_ap.results import GroupRow

SIZES = ("small", "medium", "large")
MEASURES = ("ap", "f1_per_class", "f1_overall")
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def size_groups(candidates: Candidates) -> list[tuple[tuple[str, ...], Bools]]:
    """Sizes and ``(images,)`` membership of the seven groups, then of all images as the last."""
    truths = candidates.truths
    size = np.digitize(truths.area, [32.0**2, 96.0**2])
    holds = np.zeros((candidates.images, 3), np.bool_)
    holds[truths.image[~truths.crowd], size[~truths.crowd]] = True
    choices = sorted(product((False, True), repeat=3), key=lambda c: (sum(c), tuple(not x for x in c)))[1:]
    groups = [
        (tuple(s for s, c in zip(SIZES, choice, strict=True) if c), (holds == choice).all(1)) for choice in choices
    ]
    return [*groups, (("all images",), np.ones(candidates.images, np.bool_))]


def labels(candidates: Candidates) -> Bools:
    """``(images, classes)``: which classes are annotated in each image."""
    table = np.zeros((candidates.images, candidates.categories), np.bool_)
    table[candidates.truths.image, candidates.truths.category] = True
    return table


def predicted_labels(candidates: Candidates, score_threshold: float) -> Bools:
    """``(images, classes)``: which classes have a detection of at least ``score_threshold`` in each image."""
    detections = candidates.detections
    sure = detections.scores >= score_threshold
    table = np.zeros((candidates.images, candidates.categories), np.bool_)
    table[detections.image[sure], detections.category[sure]] = True
    return table


def multilabel_f1(truth: Bools, predicted: Bools) -> tuple[float, float]:
    """F1 per class and overall of ``(images, classes)`` labels, NaN where nothing is labelled or predicted."""
    hits = (truth & predicted).sum(0).astype(float)
    total = truth.sum(0) + predicted.sum(0)
    per_class = np.where(total > 0, 2 * hits / np.maximum(total, 1), np.nan)
    overall = 2 * hits.sum() / total.sum() if total.sum() else np.nan
    return float(mean_defined(per_class, 0)), float(overall)


def group_rows(
    candidates: Sequence[Sequence[Candidates]],
    accumulators: Sequence[Sequence[Accumulator]],
    score_threshold: float = 0.5,
) -> tuple[GroupRow, ...]:
    """Both methods' AP and F1, means over their runs, and the relative improvement in every group of images.

    Args:
        candidates, accumulators: of the runs of the two methods, on the same images; the first bin is 'all'.
        score_threshold: lowest score at which a detection predicts its class.
    """
    truth = labels(candidates[0][0])
    predicted = [[predicted_labels(c, score_threshold) for c in runs] for runs in candidates]
    rows = []
    for sizes, member in size_groups(candidates[0][0]):
        figures = [
            _mean([_figures(run, member, truth, guess) for run, guess in zip(runs, guesses, strict=True)])
            for runs, guesses in zip(accumulators, predicted, strict=True)
        ]
        relative = {name: _relative(figures[0][name], figures[1][name]) for name in MEASURES}
        rows.append(GroupRow(sizes, int(member.sum()), figures[0], figures[1], relative))
    return tuple(rows)


def _figures(accumulator: Accumulator, member: Bools, truth: Bools, predicted: Bools) -> tuple[float, float, float]:
    ap = mean_defined(accumulator.scores(member.astype(np.int32)).ap[0].mean(0), 0)
    return float(ap), *multilabel_f1(truth[member], predicted[member])


def _mean(figures: Sequence[tuple[float, float, float]]) -> dict[str, float | None]:
    means = np.mean(figures, 0).tolist()
    return {name: None if np.isnan(value) else value for name, value in zip(MEASURES, means, strict=True)}


def _relative(first: float | None, second: float | None) -> float | None:
    return (second - first) / first if first and second is not None else None
