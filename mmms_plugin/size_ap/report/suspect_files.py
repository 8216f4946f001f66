"""Suspicious annotations as a page with a gallery, and as COCO for annotation tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mmms_plugin.coco.as_coco import coco_content
from mmms_plugin.coco.formats import Source, detect
from mmms_plugin.coco.json_files import load_annotations
from mmms_plugin.coco.objects import GroundTruth, positions
from mmms_plugin.coco.read import LABELS, read_labels
from mmms_plugin.errors import UserError, counted, printable
from mmms_plugin.report.page import Section, render
from mmms_plugin.size_ap.bins import Bin
from mmms_plugin.size_ap.report.gallery import make_gallery
from mmms_plugin.size_ap.report.suspects import MEANINGS, suspect_records, suspect_table
from mmms_plugin.size_ap.results import Failures, Inputs, Suspects
from mmms_plugin.size_ap.suspects import KINDS, NONE


def suspect_page(inputs: Inputs, bins: tuple[Bin, ...]) -> str:
    """All of them as a table and a gallery of crops."""
    truth, suspects = inputs.truth, inputs.suspects
    assert suspects is not None
    place = np.argsort(np.argsort(truth.category_ids, kind="stable"))
    known = np.append(positions(truth.category_id, truth.category_ids), NONE)[suspects.annotation]
    boxes = np.concatenate([truth.boxes, np.full((1, 4), np.nan)])[suspects.annotation]
    failures = Failures(
        kind=suspects.kind, in_bin=suspects.in_bin, image=suspects.image, category=place[suspects.category],
        object_category=np.where(known == NONE, NONE, np.append(place, 0)[known]), score=suspects.score,
        iou=suspects.iou, box=suspects.box, object_box=boxes, total=suspects.total,
    )  # fmt: skip
    models = [run.name for method in inputs.methods for run in method.runs]
    gallery = make_gallery(
        truth, [(counted(len(models), "model"), failures)], bins, inputs.source.pictures, KINDS, "suspects"
    )
    sections = [
        Section("Kinds", MEANINGS, tables=[suspect_table(truth, suspects, len(suspects))]),
        Section("Look at the suspects", gallery=gallery),
    ]
    facts = [("annotations", printable(inputs.ann or "")), ("models", ", ".join(models))]
    return render("Suspicious annotations", facts, sections, links=[("AP by object size", "report.html")])


def corrected_by_hand(truth: GroundTruth, suspects: Suspects, ann: str, source: Source) -> str:
    """COCO's content of the pictures with suspects, for correction in an annotation tool.

    Every suspect has ``attributes``: ``suspect`` (its kind), ``suspect_rank``, ``suspect_score``, and what the models
    see, ``suggested_class`` or ``suggested_bbox``. Missing objects are annotations with ids above all others. Ids that
    occur twice are replaced, as in the other files of the report.

    Raises:
        UserError: the annotations can no longer be read, or are not those that were evaluated.
    """
    kind = detect(Path(ann), "--ann", source.truth)
    labels = read_labels(Path(ann), kind, source, "--ann") if kind in LABELS else None
    whole = load_annotations(ann) if labels is None else coco_content(labels)
    if len(whole["images"]) != len(truth.image_ids) or len(whole["annotations"]) != len(truth):
        raise UserError(f"{printable(ann)}: has changed since it was evaluated; evaluate it again")
    annotations = [dict(a, id=number) for a, number in zip(whole["annotations"], truth.ids.tolist(), strict=True)]
    free = 1 + int(truth.ids.max(initial=0))
    images = {whole["images"][place]["id"] for place in suspects.image}
    added: list[dict[str, Any]] = []
    for i, row in enumerate(suspect_records(truth, suspects)):
        box = [round(float(value), 2) for value in suspects.box[i]]
        attributes = dict(suspect=row["kind"], suspect_rank=row["rank"], suspect_score=round(row["score"], 4))
        if suspects.annotation[i] == NONE:
            annotation: dict[str, Any] = dict(
                id=free + len(added), image_id=whole["images"][suspects.image[i]]["id"],
                category_id=whole["categories"][suspects.category[i]]["id"], bbox=box,
                area=round(box[2] * box[3], 2), iscrowd=0, segmentation=[],
            )  # fmt: skip
            added.append(annotation)
        else:
            annotation = annotations[suspects.annotation[i]]
            if row["kind"] == "class":
                attributes["suggested_class"] = row["seen"]
            else:
                attributes["suggested_bbox"] = " ".join(f"{value:g}" for value in box)
        annotation["attributes"] = {**(annotation.get("attributes") or {}), **attributes}
    content = dict(
        images=[image for image in whole["images"] if image["id"] in images], categories=whole["categories"],
        annotations=[*(a for a in annotations if a["image_id"] in images), *added],
    )  # fmt: skip
    return json.dumps(content, ensure_ascii=False) + "\n"
