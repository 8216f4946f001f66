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
from mmms_plugin.coco.formats import AUTO, Labels, Source
from mmms_plugin.coco.labelme import read_labelme_truth
from mmms_plugin.coco.lvis import is_federated, judged, read_federated
from mmms_plugin.coco.mending import as_side, mend_areas, suspicious_boxes, unsound_ids, without_short_polygons
from mmms_plugin.coco.objects import Detections, GroundTruth, positions
from mmms_plugin.coco.pascal_voc import read_voc_detections, read_voc_truth
from mmms_plugin.coco.readings import boxes_off_masks, misread
from mmms_plugin.coco.records import (
    Category,
    Columns,
    Image,
    image_and_category_ids,
    read_annotations,
    read_results,
    refuse_nothing,
)
from mmms_plugin.coco.references import (
    ImageNames,
    Notes,
    contradicting_names,
    ids_of_truth,
    known_positions,
    listed_twice,
    name_of,
    numbered_classes,
    other_sizes,
)
from mmms_plugin.coco.rle import mask_boxes, to_rles
from mmms_plugin.coco.run_lengths import Masks
from mmms_plugin.coco.yolo import read_yolo_detections, read_yolo_truth
from mmms_plugin.errors import LONGEST, UserError, printable, shown

LABELS = {"yolo": read_yolo_truth, "voc": read_voc_truth, "labelme": read_labelme_truth}


def read_labels(path: Path, kind: str, source: Source, argument: str) -> Labels:
    """Ground truth in one of the formats of `LABELS`, a file for each picture.

    Args:
        path: what the reader of the format takes.
        kind: the format.
        source: where pictures and names of classes are.
        argument: the option that names the path, for messages.

    Raises:
        UserError: a file that does not fit.
    """
    return LABELS[kind](path, source, argument)


def read_ground_truth(
    path: str | Path, *, masks: bool, argument: str = "--ann", source: Source = AUTO
) -> tuple[GroundTruth, Notes]:
    """Read a COCO or LVIS annotation file, or a folder of YOLO's, Pascal VOC's or labelme's.

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
    place = known_positions(columns.image_id, image_ids, "image", f"{where}: annotations")
    pixels = np.take(sizes, place, axis=0)
    known_positions(columns.category_id, category_ids, "category", f"{where}: annotations")

    findings = Findings(Path(path).name)

    def named(place: int) -> str:
        return f"annotation {columns.id[place] or f'number {place + 1}'}"

    columns, rles = _mend_masks_and_boxes(columns, pixels, masks, f"{where}: annotations", findings, named)
    masked = np.array([bool(segmentation) for segmentation in columns.segmentations or [None] * len(columns)], bool)
    areas, changed = mend_areas(
        columns.area,
        columns.boxes,
        masked,
        lambda places: _chosen_masks(columns, pixels, rles, places, f"{where}: annotations").areas,
    )
    unsound = unsound_ids(columns.id)
    findings.add_where(
        "annotation-id",
        unsound,
        lambda i: f"annotation number {i + 1}: {columns.id[i] if columns.has_id[i] else 'not an integer'}",
    )
    findings.add_where("iscrowd", ~columns.has_iscrowd & (kind != "lvis"), named)
    findings.add_where("scored", columns.has_score, named)
    findings.add_where("area", changed & (kind not in LABELS), named)  # whose files state none
    findings.add_where("difficult", columns.iscrowd & (kind == "voc"), named)
    _suspect(findings, columns.boxes, pixels, named)
    classes = tuple(map(name_of, categories))
    for name in listed_twice(classes):
        findings.add("category-name-twice", shown(name))
    names = [image.file_name or str(image.coco_url or "").rpartition("/")[2] for image in images]
    truth = GroundTruth(
        image_ids=image_ids,
        image_sizes=sizes,
        category_ids=category_ids,
        category_names=classes,
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
        file_ids=columns.id if unsound.any() and columns.has_id.all() else None,
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
    kind, columns, label_notes = _read_results(Path(path), truth, masks, argument, source)
    place = known_positions(columns.image_id, truth.image_ids, "image", f"{where}: predictions")
    known_positions(columns.category_id, truth.category_ids, "category", f"{where}: predictions")
    excused, settled = None, False
    if truth.federated:  # before its rules leave out predictions of other classes
        notes, settled = misread(truth, columns, place, kind)
        columns, excused = judged(columns, truth, truth.federated)
        place = positions(columns.image_id, truth.image_ids)
    pixels = np.take(truth.image_sizes, place, axis=0)

    def named(place: int) -> str:
        return f"prediction {place + 1}"

    findings = Findings(Path(path).name, {"box-missing": "none"} if masks else {})
    columns, rles = _mend_masks_and_boxes(columns, pixels, masks, f"{where}: ", findings, named)
    if not truth.federated:
        notes, settled = misread(truth, columns, place, kind)
    scores = columns.score
    if not len(columns):
        findings.add("no-predictions")
    outside = (scores < 0) | (scores > 1)
    if scores.min(initial=0) == 0 and scores.max(initial=0) <= 100 and 2 * outside.sum() > len(scores):
        findings.add("score-percent", f"the highest is {scores.max():g}")
    else:
        findings.add_where("score-outside", outside, lambda i: f"{named(i)}: {scores[i]:g}")
    _suspect(findings, columns.boxes, pixels, named, settled)
    run = Detections(
        printable(name or Path(path).stem), columns.image_id, columns.category_id, columns.boxes, scores, rles, excused
    )
    told = (printable(f"{findings.file}: {note}", LONGEST) for note in (*notes, *label_notes))
    return run, (*told, *_notes(findings))


def _read_annotations(
    path: Path, masks: bool, argument: str, source: Source
) -> tuple[str, list[Image], list[Category], Columns]:
    """The format, images, categories and objects."""
    kind = formats.detect(path, argument, source.truth)
    if kind in LABELS:
        labels = read_labels(path, kind, source, argument)
        return kind, labels.images, labels.categories, labels.columns
    images, categories, columns = read_annotations(path, argument, masks)
    federated = kind == "lvis" or (kind == "auto" and is_federated(images))
    return "lvis" if federated else "coco", images, categories, columns


def _read_results(
    path: Path, truth: GroundTruth, masks: bool, argument: str, source: Source
) -> tuple[str, Columns, Notes]:
    """'coco', 'yolo' or 'voc', the predictions with the ids of the ground truth, and notes on how they were read."""
    kind = formats.detect(path, argument, source.predictions)
    if kind == "labelme":
        raise UserError(f"{argument} {path}: labelme's files hold no scores; predictions are COCO's, YOLO's or VOC's")
    if kind not in ("yolo", "voc"):
        return "coco", *ids_of_truth(read_results(path, argument, masks), truth, argument, path)
    images = ImageNames(truth.file_names, truth.image_ids)
    if kind == "voc":
        classes = dict(zip(truth.category_names, truth.category_ids.tolist(), strict=True))
        columns, own = read_voc_detections(path, images, classes, argument)
        sized = other_sizes(own, [int(image.id) for image in own], truth)
        if contradictions := contradicting_names(own, images):
            stated = {image.id: images.find(str(image.file_name)) for image in own}
            others = [stated[i] or i for i in columns.image_id.tolist()]
            columns = replace(columns, instead={"filename": np.array(others, np.int64)})
        return kind, columns, (*contradictions, *sized)
    sizes = dict(zip(truth.image_ids.tolist(), map(tuple, truth.image_sizes.tolist()), strict=True))
    names, ids, whose, notes = numbered_classes(path, truth, source, argument)
    return kind, read_yolo_detections(path, images, sizes, names, ids, whose, argument), notes


def _suspect(
    findings: Findings, boxes: NDArray, pixels: NDArray, named: Callable[[int], str], settled: bool = False
) -> None:
    """Add what is odd about boxes; whether all look like a mistake, unless that is ``settled``."""
    findings.add_where("box-flat", np.any(boxes[:, 2:] == 0, axis=1), named)
    for code, figures in {}.items() if settled else suspicious_boxes(boxes, pixels).items():
        findings.add(code, figures)


def _notes(findings: Findings) -> Notes:
    return tuple(printable(f"{findings.file}: {finding.text}", LONGEST) for finding in findings)


def _mend_masks_and_boxes(
    columns: Columns, pixels: NDArray, masks: bool, where: str, findings: Findings, named: Callable[[int], str]
) -> tuple[Columns, Masks | None]:
    """Columns without short polygons and with boxes around masks where absent; and the masks, if they are asked for."""
    segmentations = columns.segmentations
    if segmentations and list in set(map(type, segmentations)):
        segmentations = [without_short_polygons(segmentation) for segmentation in segmentations]
        changed = [new is not old for new, old in zip(segmentations, columns.segmentations or (), strict=True)]
        findings.add_where("polygon-short", np.array(changed, bool), named)
        columns = replace(columns, segmentations=segmentations)
    rles = to_rles(segmentations or (), pixels, where) if masks else None
    if rles and (apart := boxes_off_masks(columns.boxes, columns.has_box, rles)):
        findings.add("box-mask", apart)
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
    columns: Columns, pixels: NDArray, masks: Masks | None, places: NDArray[np.int64], where: str
) -> Masks:
    if masks is not None:
        return masks.at(places)
    at = places.tolist()
    return to_rles([(columns.segmentations or ())[i] for i in at], pixels[at], where, at)
