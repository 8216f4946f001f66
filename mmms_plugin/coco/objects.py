"""Ground truth and detections in memory, as the readers return them and the evaluation takes them.

Everything is kept in the order of the file: pycocotools breaks ties of score and of IoU by that order. ``ignore`` of an
annotation is not kept, because pycocotools overwrites it with ``iscrowd``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco.run_lengths import RLE, Masks
from mmms_plugin.errors import UserError

AREAS = {
    "annotation": "ground truth by {source}, detections by {shape}",
    "box": "ground truth and detections by box width x height",
    "mask": "ground truth and detections by the pixels of the mask",
}
AREA_FIELD = "its annotation's 'area' field"
SHAPES = {  # in place of that field, in formats without one
    "yolo": "box width x height, or the pixels of the polygon where there is one",
    "voc": "box width x height",
    "labelme": "box width x height, or the pixels of the mask where there is one",
}
AREA_NAMES = {"annotation": "annotated area", "box": "box area", "mask": "mask area"}  # for axes


def box_areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Width times height (px²) of ``(n, 4)`` boxes xywh."""
    return boxes[:, 2] * boxes[:, 3]


def positions(ids: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of each id in ``known``, whose ids are unique; -1 for ids that it lacks."""
    if not len(known) or not len(ids):
        return np.full(len(ids), -1)
    low, high = int(known.min()), int(known.max())
    if high - low < 10**6 + 4 * len(ids):  # a table is ten times as fast as a search
        table = np.full(high - low + 2, -1)
        table[known - low] = np.arange(len(known))
        return table[np.where((ids >= low) & (ids <= high), ids - low, -1)]
    order = np.argsort(known, kind="stable")
    at = order[np.minimum(np.searchsorted(known, ids, sorter=order), len(known) - 1)]
    return np.where(known[at] == ids, at, -1)


@dataclass(frozen=True)
class Federated:
    """What an LVIS file contains besides the objects; `mmms_plugin.coco.lvis` has the rules.

    Attributes:
        negative: ``(n, 2)`` image and category ids: no such object is in the image.
        not_exhaustive: ``(n, 2)`` image and category ids: not all such objects are annotated.
        frequency: 'r', 'c' or 'f' of every category, in the file's order.
    """

    negative: NDArray[np.int64]
    not_exhaustive: NDArray[np.int64]
    frequency: tuple[str, ...]


@dataclass(frozen=True)
class GroundTruth:
    """A data set's images, categories and ``n`` annotated objects, in file order.

    Attributes:
        image_ids: ``(images,)`` int64, every image of the data set, also those without objects.
        image_sizes: ``(images, 2)`` int64 width and height in px, 0 if unknown.
        category_ids: ``(categories,)`` int64.
        category_names: as many names.
        ids: ``(n,)`` int64 annotation ids.
        image_id: ``(n,)`` int64, the image each object is in.
        category_id: ``(n,)`` int64.
        boxes: ``(n, 4)`` float64 xywh in px.
        annotated_area: ``(n,)`` float64, the ``area`` field in px² (COCO: the mask's area), NaN where absent.
        iscrowd: ``(n,)`` bool.
        rles: one sound mask per object, or None if the masks were not read.
        file_names: of the images, as in the file; empty if any lacks one.
        format: one of `mmms_plugin.coco.formats.FORMATS`, which they were read from.
        federated: what LVIS's rules need, or None.
        file_ids: the file's ids, if they were replaced because some are below 1 or used twice; else None, and also if
            pycocotools could not read them.
    """

    image_ids: NDArray[np.int64]
    image_sizes: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    category_names: tuple[str, ...]
    ids: NDArray[np.int64]
    image_id: NDArray[np.int64]
    category_id: NDArray[np.int64]
    boxes: NDArray[np.float64]
    annotated_area: NDArray[np.float64]
    iscrowd: NDArray[np.bool_]
    rles: Sequence[RLE] | None = None
    file_names: tuple[str, ...] = ()
    format: str = "coco"
    federated: Federated | None = None
    file_ids: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.image_id)

    def by_file_ids(self) -> GroundTruth:
        """The objects that pycocotools finds by the file's ids: of those that share an id, the last, several times."""
        assert self.file_ids is not None
        _, first, place = np.unique(self.file_ids[::-1], return_index=True, return_inverse=True)
        last = len(self) - 1 - first[place][::-1]
        columns = ("image_id", "category_id", "boxes", "annotated_area", "iscrowd")
        rles = None if self.rles is None else Masks.of(self.rles).at(last)
        return replace(self, ids=self.file_ids, rles=rles, **{name: getattr(self, name)[last] for name in columns})

    def areas(self, area: str) -> NDArray[np.float64]:
        """``(n,)`` areas in px² that place the objects in bins; ``area`` is a key of `AREAS`.

        Raises:
            UserError: an annotation has no ``area`` field, or masks were asked for and not read.
        """
        if area == "box":
            return box_areas(self.boxes)
        if area == "mask":
            return _masks(self.rles, "annotations").areas
        if np.isnan(self.annotated_area).any():
            missing = int(np.isnan(self.annotated_area).sum())
            raise UserError(f"{missing} of {len(self)} annotations have no 'area' field: use --area box or --area mask")
        return self.annotated_area


@dataclass(frozen=True)
class Detections:
    """``n`` detections of one run, in file order.

    Attributes:
        name: the run's name in tables and figures.
        image_id: ``(n,)`` int64.
        category_id: ``(n,)`` int64.
        boxes: ``(n, 4)`` float64 xywh in px; around the masks if the file has only those.
        scores: ``(n,)`` float64.
        rles: one sound mask per detection, or None if the file has none or they were not read.
        excused: ``(n,)`` bool, those that are not false positives if unmatched (LVIS); None for none.
    """

    name: str
    image_id: NDArray[np.int64]
    category_id: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    rles: Sequence[RLE] | None = None
    excused: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.image_id)

    def areas(self, area: str, iou_type: str) -> NDArray[np.float64]:
        """``(n,)`` areas in px²; by 'annotation' that of the box ('bbox') or of the mask ('segm').

        Raises:
            UserError: the masks are needed and were not read.
        """
        if area == "box" or (area == "annotation" and iou_type == "bbox"):
            return box_areas(self.boxes)
        return _masks(self.rles, f"predictions {self.name!r}").areas


@dataclass(frozen=True)
class Method:
    """A method's name and its runs: one, or one per seed, trained alike otherwise."""

    name: str
    runs: tuple[Detections, ...]


def describe_area(area: str, iou_type: str, file_format: str = "coco") -> str:
    """The sentence in every output about where areas come from; ``file_format`` is the ground truth's."""
    shape = "box width x height (pycocotools' rule)"
    if iou_type == "segm":  # pycocotools takes the box where a result has both
        shape = "the pixels of their mask (pycocotools' rule for results without bbox)"
    return f"area '{area}': {AREAS[area].format(source=SHAPES.get(file_format, AREA_FIELD), shape=shape)}"


def _masks(rles: Sequence[RLE] | None, what: str) -> Masks:
    if rles is None:
        raise UserError(f"{what} hold no masks: use --iou-type bbox with --area annotation or box")
    return Masks.of(rles)
