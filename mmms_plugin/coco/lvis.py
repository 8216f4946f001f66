"""LVIS's federated rules: an image is annotated for some classes only (Gupta et al., LVIS, CVPR 2019, section 2).

As lvis-api 0.5.3 applies them (``LVISResults``, ``LVISEval``):
- of an image the best 300 detections count, over all classes together;
- a detection of a class that the image has no object of, and that is not in its ``neg_category_ids``, is left out;
- a detection that matches nothing, of a class in the image's ``not_exhaustive_category_ids``, is not a false positive;
- AP is also given for rare, common and frequent classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco.mending import as_id
from mmms_plugin.coco.objects import Federated, GroundTruth, positions
from mmms_plugin.coco.records import Category, Columns, Image
from mmms_plugin.errors import UserError, shown

DETECTIONS = 300  # an image, over all classes
FREQUENCIES = {"r": "APr", "c": "APc", "f": "APf"}
LISTS = ("neg_category_ids", "not_exhaustive_category_ids")
Ints = NDArray[np.int64]


def is_federated(images: Sequence[Image]) -> bool:
    """Whether a file's images have LVIS's two lists."""
    return bool(images) and all(getattr(images[0], name) is not None for name in LISTS)


def read_federated(images: Sequence[Image], categories: Sequence[Category], where: str) -> Federated:
    """The lists of all images and the classes' frequencies.

    Raises:
        UserError: an image without the lists, or a category without its frequency.
    """
    pairs: list[Ints] = []
    for name in LISTS:
        rows: list[tuple[int, int]] = []
        for i, image in enumerate(images):
            listed = getattr(image, name)
            if not isinstance(listed, list) or not all(type(value) is int and abs(value) < 2**63 for value in listed):
                raise UserError(f"{where}: images[{i}].{name}: must be a list of category ids, as in LVIS's files")
            rows += [(as_id(image.id) or 0, value) for value in listed]
        pairs.append(np.array(rows, np.int64).reshape(-1, 2))
    for i, category in enumerate(categories):
        if category.frequency not in tuple(FREQUENCIES):
            allowed = ", ".join(FREQUENCIES)
            raise UserError(f"{where}: categories[{i}].frequency: {shown(category.frequency)}; allowed are {allowed}")
    return Federated(pairs[0], pairs[1], tuple(str(category.frequency) for category in categories))


def judged(columns: Columns, truth: GroundTruth, rules: Federated) -> tuple[Columns, NDArray[np.bool_]]:
    """The detections that count, in the file's order, and which of them are not false positives if unmatched.

    Args:
        columns: of a result file, whose ids are all known.
        truth: the data set.
        rules: its lists.
    """
    n = len(columns)
    order = np.lexsort((np.arange(n), -columns.score, columns.image_id))
    image = columns.image_id[order]
    starts = np.flatnonzero(np.append(True, image[1:] != image[:-1])) if n else np.zeros(0, np.int64)
    rank = np.arange(n) - np.repeat(starts, np.diff(starts, append=n))
    kept = np.sort(order[rank < DETECTIONS])

    def pairs(images: Ints, categories: Ints) -> Ints:
        category = positions(categories, truth.category_ids)
        known = category >= 0  # the lists of a subset of LVIS may name classes that it lacks
        return positions(images[known], truth.image_ids) * len(truth.category_ids) + category[known]

    detected = pairs(columns.image_id[kept], columns.category_id[kept])
    asked = np.append(pairs(truth.image_id, truth.category_id), pairs(*rules.negative.T))
    exists = np.isin(detected, asked)
    kept, detected = kept[exists], detected[exists]
    excused = np.isin(detected, pairs(*rules.not_exhaustive.T))
    return columns.results_at(kept), excused
