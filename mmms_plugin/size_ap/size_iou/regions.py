"""The connected regions of a label map and how well a prediction covers each.

Chan et al., SegmentMeIfYouCan: A Benchmark for Anomaly Segmentation, NeurIPS 2021, section 4.2 (after Rottmann et al.,
Prediction Error Meta Classification in Semantic Segmentation, IJCNN 2020): of a ground-truth region, the predicted
regions of the same class that overlap it are compared with it; pixels of other ground-truth regions of the class are
left out of the union, so that one prediction across two objects does not count against either.

Deviations:
1. Every class has its regions, not one class of anomalies. Regions are 8-connected.
2. Pixels without a label (void) belong to nothing, but they do connect the predicted region on both sides: a prediction
   that grows over the void border of an object is still one region and counts against the object.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Regions:
    """Ground-truth regions of any number of images, and predicted regions without any ground truth.

    Attributes:
        images: how many images were looked at.
        truth: ``(n, 5)`` image, class, and in px: area, area predicted as the class, and area of the overlapping
            predicted regions outside every ground-truth region of the class.
        stray: ``(m, 3)`` image, class and area in px of the predicted regions that overlap no region of their class.
    """

    images: int
    truth: Ints
    stray: Ints


def image_regions(truth: NDArray, predicted: NDArray, classes: int, ignore_index: int = 255) -> tuple[Ints, Ints]:
    """The regions of one image, as the columns of `Regions` without the first.

    Args:
        truth: ``(height, width)`` labels, 0 to ``classes`` - 1; all other values are void, as ``ignore_index`` is.
        predicted: ``(height, width)`` labels. classes: how many there are. ignore_index: label of void pixels.

    Raises:
        ValueError: label maps of two different sizes.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"predicted {predicted.shape}: must have the ground truth's shape {truth.shape}")
    known = (truth >= 0) & (truth < classes) & (truth != ignore_index)
    guessed = known & (predicted >= 0) & (predicted < classes)
    present = [np.bincount(labels[at], minlength=classes) > 0 for labels, at in ((truth, known), (predicted, guessed))]
    regions, stray = [np.empty((0, 4), np.int64)], [np.empty((0, 2), np.int64)]
    for category in np.flatnonzero(present[0] | present[1]).tolist():
        rows, areas = _class_regions(known & (truth == category), predicted == category, known)
        regions.append(np.column_stack([np.full(len(rows), category), rows]))
        stray.append(np.column_stack([np.full(len(areas), category), areas]))
    return np.concatenate(regions), np.concatenate(stray)


def join_images(parts: Iterable[tuple[Ints, Ints]]) -> Regions:
    """The regions of several images as one table; images are numbered in their order."""
    parts = list(parts)
    truth, stray = (
        np.concatenate([np.empty((0, width), np.int64)] + [_numbered(i, part[k]) for i, part in enumerate(parts)])
        for k, width in ((0, 5), (1, 3))
    )
    return Regions(len(parts), truth, stray)


def _numbered(image: int, rows: Ints) -> Ints:
    return np.column_stack([np.full(len(rows), image), rows])


def _class_regions(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], known: NDArray[np.bool_]
) -> tuple[Ints, Ints]:
    """``(n, 3)`` area, hit, outside of every true region, and ``(m,)`` areas of the predicted regions without one."""
    (count, of_truth), (predictions, of_prediction) = _label(truth), _label(predicted)
    pair, pixels = _counts(np.where(known, of_truth.astype(np.int64) * (predictions + 1) + of_prediction, 0).ravel())
    region, guess = np.divmod(pair, predictions + 1)
    both = (region > 0) & (guess > 0)

    def total(of: Ints, chosen: NDArray[np.bool_], values: Ints, groups: int) -> Ints:
        return np.bincount(of[chosen], values[chosen], groups + 1).astype(np.int64)

    alone = total(guess, region == 0, pixels, predictions)  # px of each predicted region outside every true one
    area, hit = total(region, region > 0, pixels, count), total(region, both, pixels, count)
    outside = total(region, both, alone[guess], count)
    stray = alone[1:] * (total(guess, both, pixels, predictions)[1:] == 0)
    return np.column_stack([area, hit, outside])[1:], stray[stray > 0]


def _counts(codes: Ints) -> tuple[Ints, Ints]:
    """The different numbers above 0 among many, and how often each occurs; quick where equal ones are neighbours."""
    starts = np.flatnonzero(np.append(True, codes[1:] != codes[:-1]))
    lengths = np.diff(starts, append=len(codes))
    values, which = np.unique(codes[starts], return_inverse=True)
    counts = np.bincount(which, lengths).astype(np.int64)
    return values[values > 0], counts[values > 0]


def _label(mask: NDArray[np.bool_]) -> tuple[int, NDArray[np.int32]]:
    """How many 8-connected regions there are, and ``(height, width)`` numbers of each pixel's, 0 for none."""
    import cv2

    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return count - 1, np.asarray(labels, np.int32)
