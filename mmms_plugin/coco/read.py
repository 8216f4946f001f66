"""COCO annotation and result files to `GroundTruth` and `Detections`, with everything unusual in them said.

What cannot be evaluated is a `UserError` of one line. What can, but is probably not meant, is a note: a line for the
user's terminal and for the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco import formats
from mmms_plugin.coco.columns import (
    Columns,
    Records,
    annotation_columns,
    brief,
    integers,
    result_columns,
    shown,
)
from mmms_plugin.coco.formats import AUTO, Source
from mmms_plugin.coco.json_files import load_annotations, load_predictions
from mmms_plugin.coco.lvis import is_federated, judged, read_federated
from mmms_plugin.coco.objects import RLE, Detections, GroundTruth, box_areas, mask_areas, positions
from mmms_plugin.coco.pascal_voc import read_voc_detections, read_voc_truth
from mmms_plugin.coco.segmentations import mask_boxes, to_rles
from mmms_plugin.coco.suspicions import box_notes, label_hint, score_notes
from mmms_plugin.coco.typed_json import quick_annotations, quick_results
from mmms_plugin.coco.yolo import read_yolo_detections, read_yolo_truth
from mmms_plugin.errors import LONGEST, LONGEST_NAME, UserError, printable

Notes = tuple[str, ...]


def read_ground_truth(
    path: str | Path, *, masks: bool, argument: str = "--ann", source: Source = AUTO
) -> tuple[GroundTruth, Notes]:
    """Read a COCO or LVIS annotation file, or a folder of YOLO's or Pascal VOC's.

    Args:
        path: JSON with images, annotations and categories, or what the readers of the other formats take.
        masks: read the segmentations too. argument: what the user calls the file, for messages. source: its format.
    Returns:
        The data, objects in the file's order, and notes. Absent ``area`` is taken from the mask, or the box where there
        is none; absent ``bbox`` from the mask; absent ``iscrowd`` is 0. Each is noted.
    Raises:
        UserError: another kind of file, an annotation of an unknown image or category, ids used twice for images or
            categories, boxes that are not four finite numbers, masks that do not fit their image.
    """
    where = f"{argument} {path}"
    kind, images, categories, columns = _read_annotations(Path(path), masks, argument, source)
    if not images or not categories:
        raise UserError(f"{where}: no {'images' if not images else 'categories'}; there is nothing to evaluate")
    image_ids = _unique(integers(images, "id", f"{where}: image"), "image", where)
    category_ids = _unique(integers(categories, "id", f"{where}: category"), "category", where)
    sizes = np.array([[_side(image, "width"), _side(image, "height")] for image in images], np.int64)
    place = _known_positions(columns.image_id, image_ids, "image", f"{where}: annotations")
    pixels = np.take(sizes, place, axis=0)
    _known_positions(columns.category_id, category_ids, "category", f"{where}: annotations")
    rles = to_rles(columns.segmentations or (), pixels, f"{where}: annotation") if masks else None
    boxes, box_note = _boxes_or_masks(columns, pixels, rles, f"{where}: annotation")
    areas, area_note = _areas_or_masks(columns, pixels, boxes, rles, f"{where}: annotation")
    truth = GroundTruth(
        image_ids=image_ids,
        image_sizes=sizes,
        category_ids=category_ids,
        category_names=tuple(printable(brief(c.get("name", c["id"]), LONGEST_NAME)) for c in categories),
        ids=columns.id,
        image_id=columns.image_id,
        category_id=columns.category_id,
        boxes=boxes,
        annotated_area=areas,
        iscrowd=columns.iscrowd,
        rles=rles,
        file_names=_file_names(images),
        format=kind,
        federated=read_federated(images, categories, where) if kind == "lvis" else None,
    )
    told = (
        *box_note,
        *area_note,
        *(() if kind == "lvis" else _no_crowds(columns)),
        *_difficult(kind, columns),
        *_used_twice(columns.id),
        *_zero(columns.id),
        *box_notes(boxes, pixels, "objects"),
    )
    return truth, tuple(printable(f"{Path(path).name}: {note}", LONGEST) for note in told)


def read_detections(
    path: str | Path,
    truth: GroundTruth,
    *,
    masks: bool,
    name: str | None = None,
    argument: str = "--pred",
    source: Source = AUTO,
) -> tuple[Detections, Notes]:
    """Read a COCO result file, or a folder of YOLO's or VOC's; an empty list is zero detections, and noted.

    Absent boxes are taken around the masks, as pycocotools does.

    Args:
        path: JSON list of results. truth: the data set they are for. masks: read segmentations (IoU or area of masks).
        name: of the run; the file's name without ``.json`` by default. argument: what the user calls the file.
        source: its format. Images may be named by their files, as Ultralytics does.
    Raises:
        UserError: another kind of file, unknown images or categories, missing or non-finite scores, boxes or masks that
            are needed and absent or malformed.
    """
    where = f"{argument} {path}"
    columns, label_note = _read_results(Path(path), truth, masks, argument, source)
    place = _known_positions(columns.image_id, truth.image_ids, "image", f"{where}: predictions")
    _known_positions(columns.category_id, truth.category_ids, "category", f"{where}: predictions")
    excused = None
    if truth.federated:
        columns, excused = judged(columns, truth, truth.federated)
        place = positions(columns.image_id, truth.image_ids)
    pixels = np.take(truth.image_sizes, place, axis=0)
    rles = to_rles(columns.segmentations or (), pixels, f"{where}: prediction") if masks else None
    boxes, box_note = _boxes_or_masks(columns, pixels, rles, f"{where}: prediction")
    shown_name, scores = printable(name or Path(path).stem), columns.score
    detections = Detections(shown_name, columns.image_id, columns.category_id, boxes, scores, rles, excused)
    empty = (
        ("no predictions at all (an empty list); counted as a model that finds nothing",) if not len(columns) else ()
    )
    told = (
        *empty,
        *label_note,
        *(() if masks else box_note),
        *score_notes(scores),
        *box_notes(boxes, pixels, "predictions"),
    )
    return detections, tuple(printable(f"{Path(path).name}: {note}", LONGEST) for note in told)


def _read_annotations(path: Path, masks: bool, argument: str, source: Source) -> tuple[str, Records, Records, Columns]:
    """The format, images, categories and objects."""
    kind = formats.detect(path, argument, source.truth)
    if kind in ("yolo", "voc"):
        read = {"yolo": read_yolo_truth, "voc": read_voc_truth}[kind]
        return kind, *read(path, source.pictures, source.classes, argument)
    found = _read_json_annotations(path, masks, argument)
    return "lvis" if kind == "lvis" or (kind == "auto" and is_federated(found[0])) else "coco", *found


def _read_json_annotations(path: Path, masks: bool, argument: str) -> tuple[Records, Records, Columns]:
    """Images, categories and objects, quickly or, where something is unusual, with a word for it."""
    quick = quick_annotations(path, masks)
    if quick:
        return quick
    content = load_annotations(path, argument)
    for what in ("images", "categories"):  # before their objects
        if not content[what]:
            return content["images"], content["categories"], annotation_columns([], "")
    columns = annotation_columns(content["annotations"], f"{argument} {path}: annotation")
    return content["images"], content["categories"], columns


def _read_results(path: Path, truth: GroundTruth, masks: bool, argument: str, source: Source) -> tuple[Columns, Notes]:
    """The predictions with the ids of the ground truth, and a note on how they were understood."""
    kind = formats.detect(path, argument, source.predictions)
    ids = truth.image_ids.tolist()
    if kind == "yolo":
        sizes = dict(zip(ids, map(tuple, truth.image_sizes.tolist()), strict=True))
        images = formats.image_by_name(truth.file_names, truth.image_ids)
        return read_yolo_detections(path, images, sizes, np.sort(truth.category_ids), argument), _order(truth)
    if kind == "voc":
        images = formats.image_by_name(truth.file_names, truth.image_ids)
        classes = dict(zip(truth.category_names, truth.category_ids.tolist(), strict=True))
        return read_voc_detections(path, images, classes, argument), ()
    columns = quick_results(path, masks)
    if columns is None:
        columns = result_columns(load_predictions(path, argument), f"{argument} {path}: prediction")
    return _ids_of_truth(columns, truth, argument, path)


def _ids_of_truth(columns: Columns, truth: GroundTruth, argument: str, path: Path) -> tuple[Columns, Notes]:
    """Names of images as ids; and where the ground truth has no ids of its own, numbers of classes as its own."""
    given = columns.image_id
    own = truth.format in ("coco", "lvis")
    named = given.dtype == object or not own
    if named or (truth.file_names and (positions(given, truth.image_ids) < 0).any()):
        names = formats.image_by_name(truth.file_names, truth.image_ids)
        numbered = {int(name): i for name, i in names.items() if name.isdecimal()}
        found = [
            names.get(one, names.get(Path(one).stem)) if isinstance(one, str) else numbered.get(one)
            for one in given.tolist()
        ]
        absent = {str(one) for one, place in zip(given.tolist(), found, strict=True) if place is None}
        if absent and named:
            raise formats.unknown_images(sorted(absent), argument, path)
        if not absent:
            columns = replace(columns, image_id=np.array(found, np.int64))
    labels = columns.category_id
    first = 0 if len(labels) and labels.min() == 0 else 1
    if own or not len(labels) or first == truth.category_ids.min():
        return columns, () if own else _order(truth)
    columns = replace(columns, category_id=labels - first + int(truth.category_ids.min()))
    return columns, (
        *_order(truth),
        f"category ids are taken to count from {first}, as {'no' if first else 'an'} id 0 is used",
    )


def _order(truth: GroundTruth) -> Notes:
    """A note on which class is the first, where numbers meet names; YOLO's own ground truth needs none."""
    names = [truth.category_names[i] for i in np.argsort(truth.category_ids)]
    return () if truth.format == "yolo" else (f"numbers of classes are taken in this order: {shown(names)}",)


def _file_names(images: Records) -> tuple[str, ...]:
    """Every image's file name, or the end of its ``coco_url`` (LVIS); nothing if one has neither."""
    names = [image.get("file_name") or str(image.get("coco_url") or "").rpartition("/")[2] for image in images]
    return tuple(map(str, names)) if all(names) else ()


def _difficult(kind: str, columns: Columns) -> Notes:
    count = int(columns.iscrowd.sum()) if kind == "voc" else 0
    ignored = "detections on them count neither as found nor as false, as on COCO's crowds"
    return (f"{count} objects are marked difficult; {ignored}",) if count else ()


def _boxes_or_masks(
    columns: Columns, pixels: NDArray, rles: tuple[RLE, ...] | None, where: str
) -> tuple[NDArray, Notes]:
    """Boxes, where absent those around the masks: (n, 4), and a note."""
    absent = ~columns.has_box
    if not absent.any():
        return columns.boxes, ()
    boxes = columns.boxes.copy()
    boxes[absent] = mask_boxes(_chosen_masks(columns, pixels, rles, absent, where))
    what = f"{absent.sum()} of {len(columns)} {where.rpartition(' ')[2]}s"
    return boxes, (f"{what} have no bbox; taken around their masks",)


def _areas_or_masks(
    columns: Columns, pixels: NDArray, boxes: NDArray, rles: tuple[RLE, ...] | None, where: str
) -> tuple[NDArray, Notes]:
    """The ``area`` fields in px², where absent the masks', and of objects without mask the boxes': (n,), and a note."""
    absent = np.isnan(columns.area)
    if not absent.any():
        return columns.area, ()
    areas = np.where(absent, box_areas(boxes), columns.area)
    masked = absent & np.array([bool(one) for one in columns.segmentations or ()], bool)
    if masked.any():
        areas[masked] = mask_areas(_chosen_masks(columns, pixels, rles, masked, where))
    sources = [f"{masked.sum()} from the mask"] * bool(masked.any())
    sources += [f"{(absent & ~masked).sum()} from box width x height"] * bool((absent & ~masked).any())
    return areas, (f"{absent.sum()} of {len(columns)} annotations have no area; computed {', '.join(sources)}",)


def _chosen_masks(
    columns: Columns, pixels: NDArray, rles: tuple[RLE, ...] | None, chosen: NDArray[np.bool_], where: str
) -> tuple[RLE, ...]:
    at = np.flatnonzero(chosen).tolist()
    if rles is not None:
        return tuple(rles[i] for i in at)
    return to_rles([(columns.segmentations or ())[i] for i in at], pixels[at], where, at)


def _no_crowds(columns: Columns) -> Notes:
    absent = int((~columns.has_iscrowd).sum())
    return (f"{absent} of {len(columns)} annotations have no iscrowd; taken as 0",) if absent else ()


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


def _known_positions(ids: NDArray, known: NDArray, what: str, where: str) -> NDArray:
    """Where each id stands in ``known``, which must have it."""
    found = positions(ids, known)
    unknown = found < 0
    if not unknown.any():
        return found
    values = np.unique(ids[unknown])
    hint = label_hint(ids, known) if what == "category" else "; is the annotation file that of another split?"
    few = f"{what} ids that the annotation file does not have ({len(values)} ids: {shown(values)})"
    raise UserError(f"{where}: {unknown.sum()} of {len(ids)} are of {few}{hint}")


def _side(image: Mapping[str, Any], key: str) -> int:
    value = image.get(key)
    return int(value) if isinstance(value, int | float) and 1 <= value < 2**31 else 0
