"""Annotations and results of every format as `GroundTruth` and `Detections`; everything unusual is reported.

What cannot be evaluated raises a `UserError` of one line. What is mended, or probably not meant, becomes a note: a line
for the terminal and the report, in the words of ``mmms check-data``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco import formats
from mmms_plugin.coco.findings import Findings
from mmms_plugin.coco.formats import AUTO, Source
from mmms_plugin.coco.lvis import is_federated, judged, read_federated
from mmms_plugin.coco.mending import as_side, mend_areas, suspicious_boxes, unsound_ids, without_short_polygons
from mmms_plugin.coco.objects import RLE, Detections, GroundTruth, mask_areas, positions
from mmms_plugin.coco.pascal_voc import read_voc_detections, read_voc_truth
from mmms_plugin.coco.records import (
    Category,
    Columns,
    Image,
    few,
    image_and_category_ids,
    read_annotations,
    read_results,
    refuse_nothing,
)
from mmms_plugin.coco.rle import mask_boxes, to_rles
from mmms_plugin.coco.yolo import read_yolo_detections, read_yolo_truth
from mmms_plugin.errors import LONGEST, UserError, printable, shown

Notes = tuple[str, ...]


def read_ground_truth(
    path: str | Path, *, masks: bool, argument: str = "--ann", source: Source = AUTO
) -> tuple[GroundTruth, Notes]:
    """Read a COCO or LVIS annotation file, or a folder of YOLO's or Pascal VOC's.

    Args:
        path: JSON with images, annotations and categories, or what the readers of the other formats take.
        masks: read the segmentations too.
        argument: the option that names the file, for messages.
        source: its format.

    Returns:
        The data, objects in the file's order and mended as for training (`mmms_plugin.coco.mending`), and notes.

    Raises:
        UserError: another kind of file, an annotation of an unknown image or category, an image or category id that is
            used twice, a box that is not four finite numbers, a mask that does not fit its image.
    """
    where = f"{argument} {path}"
    kind, images, categories, columns = _read_annotations(Path(path), masks, argument, source)
    refuse_nothing(images, categories, where)
    image_ids, category_ids = image_and_category_ids(images, categories, where)
    sizes = np.array([[as_side(image.width), as_side(image.height)] for image in images], np.int64)
    place = _known_positions(columns.image_id, image_ids, "image", f"{where}: annotations")
    pixels = np.take(sizes, place, axis=0)
    _known_positions(columns.category_id, category_ids, "category", f"{where}: annotations")

    findings = Findings(Path(path).name)

    def named(place: int) -> str:
        return f"annotation {columns.id[place] or f'number {place + 1}'}"

    columns, rles = _mend_masks_and_boxes(columns, pixels, masks, f"{where}: annotations", findings, named)
    masked = np.array([bool(segmentation) for segmentation in columns.segmentations or [None] * len(columns)], bool)
    areas, changed = mend_areas(
        columns.area,
        columns.boxes,
        masked,
        lambda places: mask_areas(_chosen_masks(columns, pixels, rles, places, f"{where}: annotations")),
    )
    unsound = unsound_ids(columns.id)
    findings.add_where("annotation-id", unsound, lambda i: f"annotation number {i + 1}: {columns.id[i]}")
    findings.add_where("iscrowd", ~columns.has_iscrowd & (kind != "lvis"), named)
    findings.add_where("area", changed, named)
    findings.add_where("difficult", columns.iscrowd & (kind == "voc"), named)
    _suspect(findings, columns.boxes, pixels, named)
    names = [image.file_name or str(image.coco_url or "").rpartition("/")[2] for image in images]
    truth = GroundTruth(
        image_ids=image_ids,
        image_sizes=sizes,
        category_ids=category_ids,
        category_names=tuple(
            printable(c.name) if isinstance(c.name, str) else shown(c.id if c.name is None else c.name)
            for c in categories
        ),
        ids=np.arange(1, len(columns) + 1) if unsound.any() else columns.id,
        image_id=columns.image_id,
        category_id=columns.category_id,
        boxes=columns.boxes,
        annotated_area=areas,
        iscrowd=columns.iscrowd,
        rles=rles,
        file_names=tuple(map(str, names)) if all(names) else (),
        format=kind,
        federated=read_federated(images, categories, where) if kind == "lvis" else None,
    )
    return truth, _notes(findings)


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
        path: JSON list of results, or what the readers of the other formats take.
        truth: the data set they are for.
        masks: read segmentations too, for IoU or areas of masks.
        name: of the run; by default the file's name without ``.json``.
        argument: the option that names the file, for messages.
        source: its format. Image ids may be names of files, as Ultralytics writes them.

    Raises:
        UserError: another kind of file, an unknown image or category, a score that is absent or not finite, a box or
            mask that is needed and is absent or malformed.
    """
    where = f"{argument} {path}"
    columns, label_notes = _read_results(Path(path), truth, masks, argument, source)
    place = _known_positions(columns.image_id, truth.image_ids, "image", f"{where}: predictions")
    _known_positions(columns.category_id, truth.category_ids, "category", f"{where}: predictions")
    excused = None
    if truth.federated:
        columns, excused = judged(columns, truth, truth.federated)
        place = positions(columns.image_id, truth.image_ids)
    pixels = np.take(truth.image_sizes, place, axis=0)

    def named(place: int) -> str:
        return f"prediction {place + 1}"

    findings = Findings(Path(path).name, {"box-missing": "none"} if masks else {})
    columns, rles = _mend_masks_and_boxes(columns, pixels, masks, f"{where}: ", findings, named)
    scores = columns.score
    if not len(columns):
        findings.add("no-predictions")
    findings.add_where("score-outside", (scores < 0) | (scores > 1), lambda i: f"{named(i)}: {scores[i]:g}")
    _suspect(findings, columns.boxes, pixels, named)
    run = Detections(
        printable(name or Path(path).stem), columns.image_id, columns.category_id, columns.boxes, scores, rles, excused
    )
    return run, (*(printable(f"{findings.file}: {note}", LONGEST) for note in label_notes), *_notes(findings))


def _read_annotations(
    path: Path, masks: bool, argument: str, source: Source
) -> tuple[str, list[Image], list[Category], Columns]:
    """The format, images, categories and objects."""
    kind = formats.detect(path, argument, source.truth)
    if kind in ("yolo", "voc"):
        read = {"yolo": read_yolo_truth, "voc": read_voc_truth}[kind]
        return kind, *read(path, source.pictures, source.classes, argument)
    images, categories, columns = read_annotations(path, argument, masks)
    federated = kind == "lvis" or (kind == "auto" and is_federated(images))
    return "lvis" if federated else "coco", images, categories, columns


def _read_results(path: Path, truth: GroundTruth, masks: bool, argument: str, source: Source) -> tuple[Columns, Notes]:
    """The predictions with the ids of the ground truth, and notes on how they were read."""
    kind = formats.detect(path, argument, source.predictions)
    if kind not in ("yolo", "voc"):
        return _ids_of_truth(read_results(path, argument, masks), truth, argument, path)
    ids = truth.image_ids.tolist()
    images = formats.image_by_name(truth.file_names, truth.image_ids)
    if kind == "yolo":
        sizes = dict(zip(ids, map(tuple, truth.image_sizes.tolist()), strict=True))
        return read_yolo_detections(path, images, sizes, np.sort(truth.category_ids), argument), _order(truth)
    classes = dict(zip(truth.category_names, truth.category_ids.tolist(), strict=True))
    return read_voc_detections(path, images, classes, argument), ()


def _ids_of_truth(columns: Columns, truth: GroundTruth, argument: str, path: Path) -> tuple[Columns, Notes]:
    """The predictions with ids for names of images, and for class numbers if the ground truth is YOLO's or VOC's."""
    given = columns.image_id
    own = truth.format in ("coco", "lvis")
    named = given.dtype == object or not own
    if named or (truth.file_names and (positions(given, truth.image_ids) < 0).any()):
        names = formats.image_by_name(truth.file_names, truth.image_ids)
        numbered = {int(name): i for name, i in names.items() if name.isdecimal()}
        ids = [
            names.get(image, names.get(Path(image).stem)) if isinstance(image, str) else numbered.get(image)
            for image in given.tolist()
        ]
        absent = {str(image) for image, i in zip(given.tolist(), ids, strict=True) if i is None}
        if absent and named:
            raise formats.unknown_images(sorted(absent), argument, path)
        if not absent:
            columns = replace(columns, image_id=np.array(ids, np.int64))
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
    """A note on the order of the classes where numbers meet names; YOLO's ground truth needs none."""
    names = [truth.category_names[i] for i in np.argsort(truth.category_ids)]
    return () if truth.format == "yolo" else (f"numbers of classes are taken in this order: {few(names)}",)


def _suspect(findings: Findings, boxes: NDArray, pixels: NDArray, named: Callable[[int], str]) -> None:
    findings.add_where("box-flat", np.any(boxes[:, 2:] == 0, axis=1), named)
    for code, figures in suspicious_boxes(boxes, pixels).items():
        findings.add(code, figures)


def _notes(findings: Findings) -> Notes:
    return tuple(printable(f"{findings.file}: {finding.text}", LONGEST) for finding in findings)


def _mend_masks_and_boxes(
    columns: Columns, pixels: NDArray, masks: bool, where: str, findings: Findings, named: Callable[[int], str]
) -> tuple[Columns, tuple[RLE, ...] | None]:
    """Columns without short polygons and with boxes around masks where absent; and the masks, if they are asked for."""
    segmentations = columns.segmentations
    if segmentations:
        segmentations = [without_short_polygons(segmentation) for segmentation in segmentations]
        changed = [new is not old for new, old in zip(segmentations, columns.segmentations or (), strict=True)]
        findings.add_where("polygon-short", np.array(changed, bool), named)
        columns = replace(columns, segmentations=segmentations)
    rles = to_rles(segmentations or (), pixels, where) if masks else None
    absent = np.flatnonzero(~columns.has_box)
    if len(absent):
        bare = [place for place in absent.tolist() if not (segmentations and segmentations[place])]
        if bare:
            raise UserError(
                f"{where}[{bare[0]}]: neither bbox nor segmentation ({len(bare)} of {len(columns)} lack both)"
            )
        boxes = columns.boxes.copy()
        boxes[absent] = mask_boxes(_chosen_masks(columns, pixels, rles, absent, where))
        findings.add_where("box-missing", ~columns.has_box, named)
        columns = replace(columns, boxes=boxes)
    return columns, rles


def _chosen_masks(
    columns: Columns, pixels: NDArray, rles: tuple[RLE, ...] | None, places: NDArray[np.int64], where: str
) -> tuple[RLE, ...]:
    at = places.tolist()
    if rles is not None:
        return tuple(rles[i] for i in at)
    return to_rles([(columns.segmentations or ())[i] for i in at], pixels[at], where, at)


def _known_positions(ids: NDArray, known: NDArray, what: str, where: str) -> NDArray:
    """The place of each id in ``known``, which must have it."""
    places = positions(ids, known)
    unknown = places < 0
    if not unknown.any():
        return places
    values = np.unique(ids[unknown])
    hint = _label_hint(ids, known) if what == "category" else "; is the annotation file that of another split?"
    absent = f"{what} ids that the annotation file does not have ({len(values)} ids: {few(values)})"
    raise UserError(f"{where}: {unknown.sum()} of {len(ids)} are of {absent}{hint}")


def _label_hint(ids: NDArray, known: NDArray) -> str:
    """What unknown category ids look like: 0-based labels, or class numbers 1..n if the file's ids have gaps."""
    used, count = np.unique(ids), len(known)
    listed = f"write the annotation file's own ids ({few(np.sort(known))})"
    if used[0] == 0 and used[-1] < count:
        return f"; they look like 0-based labels 0..{count - 1}: {listed}"
    if used[0] >= 1 and used[-1] <= count and known.max() > count:
        return f"; they look like class numbers 1..{count}: {listed}"
    return f"; it has {count}: {few(np.sort(known))}"
