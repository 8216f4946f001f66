"""Which class is taken for which: the table of an evaluation, its CSV rows, and its figure's numbers and caption."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.report.tables import NOT_AVAILABLE, Cell, Columns, Rows, Table, percent
from mmms_plugin.size_ap.results import Confusion, RunResult, SizeAPResults

PAIRS = 12  # confusions of a table
SHOWN = 16  # classes of a figure
MISSED, BACKGROUND = "missed", "background"


def confusion_table(results: SizeAPResults, run: RunResult, number: int) -> Table:
    """Answers by bin, and the most frequent confusions of classes."""
    confusion, matrices = confusion_matrices(results, run)
    objects, detections = matrices[:, :-1].sum((1, 2)), matrices[:, :, :-1].sum((1, 2))
    correct = np.trace(matrices[:, :-1, :-1], axis1=1, axis2=2)
    missed, background = matrices[:, :-1, -1].sum(1), matrices[:, -1, :-1].sum(1)
    rows: Rows = [
        (name, *map(_cell, counts, wholes))
        for name, counts, wholes in (
            ("correct", correct, objects), ("another class", objects - correct - missed, objects),
            ("missed", missed, objects), ("detections of background", background, detections),
        )
    ]  # fmt: skip
    swapped = matrices[:, :-1, :-1] * (1 - np.eye(matrices.shape[1] - 1, dtype=np.int64))
    order = np.argsort(-swapped[0], axis=None, kind="stable")[:PAIRS]
    for row, column in zip(*np.unravel_index(order, swapped[0].shape), strict=True):
        if swapped[0, row, column]:
            names = [run.classes.category_names[place] for place in (row, column)]
            counts, wholes = swapped[:, row, column], matrices[:, row].sum(1)
            rows.append((f"{names[0]} → {names[1]}", *map(_cell, counts, wholes)))
    caption = (
        f"{run.name}: answers by object size, in % (in parentheses: how many), {_how(confusion)}; below, the most "
        "frequent confusions, object → detection, in % of the objects of that class"
    )
    columns: Columns = ("answer", *(b.name for b in results.bins))
    return Table(f"confusion-{number}", caption, columns, rows)


def confusion_rows(results: SizeAPResults) -> tuple[list[str], Rows]:
    """Header and rows of ``confusion.csv``: the cells that are not 0; the share is of the objects of the class."""
    rows: Rows = []
    for run in results.runs:
        if run.confusion is None:
            continue
        names = dict(zip(run.classes.category_ids, run.classes.category_names, strict=True))
        wholes: dict[tuple[str, int | None], int] = {}
        for answer in run.confusion.answers:
            key = answer.bin, answer.category_id
            wholes[key] = wholes.get(key, 0) + answer.count
        for answer in run.confusion.answers:
            whole = wholes[answer.bin, answer.category_id]
            share = None if answer.category_id is None else answer.count / whole
            rows.append((
                run.name, answer.bin, names[answer.category_id] if answer.category_id is not None else BACKGROUND,
                MISSED if answer.predicted_id is None else names[answer.predicted_id], answer.count, share,
                run.confusion.iou, run.confusion.score,
            ))  # fmt: skip
    return ["run", "bin", "object", "detection", "count", "share", "iou", "score"], rows


def confusion_caption(run: RunResult) -> str:
    """What the figure shows."""
    assert run.confusion is not None
    classes = len(run.classes.category_ids)
    of = f"the {SHOWN} classes that are confused most often" if classes > SHOWN else "every class"
    return (
        f"{run.name}: what objects of {of} are taken for, by size, as a share of the row; the last column is missed "
        f"objects, the last row detections of background, as a share of all of them. {_how(run.confusion).capitalize()}"
    )


def confusion_matrices(results: SizeAPResults, run: RunResult) -> tuple[Confusion, NDArray[np.int64]]:
    """The confusion of a run, and ``(bins, classes + 1, classes + 1)`` counts; last are missed and background."""
    assert run.confusion is not None
    ids = run.classes.category_ids
    return run.confusion, np.stack([run.confusion.matrix(b.name, ids) for b in results.bins])


def _cell(count: int, whole: int) -> Cell:
    return Cell(percent(count / whole), f"({count:,})") if whole else Cell(NOT_AVAILABLE)


def _how(confusion: Confusion) -> str:
    return f"IoU of at least {confusion.iou:g}, scores of at least {confusion.score:g}"
