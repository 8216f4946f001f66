"""The table of a scale policy: numbers, classes and objects of every picture, and groups of pictures.

Groups are by class and by object size (Figures 5 and 6 of ELASTIC), by answers of two networks, and, as a map, by
policy.
"""

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

SIZES = (("small", 0.0, 32.0), ("medium", 32.0, 96.0), ("large", 96.0, np.inf))  # COCO's, side in px
FEWEST = 3  # pictures that a correlation needs
OUTCOMES = ("both right", "only first right", "only second right", "both wrong")


@dataclass(frozen=True)
class Row:
    """One picture.

    Attributes:
        name: path below the folder that was given.
        values: one for each column of the table.
        classes: of the picture, or of its objects; empty if unknown.
        sides: of its objects, square roots of their areas in px.
        predicted: class, '' for none; with several exits, the answer of the exit at which the picture leaves.
        right: whether the prediction is one of ``classes``; None if unknown.
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
    """All pictures.

    Attributes:
        kind: 'scale policy' (a score for each block), 'exits' (a confidence for each exit), or 'none'.
        columns: names of the blocks or exits.
        rows: the pictures.
        threshold: confidence at which a picture leaves, for exits.
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
    """The first exit, from 0, whose confidence reaches the threshold; otherwise the last."""
    reached = (i for i, confidence in enumerate(confidences) if confidence >= threshold)
    return next(reached, len(confidences) - 1)


def rows_of(content: Any, columns: int) -> list[Row]:
    """Rows from ``Table.to_json``; anything but rows of so many columns is dropped."""
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
    """Write a line for each picture."""
    records = _records(table)
    write_text(path, to_csv(records, zip(*records.values(), strict=True)))


def write_parquet(table: Table, path: Path) -> bool:
    """Write the same table as Parquet if pyarrow is installed; returns whether it is."""
    if find_spec("pyarrow") is None:
        return False
    import pyarrow
    import pyarrow.parquet

    with written_whole(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.table(_records(table)), temporary)
    return True


def _records(table: Table) -> dict[str, list[Any]]:
    """Columns of the written table by name, the numbers last."""
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


@dataclass(frozen=True)
class Group:
    """Pictures with something in common: their number, mean overall score, and mean score of every block."""

    name: str
    pictures: int
    score: float
    blocks: tuple[float, ...]


def by_class(table: Table) -> list[Group]:
    """Every class, the highest overall score first (Figure 5); a picture counts in each of its classes."""
    names = class_names(table.rows)
    groups = [_group(name, [row for row in table.rows if name in row.classes]) for name in names]
    return sorted(groups, key=lambda group: -group.score)


def by_size(table: Table) -> list[Group]:
    """Pictures by the median side of their objects; groups without pictures are omitted."""
    known = [(row, float(np.median(row.sides))) for row in table.rows if row.sides]
    groups = ((name, [row for row, side in known if low <= side < high]) for name, low, high in SIZES)
    return [_group(name, rows) for name, rows in groups if rows]


def _group(name: str, rows: list[Row]) -> Group:
    blocks = np.array([row.values for row in rows]).mean(0)
    return Group(name, len(rows), float(blocks.mean()), tuple(blocks.tolist()))


def size_correlations(table: Table) -> list[float] | None:
    """Pearson's r of every column with log2 of the median object side; None for fewer than three pictures with objects.

    It is 0 if the column or the side does not vary.
    """
    rows = [row for row in table.rows if row.sides]
    if len(rows) < FEWEST:
        return None
    sides = np.log2([max(1e-3, float(np.median(row.sides))) for row in rows])
    values = np.array([row.values for row in rows])
    sides, values = sides - sides.mean(), values - values.mean(0)
    scale = np.sqrt((values**2).sum(0) * (sides**2).sum())
    return list(np.where(scale > 0, (values * sides[:, None]).sum(0) / np.where(scale > 0, scale, 1), 0.0).tolist())


def embed(table: Table, seed: int = 0) -> tuple[NDArray[np.float64], str]:
    """A map of at least two pictures by t-SNE, ``[pictures, 2]``, and the method in words.

    Columns are first normalised to mean 0 and variance 1, since the size of activations differs between blocks.
    """
    from sklearn.manifold import TSNE

    values = table.values
    spread = values.std(0)
    values = (values - values.mean(0)) / np.where(spread > 0, spread, 1)
    perplexity = min(30.0, (len(values) - 1) / 3)
    start: Any = "pca" if min(values.shape) > 1 else "random"
    points = TSNE(2, perplexity=perplexity, init=start, random_state=seed).fit_transform(values)
    return np.asarray(points, float), f"t-SNE, perplexity {perplexity:.3g}"


@dataclass(frozen=True)
class Answers:
    """For a group of pictures, how many have each of the `OUTCOMES`."""

    name: str
    counts: tuple[int, ...]


def outcome(first: Row, second: Row) -> int | None:
    """Place in `OUTCOMES`; None if it is unknown whether an answer is right."""
    if first.right is None or second.right is None:
        return None
    return (0 if second.right else 1) if first.right else (2 if second.right else 3)


def compare_answers(first: Table, second: Table) -> list[Answers]:
    """For all pictures that both tables have, then by the median side of their objects, then by class.

    Groups without known answers are omitted.
    """
    others = {row.name: row for row in second.rows}
    pairs = [(row, outcome(row, others[row.name])) for row in first.rows if row.name in others]
    known = [(row, place) for row, place in pairs if place is not None]
    sides = [float(np.median(row.sides)) if row.sides else np.nan for row, _ in known]
    groups = {"all": [place for _, place in known]}
    for name, low, high in SIZES:
        groups[name] = [place for side, (_, place) in zip(sides, known, strict=True) if low <= side < high]
    for name in class_names(first.rows):
        groups[f"class {name}"] = [place for row, place in known if name in row.classes]
    counts = {name: [places.count(i) for i in range(len(OUTCOMES))] for name, places in groups.items() if places}
    return [Answers(name, tuple(numbers)) for name, numbers in counts.items()]
