"""What groups of pictures have in common: Figures 5 and 6 of ELASTIC.

Averages by class and by object size, a map of all pictures by their policy, and where two networks differ: pictures
that one gets right and the other wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.scale.policy.table import Row, Table, class_names

SIZES = (("small", 0.0, 32.0), ("medium", 32.0, 96.0), ("large", 96.0, np.inf))  # COCO's, side in px
FEWEST = 3  # pictures that a correlation needs
OUTCOMES = ("both right", "only first right", "only second right", "both wrong")


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
