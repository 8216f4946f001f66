"""The gallery of the pictures of a scale policy, as in Appendix C of the ELASTIC paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmms_plugin.report.page import OUTSIDE, Gallery, Tile, in_threads, open_picture
from mmms_plugin.scale.policy.table import OUTCOMES, Row, Table, class_names, leaving_exit, outcome

TILE, ACROSS, DOWN = 96, 20, 10  # px of a thumbnail, and thumbnails of a sheet
STRIPS = {
    "exits": "The strip under a picture has one field for each exit. The exit at which the picture leaves is framed.",
    "scale policy": (
        "The strip under a picture has one field for each block, the first on the left. Colours compare a picture with "
        "the others at the same block (two standard deviations are full colour), or show the score itself. S is the "
        "mean over the blocks, or the score of the block that orders the pictures."
    ),
}
LEGENDS = {"exits": "confidence from 0 to 1", "scale policy": "from low to high resolution"}


def make_gallery(table: Table, paths: Mapping[str, Path], other: Table | None = None) -> Gallery:
    """The pictures of a table with their values, classes and answers.

    Args:
        table: with a row for every picture.
        paths: of the pictures, by their names in the table.
        other: of a second network on the same pictures, None for none.
    """
    tables = [table, other] if other else [table]
    with_columns = [shown for shown in tables if shown.columns]
    remarks = [STRIPS[table.kind]] if table.columns else []
    if len(with_columns) == 2:
        remarks.append(
            "The upper strip and the first mark are the first network's, the lower strip and the second mark those of "
            "the network it is compared with."
        )
    elif other is not None:
        remarks.append(
            "The first mark (✓ right, ✗ wrong) is the first network's, the second that of the network it is compared "
            "with."
        )
    classes, others = class_names(table.rows), {row.name: row for row in other.rows} if other else {}
    tiles = thumbnails([paths[row.name] for row in table.rows])
    places = {name: i for i, name in enumerate(classes)}
    items = [_item(row, others.get(row.name), tables, places) for row in table.rows]
    for number, item in enumerate(items):
        item["tile"] = number if tiles[number] is not None else -1
    answers = OUTCOMES if other else ("right", "wrong")
    filters = [dict(key="class", name="class", values=classes)] if classes else []
    filters += [dict(key="answer", name="answer", values=answers)] if any(i["answer"] >= 0 for i in items) else []
    filters += [dict(key="exit", name="leaves at", values=table.columns)] if table.kind == "exits" else []
    orders: list[dict[str, Any]] = [dict(key="place", name="as given"), dict(key="title", name="name")]
    orders += [dict(key="label", name="class")] if classes else []
    if any(item["side"] is not None for item in items):
        orders.append(dict(key="side", name="object size", line="objects"))
    if table.columns and table.kind == "exits":
        orders.append(dict(key="exit", name="exit"))
    elif table.columns:
        orders.append(dict(key="mean", name="overall score", prefix="S"))
    orders += [dict(column=k, name=name, prefix="S") for k, name in enumerate(table.columns)]
    return Gallery(
        "pictures", remarks, [("scale", "", LEGENDS[table.kind])] if table.columns else [], items, filters, orders,
        tiles, TILE, ACROSS, DOWN, large=384, search=True, directions=True, runs=list(map(_run, with_columns)),
    )  # fmt: skip


def thumbnails(paths: Sequence[Path]) -> list[Tile | None]:
    """Every picture, whole, in the middle of a square; None if it can no longer be read."""
    return in_threads(_thumbnail, paths)


def _thumbnail(path: Path) -> Tile | None:
    whole = open_picture(path, side=TILE)
    if whole is None:
        return None
    scale = TILE / max(whole.size)  # enlarges CIFAR's pictures
    size = max(1, round(whole.width * scale)), max(1, round(whole.height * scale))
    small = whole.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    tile = Image.new("RGB", (TILE, TILE), OUTSIDE)
    tile.paste(small, ((TILE - small.width) // 2, (TILE - small.height) // 2))
    return np.asarray(tile)


def _run(table: Table) -> dict[str, Any]:
    run: dict[str, Any] = {"columns": table.columns}
    if table.kind == "scale policy":
        run |= {"means": list(map(_short, table.values.mean(0))), "spreads": list(map(_short, table.values.std(0)))}
    return run


def _item(row: Row, other: Row | None, tables: Sequence[Table], places: Mapping[str, int]) -> dict[str, Any]:
    table, label = tables[0], ", ".join(row.classes)
    rows = [(row, table), *([(other, tables[1])] if other else [])]
    leaves = leaving_exit(row.values, table.threshold) if table.kind == "exits" else -1
    facts = [("classes", label or "unknown")]
    for (answer, _), name in zip(rows, ("first predicted", "second predicted"), strict=False):
        if answer.predicted:
            verdict = {True: ", right", False: ", wrong", None: ""}[answer.right]
            facts.append((name if len(tables) > 1 else "predicted", f"{answer.predicted}{verdict}"))
    side = _short(float(np.median(row.sides))) if row.sides else None
    if side is not None:
        facts.append(("objects", f"{len(row.sides)}, median side {side:g} px"))
    below = ""
    if leaves >= 0:
        below = table.columns[leaves]
        facts.append(("leaves at", below))
    elif table.columns:
        below = f"S {row.score:.2g}".replace("-", "−")
        facts.append(("overall score", f"{row.score:.4g}"))
    if len(tables) > 1:
        answer_place = outcome(row, other) if other else None
    else:
        answer_place = None if row.right is None else int(not row.right)
    runs = [
        dict(
            values=list(map(_short, answer.values)),
            framed=leaving_exit(answer.values, of.threshold) if of.kind == "exits" else -1,
        )
        for answer, of in rows
        if of.columns
    ]
    return {
        "title": row.name, "lines": [label or row.name, below], "facts": facts, "label": label, "side": side,
        "objects": "" if side is None else f"{len(row.sides)} objects, {side:.0f} px", "mean": _short(row.score),
        "exit": leaves, "class": [places[name] for name in row.classes],
        "answer": -1 if answer_place is None else answer_place,
        "marks": [answer.right for answer, _ in rows if answer.right is not None], "runs": runs,
    }  # fmt: skip


def _short(value: float) -> float:
    return float(f"{value:.4g}")
