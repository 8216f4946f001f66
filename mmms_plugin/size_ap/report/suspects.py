"""Suspicious annotations for people: a table, a page with a gallery, CSV, and COCO for annotation tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mmms_plugin.coco.as_coco import coco_content
from mmms_plugin.coco.formats import Source, detect
from mmms_plugin.coco.json_files import load_annotations
from mmms_plugin.coco.objects import GroundTruth, positions
from mmms_plugin.coco.read import LABELS, read_labels
from mmms_plugin.errors import printable
from mmms_plugin.files import files_written_together, write_text
from mmms_plugin.report.page import Section, render
from mmms_plugin.report.tables import Column, Columns, Rows, Table, to_csv
from mmms_plugin.report.terminal import explain, print_table
from mmms_plugin.size_ap.bins import Bin
from mmms_plugin.size_ap.report.gallery import make_gallery
from mmms_plugin.size_ap.results import Failures
from mmms_plugin.size_ap.suspects import KINDS, NONE, Suspects

PRINTED = 20  # of a terminal
MEANINGS = (
    ("missing", "models see an object that is not annotated; score: mean of their scores, less beside such an object"),
    ("box", "models agree on another box; score: mean of their scores, times twice what the IoU lacks of 1"),
    ("class", "models see another class; score: mean of their scores, less where they see the annotated class too"),
)


def print_suspects(truth: GroundTruth, suspects: Suspects, console: Console) -> None:
    """The first of them as a table."""
    print_table(suspect_table(truth, suspects, PRINTED), console)
    for kind, meaning in MEANINGS:
        explain(f"{kind}: {meaning}", console)


def suspect_table(truth: GroundTruth, suspects: Suspects, most: int) -> Table:
    """Kind, score, image, classes and IoU of the first ``most``."""
    rows: Rows = [
        (str(i + 1), row["kind"], row["score"], row["annotated"] or "", row["seen"], row["iou"],
         f"{row['models']} of {suspects.of_models}", row["image"])
        for i, row in enumerate(_rows(truth, suspects)[:most])
    ]  # fmt: skip
    columns: Columns = (
        "rank", Column("kind", left=True), Column("score", ".2f"), Column("annotated", left=True),
        Column("models see", left=True), Column("IoU", ".2f"), "models", Column("image", left=True),
    )  # fmt: skip
    caption = f"Suspicious annotations, {min(most, len(suspects))} of {suspects.total:,}, highest score first"
    return Table("suspects", caption, columns, rows)


def write_suspects(
    truth: GroundTruth, suspects: Suspects, bins: tuple[Bin, ...], out: str, ann: str, source: Source
) -> list[Path]:
    """Write ``suspects.html``, ``suspects.csv`` and ``suspects.json`` into a folder.

    Args:
        truth: annotations.
        suspects: among them.
        bins: of the evaluation.
        out: the folder.
        ann: file or folder of the annotations.
        source: its format.

    Raises:
        UserError: the folder cannot be written, or the annotations no longer be read.
    """
    content = corrected_by_hand(truth, suspects, ann, source)
    rows = _rows(truth, suspects)
    place = np.argsort(np.argsort(truth.category_ids, kind="stable"))
    known = np.append(positions(truth.category_id, truth.category_ids), NONE)[suspects.annotation]
    boxes = np.concatenate([truth.boxes, np.full((1, 4), np.nan)])[suspects.annotation]
    failures = Failures(
        kind=suspects.kind, in_bin=suspects.in_bin, image=suspects.image, category=place[suspects.category],
        object_category=np.where(known == NONE, NONE, np.append(place, 0)[known]), score=suspects.score,
        iou=suspects.iou, box=suspects.box, object_box=boxes, total=suspects.total,
    )  # fmt: skip
    models = "1 model" if suspects.of_models == 1 else f"{suspects.of_models} models"
    gallery = make_gallery(truth, [(models, failures)], bins, source.pictures, KINDS, "suspects")
    sections = [
        Section("Kinds", MEANINGS, tables=[suspect_table(truth, suspects, len(suspects))]),
        Section("Look at the suspects", gallery=gallery),
    ]
    page = render("Suspicious annotations", [("annotations", printable(ann)), ("models", models)], sections)
    header = [*rows[0]] if rows else ["rank"]
    with files_written_together(Path(out)) as folder:
        files = [
            write_text(folder / "suspects.html", page),
            write_text(folder / "suspects.csv", to_csv(header, [row.values() for row in rows])),
            write_text(folder / "suspects.json", json.dumps(content, ensure_ascii=False) + "\n"),
        ]
    return [Path(out, file.name) for file in files]


def corrected_by_hand(truth: GroundTruth, suspects: Suspects, ann: str, source: Source) -> dict[str, Any]:
    """COCO's content of the pictures with suspects, for correction in an annotation tool.

    Every suspect has ``attributes``: ``suspect`` (its kind), ``suspect_rank``, ``suspect_score``, and what the models
    see, ``suggested_class`` or ``suggested_bbox``. Missing objects are annotations with ids above all others.
    """
    kind = detect(Path(ann), "--ann", source.truth)
    labels = read_labels(Path(ann), kind, source, "--ann") if kind in LABELS else None
    whole = load_annotations(ann) if labels is None else coco_content(labels)
    annotations = [dict(annotation) for annotation in whole["annotations"]]
    ids = [annotation.get("id") for annotation in annotations]
    free = 1 + max([number for number in ids if isinstance(number, int)], default=0)
    images = {whole["images"][place]["id"] for place in suspects.image}
    added: list[dict[str, Any]] = []
    for i, row in enumerate(_rows(truth, suspects)):
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
    return dict(
        images=[image for image in whole["images"] if image["id"] in images], categories=whole["categories"],
        annotations=[*(a for a in annotations if a["image_id"] in images), *added],
    )  # fmt: skip


def _rows(truth: GroundTruth, suspects: Suspects) -> list[dict[str, Any]]:
    names, rows = truth.category_names, []
    known = np.append(positions(truth.category_id, truth.category_ids), NONE)[suspects.annotation].tolist()
    for i, place in enumerate(suspects.image.tolist()):
        there = int(suspects.annotation[i])
        image = truth.file_names[place] if truth.file_names else f"image {truth.image_ids[place]}"
        rows.append(dict(
            rank=i + 1, score=float(suspects.score[i]), kind=KINDS[suspects.kind[i]], image=printable(image),
            annotation_id=None if there == NONE else int(truth.ids[there]),
            annotated=None if there == NONE else names[known[i]], seen=names[suspects.category[i]],
            iou=float(suspects.iou[i]), models=int(suspects.models[i]),
            **dict(zip("xywh", suspects.box[i].tolist(), strict=True)),
        ))  # fmt: skip
    return rows
