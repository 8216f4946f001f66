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

SIZES = (("small", 0.0, 32.0), ("medium", 32.0, 96.0), ("large", 96.0, np.inf))  # COCO's, side in px
FEWEST = 3  # pictures that a correlation needs
OUTCOMES = ("both right", "only first right", "only second right", "both wrong")


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


@dataclass(frozen=True)
class Group:
    """Pictures that have something in common: their number, mean overall score, and mean score of every block."""

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
    """Pictures by the median side of their objects; groups without pictures are left out."""
    known = [(row, float(np.median(row.sides))) for row in table.rows if row.sides]
    groups = ((name, [row for row, side in known if low <= side < high]) for name, low, high in SIZES)
    return [_group(name, rows) for name, rows in groups if rows]


def _group(name: str, rows: list[Row]) -> Group:
    blocks = np.array([row.values for row in rows]).mean(0)
    return Group(name, len(rows), float(blocks.mean()), tuple(blocks.tolist()))


def size_correlations(table: Table) -> list[float] | None:
    """Pearson's r of every column with log2 of the median object side; None for fewer than three such pictures.

    A column or a side that is the same everywhere has 0.
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
    """Every picture, of two or more, as a point of the plane, ``[pictures, 2]``, by t-SNE; and how, in words.

    Columns are brought to mean 0 and variance 1 first, since activations differ in size from block to block.
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
    """Of a group of pictures: how many have each of the `OUTCOMES`."""

    name: str
    counts: tuple[int, ...]


def outcome(first: Row, second: Row) -> int | None:
    """Place in `OUTCOMES`; None where one of the answers is not known to be right or wrong."""
    if first.right is None or second.right is None:
        return None
    return (0 if second.right else 1) if first.right else (2 if second.right else 3)


def compare_answers(first: Table, second: Table) -> list[Answers]:
    """Of all pictures that both tables have, then by the median side of their objects, then by class.

    Groups without pictures whose answers are known are left out.
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
