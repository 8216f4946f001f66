"""Suspicious annotations as a table, for people and as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console

from mmms_plugin.coco.objects import GroundTruth, positions
from mmms_plugin.errors import printable
from mmms_plugin.report.tables import Column, Columns, Rows, Table
from mmms_plugin.report.terminal import explain, print_table
from mmms_plugin.size_ap.bins import Bin
from mmms_plugin.size_ap.results import Suspects
from mmms_plugin.size_ap.suspects import KINDS, NONE

HEADER = ("rank", "score", "kind", "bin", "image", "annotation_id", "annotated", "seen", "iou", "models", *"xywh")
PRINTED = 20  # of a terminal
MEANINGS = (
    (
        "missing",
        "models see an object that is not annotated; score: mean of their scores, less where an annotated object "
        "of that class overlaps it",
    ),
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
        for i, row in enumerate(suspect_records(truth, suspects)[:most])
    ]  # fmt: skip
    columns: Columns = (
        "rank", Column("kind", left=True), Column("score", ".2f"), Column("annotated", left=True),
        Column("models see", left=True), Column("IoU", ".2f"), "models", Column("image", left=True),
    )  # fmt: skip
    caption = f"Suspicious annotations, {min(most, len(suspects))} of {suspects.total:,}, highest score first"
    return Table("suspects", caption, columns, rows)


def suspect_rows(truth: GroundTruth, suspects: Suspects, bins: Sequence[Bin]) -> tuple[list[str], Rows]:
    """Header and rows of ``suspects.csv``; a suspect between two bins is in both."""
    rows = suspect_records(truth, suspects)
    for i, row in enumerate(rows):
        inside = np.flatnonzero(suspects.in_bin[:, i]).tolist()
        row["bin"] = " ".join(bins[k].name for k in inside if bins[k].name != "all")
    return [*HEADER], [tuple(row[name] for name in HEADER) for row in rows]


def suspect_records(truth: GroundTruth, suspects: Suspects) -> list[dict[str, Any]]:
    """What is known of each, by name."""
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
