"""What is known of every picture: one number for each block or exit, its classes, the objects it shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.files import write_text, written_whole
from mmms_plugin.report.tables import to_csv


@dataclass(frozen=True)
class Row:
    """One picture.

    Attributes:
        name: path below the folder that was given. values: one for each column of the table.
        classes: of the picture, or of the objects it shows; empty where unknown.
        sides: of its objects, square roots of their areas in px. predicted: class, '' for none; of several exits, the
            answer of the one at which the picture leaves.
        right: whether the prediction is one of ``classes``; None where that is not known.
    """

    name: str
    values: tuple[float, ...]
    classes: tuple[str, ...] = ()
    sides: tuple[float, ...] = ()
    predicted: str = ""
    right: bool | None = None

    @property
    def score(self) -> float:
        """Mean of the values: the overall scale policy score of a picture."""
        return float(np.mean(self.values)) if self.values else 0.0


@dataclass(frozen=True)
class Table:
    """All pictures. ``kind``: 'scale policy' (a score for each block), 'exits' (a confidence for each exit), or 'none'.

    Attributes:
        columns: names of the blocks or exits. threshold: confidence at which a picture leaves, for exits.
    """

    kind: str
    columns: tuple[str, ...]
    rows: list[Row] = field(default_factory=list)
    threshold: float = 1.0

    @property
    def values(self) -> NDArray[np.float64]:
        """``[pictures, columns]``."""
        return np.array([row.values for row in self.rows], float).reshape(len(self.rows), len(self.columns))

    @property
    def exits(self) -> NDArray[np.int64]:
        """``[pictures]``: see ``leaving_exit``."""
        return np.array([leaving_exit(row.values, self.threshold) for row in self.rows], np.int64)

    def to_json(self) -> dict[str, Any]:
        """Dicts, lists and numbers; what ``rows_of`` reads."""
        return asdict(self)


def leaving_exit(confidences: Sequence[float], threshold: float) -> int:
    """The first exit, from 0, whose confidence reaches the threshold; the last takes the rest."""
    reached = (i for i, confidence in enumerate(confidences) if confidence >= threshold)
    return next(reached, len(confidences) - 1)


def rows_of(content: Any, columns: int) -> list[Row]:
    """Rows out of ``Table.to_json``; those that are no rows of so many columns are left out."""
    rows = []
    for record in content if isinstance(content, list) else ():
        try:
            row = Row(
                str(record["name"]), tuple(map(float, record["values"])), tuple(map(str, record["classes"])),
                tuple(map(float, record["sides"])), str(record["predicted"]),
                record["right"] if isinstance(record["right"], bool) else None,
            )  # fmt: skip
        except (KeyError, TypeError, ValueError):
            continue
        if len(row.values) == columns and all(math.isfinite(value) for value in row.values):
            rows.append(row)
    return rows


def write_csv(table: Table, path: Path) -> None:
    """A line for each picture."""
    records = _records(table)
    write_text(path, to_csv(records, zip(*records.values(), strict=True)))


def write_parquet(table: Table, path: Path) -> bool:
    """The same as Parquet, if pyarrow is installed; returns whether it is."""
    if find_spec("pyarrow") is None:
        return False
    import pyarrow
    import pyarrow.parquet

    with written_whole(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.table(_records(table)), temporary)
    return True


def _records(table: Table) -> dict[str, list[Any]]:
    """Columns of the written table: names first, then the numbers."""
    rows = table.rows
    medians = [float(np.median(row.sides)) if row.sides else None for row in rows]
    columns: dict[str, list[Any]] = {
        "picture": [row.name for row in rows], "classes": ["; ".join(row.classes) for row in rows],
        "objects": [len(row.sides) for row in rows], "median_side": medians,
        "predicted": [row.predicted for row in rows], "right": [row.right for row in rows],
    }  # fmt: skip
    if table.kind == "exits":
        columns["exit"] = [int(place) + 1 for place in table.exits]
    else:
        columns["score"] = [row.score for row in rows]
    return columns | {name: [row.values[i] for row in rows] for i, name in enumerate(table.columns)}


def class_names(rows: Sequence[Row]) -> list[str]:
    """All classes of the rows, sorted."""
    return sorted({name for row in rows for name in row.classes})
