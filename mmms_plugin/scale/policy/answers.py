"""Where two networks differ: pictures that one gets right and the other wrong (ELASTIC, Figure 6, right)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mmms_plugin.scale.policy.summary import SIZES
from mmms_plugin.scale.policy.table import Row, Table, class_names

OUTCOMES = ("both right", "only first right", "only second right", "both wrong")


@dataclass(frozen=True)
class Answers:
    """Of a group of pictures: how many have each of the `OUTCOMES`."""

    name: str
    counts: tuple[int, int, int, int]


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
    known = [(row, found) for row, found in pairs if found is not None]
    groups: list[tuple[str, Callable[[Row], bool]]] = [("all", lambda row: True)]
    groups += [(name, _within(low, high)) for name, low, high in SIZES]
    groups += [(f"class {name}", _shows(name)) for name in class_names(first.rows)]
    counted = [(name, [found for row, found in known if belongs(row)]) for name, belongs in groups]
    return [Answers(name, _counts(found)) for name, found in counted if found]


def _within(low: float, high: float) -> Callable[[Row], bool]:
    return lambda row: bool(row.sides) and low <= float(np.median(row.sides)) < high


def _shows(name: str) -> Callable[[Row], bool]:
    return lambda row: name in row.classes


def _counts(found: list[int]) -> tuple[int, int, int, int]:
    return found.count(0), found.count(1), found.count(2), found.count(3)
