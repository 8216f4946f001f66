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
from mmms_plugin.size_ap.kernel.matching import Candidates, Objects
from mmms_plugin.size_ap.results import GroupRow, figure

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


def image_labels(candidates: Candidates, objects: Objects, chosen: Bools | slice) -> Bools:
    """``(images, classes)``: which classes the chosen objects or detections have in each image."""
    table = np.zeros((candidates.images, candidates.categories), np.bool_)
    table[objects.image[chosen], objects.category[chosen]] = True
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
    truth = image_labels(candidates[0][0], candidates[0][0].truths, slice(None))
    predicted = [
        [image_labels(run, run.detections, run.detections.scores >= score_threshold) for run in runs]
        for runs in candidates
    ]
    rows = []
    for sizes, member in size_groups(candidates[0][0]):
        methods: list[dict[str, float | None]] = []
        for runs, guesses in zip(accumulators, predicted, strict=True):
            figures = []
            for run, guess in zip(runs, guesses, strict=True):
                ap = mean_defined(run.scores(member.astype(np.int32)).ap[0].mean(0), 0)
                figures.append((float(ap), *multilabel_f1(truth[member], guess[member])))
            methods.append(dict(zip(MEASURES, map(figure, np.mean(figures, 0)), strict=True)))
        relative: dict[str, float | None] = {}
        for name in MEASURES:
            first, second = (method[name] for method in methods)
            relative[name] = (second - first) / first if first and second is not None else None
        rows.append(GroupRow(sizes, int(member.sum()), methods[0], methods[1], relative))
    return tuple(rows)
