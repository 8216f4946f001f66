"""COCO annotation and result files to `GroundTruth` and `Detections`, with everything unusual in them said.

What cannot be evaluated is a `UserError` of one line. What can, but is probably not meant, is a note: a line for the
user's terminal and for the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.analysis.size_ap import columns
from mmms_plugin.analysis.size_ap.columns import Records, shown
from mmms_plugin.analysis.size_ap.data import RLE, Detections, GroundTruth, box_areas, mask_areas
from mmms_plugin.analysis.size_ap.json_files import load_annotations, load_predictions
from mmms_plugin.analysis.size_ap.segmentations import mask_boxes, to_rles
from mmms_plugin.analysis.size_ap.suspicions import box_notes, label_hint, score_notes
from mmms_plugin.errors import LONGEST, LONGEST_NAME, UserError, printable

Notes = tuple[str, ...]


def read_ground_truth(path: str | Path, *, masks: bool, argument: str = "--ann") -> tuple[GroundTruth, Notes]:
    """Read a COCO annotation file.

    Args:
        path: JSON with images, annotations and categories. masks: read the segmentations too.
        argument: what the user calls the file, for messages.
    Returns:
        The data, objects in the file's order, and notes. Absent ``area`` is taken from the mask, or the box where there
        is none; absent ``bbox`` from the mask; absent ``iscrowd`` is 0. Each is noted.
    Raises:
        UserError: another kind of file, an annotation of an unknown image or category, ids used twice for images or
            categories, boxes that are not four finite numbers, masks that do not fit their image.
    """
    content, where = load_annotations(path, argument), f"{argument} {path}"
    records, images, categories = content["annotations"], content["images"], content["categories"]
    if not images or not categories:
        raise UserError(f"{where}: no {'images' if not images else 'categories'}; there is nothing to evaluate")
    image_ids = _unique(columns.integers(images, "id", f"{where}: image"), "image", where)
    category_ids = _unique(columns.integers(categories, "id", f"{where}: category"), "category", where)
    sizes = np.array([[_side(image, "width"), _side(image, "height")] for image in images], np.int64)
    image_id = columns.integers(records, "image_id", f"{where}: annotation")
    category_id = columns.integers(records, "category_id", f"{where}: annotation")
    _refuse_unknown(image_id, image_ids, "image", f"{where}: annotations")
    _refuse_unknown(category_id, category_ids, "category", f"{where}: annotations")
    ids = columns.integers(records, "id", f"{where}: annotation")
    pixels = sizes[_positions(image_id, image_ids)]
    rles = to_rles(records, pixels, f"{where}: annotation") if masks else None
    boxes, box_note = _boxes_or_masks(records, pixels, rles, f"{where}: annotation")
    areas, area_note = _areas_or_masks(records, pixels, boxes, rles, f"{where}: annotation")
    truth = GroundTruth(
        image_ids=image_ids,
        image_sizes=sizes,
        category_ids=category_ids,
        category_names=tuple(printable(columns.brief(c.get("name", c["id"]), LONGEST_NAME)) for c in categories),
        ids=ids,
        image_id=image_id,
        category_id=category_id,
        boxes=boxes,
        annotated_area=areas,
        iscrowd=columns.flags(records, "iscrowd", f"{where}: annotation"),
        rles=rles,
    )
    told = (
        *box_note,
        *area_note,
        *_no_crowds(records),
        *_used_twice(ids),
        *_zero(ids),
        *box_notes(boxes, pixels, "objects"),
    )
    return truth, tuple(printable(f"{Path(path).name}: {note}", LONGEST) for note in told)


def read_detections(
    path: str | Path, truth: GroundTruth, *, masks: bool, name: str | None = None, argument: str = "--pred"
) -> tuple[Detections, Notes]:
    """Read a COCO result file; an empty list is zero detections, and noted.

    Absent boxes are taken around the masks, as pycocotools does.

    Args:
        path: JSON list of results. truth: the data set they are for. masks: read segmentations (IoU or area of masks).
        name: of the run; the file's name without ``.json`` by default. argument: what the user calls the file.
    Raises:
        UserError: another kind of file, unknown images or categories, missing or non-finite scores, boxes or masks that
            are needed and absent or malformed.
    """
    records, where = load_predictions(path, argument), f"{argument} {path}"
    image_id = columns.integers(records, "image_id", f"{where}: prediction")
    category_id = columns.integers(records, "category_id", f"{where}: prediction")
    _refuse_unknown(image_id, truth.image_ids, "image", f"{where}: predictions")
    _refuse_unknown(category_id, truth.category_ids, "category", f"{where}: predictions")
    scores = columns.numbers(records, "score", f"{where}: prediction")
    pixels = truth.image_sizes[_positions(image_id, truth.image_ids)]
    rles = to_rles(records, pixels, f"{where}: prediction") if masks else None
    boxes, box_note = _boxes_or_masks(records, pixels, rles, f"{where}: prediction")
    detections = Detections(printable(name or Path(path).stem), image_id, category_id, boxes, scores, rles)
    empty = ("no predictions at all (an empty list); counted as a model that finds nothing",) if not records else ()
    told = (*empty, *(() if masks else box_note), *score_notes(scores), *box_notes(boxes, pixels, "predictions"))
    return detections, tuple(printable(f"{Path(path).name}: {note}", LONGEST) for note in told)


def _boxes_or_masks(
    records: Records, pixels: NDArray, rles: tuple[RLE, ...] | None, where: str
) -> tuple[NDArray, Notes]:
    """Boxes, where absent those around the masks: (n, 4), and a note."""
    absent = np.array([not r.get("bbox") for r in records], bool)
    if not absent.any():
        return columns.boxes(records, where), ()
    _refuse_without_masks(records, absent, "bbox", where)
    around = mask_boxes(_chosen_masks(records, pixels, rles, absent, where))
    boxes = np.zeros((len(records), 4))
    boxes[absent] = around
    boxes[~absent] = columns.boxes([r for r, a in zip(records, absent, strict=True) if not a], where)
    what = f"{absent.sum()} of {len(records)} {where.rpartition(' ')[2]}s"
    return boxes, (f"{what} have no bbox; taken around their masks",)


def _areas_or_masks(
    records: Records, pixels: NDArray, boxes: NDArray, rles: tuple[RLE, ...] | None, where: str
) -> tuple[NDArray, Notes]:
    """The ``area`` fields in px², where absent the masks', and of objects without mask the boxes': (n,), and a note."""
    absent = np.array([r.get("area") is None for r in records], bool)
    areas = np.zeros(len(records))
    areas[~absent] = columns.areas([r for r, a in zip(records, absent, strict=True) if not a], where)
    if not absent.any():
        return areas, ()
    masked = absent & np.array([bool(r.get("segmentation")) for r in records], bool)
    areas[absent] = box_areas(boxes[absent])
    if masked.any():
        areas[masked] = mask_areas(_chosen_masks(records, pixels, rles, masked, where))
    sources = [f"{masked.sum()} from the mask"] * bool(masked.any())
    sources += [f"{(absent & ~masked).sum()} from box width x height"] * bool((absent & ~masked).any())
    return areas, (f"{absent.sum()} of {len(records)} annotations have no area; computed {', '.join(sources)}",)


def _chosen_masks(
    records: Records, pixels: NDArray, rles: tuple[RLE, ...] | None, chosen: NDArray[np.bool_], where: str
) -> tuple[RLE, ...]:
    at = np.flatnonzero(chosen).tolist()
    return tuple(rles[i] for i in at) if rles is not None else to_rles([records[i] for i in at], pixels[at], where, at)


def _refuse_without_masks(records: Records, absent: NDArray[np.bool_], key: str, where: str) -> None:
    bare = [i for i in np.flatnonzero(absent).tolist() if not records[i].get("segmentation")]
    if bare:
        raise UserError(f"{where} {bare[0]}: neither {key} nor segmentation ({len(bare)} of {len(records)} lack both)")


def _no_crowds(records: Records) -> Notes:
    absent = sum("iscrowd" not in record for record in records)
    return (f"{absent} of {len(records)} annotations have no iscrowd; taken as 0",) if absent else ()


def _zero(ids: NDArray) -> Notes:
    if not (ids == 0).any():
        return ()
    return ("an annotation has id 0: pycocotools counts a match with it as none, and so does this; begin at 1",)


def _used_twice(ids: NDArray) -> Notes:
    values, counts = np.unique(ids, return_counts=True)
    twice = values[counts > 1]
    counted = "each is counted as an object of its own; pycocotools counts the last one in place of all"
    return (f"{len(twice)} annotation ids are used more than once ({shown(twice)}); {counted}",) if len(twice) else ()


def _unique(ids: NDArray, what: str, where: str) -> NDArray:
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        twice = values[counts > 1]
        raise UserError(
            f"{where}: {len(twice)} {what} ids are used more than once ({shown(twice)}); each must be unique"
        )
    return ids


def _positions(ids: NDArray, known: NDArray) -> NDArray:
    """Where each id stands in ``known``: (n,), -1 where it does not."""
    order = np.argsort(known, kind="stable")
    at = order[np.minimum(np.searchsorted(known, ids, sorter=order), len(known) - 1)]
    return np.where(known[at] == ids, at, -1)


def _refuse_unknown(ids: NDArray, known: NDArray, what: str, where: str) -> None:
    unknown = _positions(ids, known) < 0
    if not unknown.any():
        return
    values = np.unique(ids[unknown])
    hint = label_hint(ids, known) if what == "category" else "; is the annotation file that of another split?"
    few = f"{what} ids that the annotation file does not have ({len(values)} ids: {shown(values)})"
    raise UserError(f"{where}: {unknown.sum()} of {len(ids)} are of {few}{hint}")


def _side(image: Mapping[str, Any], key: str) -> int:
    value = image.get(key)
    return int(value) if isinstance(value, int | float) and 1 <= value < 2**31 else 0
