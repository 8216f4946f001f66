"""LVIS's federated rules: an image is annotated for some classes only (Gupta et al., LVIS, CVPR 2019, section 2).

As lvis-api 0.5.3 applies them (``LVISResults``, ``LVISEval``):
- of an image the best 300 detections count, over all classes together;
- a detection of a class that the image has no object of, and that is not in its ``neg_category_ids``, does not exist;
- a detection that matches nothing, of a class in the image's ``not_exhaustive_category_ids``, is no false positive;
- AP is also given for rare, common and frequent classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco.columns import Columns
from mmms_plugin.coco.objects import GroundTruth, positions
from mmms_plugin.errors import UserError

DETECTIONS = 300  # an image, over all classes
FREQUENCIES = {"r": "APr", "c": "APc", "f": "APf"}
LISTS = ("neg_category_ids", "not_exhaustive_category_ids")
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Federated:
    """What an LVIS file says beside the objects.

    Attributes:
        negative: ``(n, 2)`` image and category ids: surely no such object. not_exhaustive: the same: not all annotated.
        frequency: 'r', 'c' or 'f' of every category, in the file's order.
    """

    negative: Ints
    not_exhaustive: Ints
    frequency: tuple[str, ...]


def is_federated(images: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a file's images have LVIS's two lists."""
    return bool(images) and all(images[0].get(key) is not None for key in LISTS)


def read_federated(
    images: Sequence[Mapping[str, Any]], categories: Sequence[Mapping[str, Any]], where: str
) -> Federated:
    """The lists of all images and the classes' frequencies.

    Raises:
        UserError: an image without the lists, or a category without its frequency.
    """
    pairs: list[Ints] = []
    for key in LISTS:
        rows: list[tuple[int, int]] = []
        for i, image in enumerate(images):
            listed = image.get(key)
            if not isinstance(listed, list) or not all(type(one) is int and abs(one) < 2**63 for one in listed):
                raise UserError(f"{where}: image {i}: {key} must be a list of category ids, as in LVIS's files")
            rows += [(image["id"], one) for one in listed]
        pairs.append(np.array(rows, np.int64).reshape(-1, 2))
    frequency = tuple(category.get("frequency") for category in categories)
    if wrong := [i for i, one in enumerate(frequency) if one not in FREQUENCIES]:
        raise UserError(f"{where}: category {wrong[0]}: frequency must be one of {', '.join(FREQUENCIES)}")
    return Federated(pairs[0], pairs[1], tuple(str(one) for one in frequency))


def judged(columns: Columns, truth: GroundTruth, rules: Federated) -> tuple[Columns, NDArray[np.bool_]]:
    """The detections that count, in the file's order, and which of them are no false positives if they match nothing.

    Args:
        columns: of a result file, whose ids are all known. truth: the data set. rules: its rules.
    """
    n = len(columns)
    order = np.lexsort((np.arange(n), -columns.score, columns.image_id))
    image = columns.image_id[order]
    starts = np.flatnonzero(np.append(True, image[1:] != image[:-1])) if n else np.zeros(0, np.int64)
    rank = np.arange(n) - np.repeat(starts, np.diff(starts, append=n))
    kept = np.sort(order[rank < DETECTIONS])

    def pairs(images: Ints, categories: Ints) -> Ints:
        category = positions(categories, truth.category_ids)
        known = category >= 0  # the lists of a part of LVIS may name classes that it does not have
        return positions(images[known], truth.image_ids) * len(truth.category_ids) + category[known]

    found = pairs(columns.image_id[kept], columns.category_id[kept])
    asked = np.append(pairs(truth.image_id, truth.category_id), pairs(*rules.negative.T))
    exists = np.isin(found, asked)
    kept, found = kept[exists], found[exists]
    chosen = {name: getattr(columns, name)[kept] for name in ("image_id", "category_id", "boxes", "has_box", "score")}
    masks = None if columns.segmentations is None else [columns.segmentations[i] for i in kept.tolist()]
    excused = np.isin(found, pairs(*rules.not_exhaustive.T))
    return replace(columns, **chosen, segmentations=masks), excused
