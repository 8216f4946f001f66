"""Lists of COCO records to NumPy columns, quickly, naming the first record that does not fit.

The quick path builds a column in one go; only when that fails are the records looked at one by one for the message.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmms_plugin.errors import UserError

Records = Sequence[Mapping[str, Any]]
HIGHEST = 1e300  # of a score
SHOWN = 5  # ids in a message
FARTHEST = 1e9  # px, of a box's numbers: beyond any picture, and squares of it are still plain numbers


@dataclass(frozen=True)
class Columns:
    """COCO annotations or results as columns.

    Attributes:
        image_id, category_id: (n,) int64; ``image_id`` of results may hold names of files (n,) object.
        boxes: (n, 4) float64 x y width height, zeros where absent. has_box: (n,) bool.
        segmentations: as in the file, or None where nobody needs them.
        score: (n,) float64, of results. id, area, iscrowd: of annotations; area is NaN where absent.
        has_iscrowd: (n,) bool, whether the file says.
    """

    image_id: np.ndarray
    category_id: np.ndarray
    boxes: np.ndarray
    has_box: np.ndarray
    segmentations: Sequence[Any] | None
    score: np.ndarray = field(default_factory=lambda: np.zeros(0))
    id: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    area: np.ndarray = field(default_factory=lambda: np.zeros(0))
    iscrowd: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    has_iscrowd: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def __len__(self) -> int:
        return len(self.image_id)


def within_bounds(columns: Columns) -> bool:
    """Whether all numbers are what the messages below allow."""
    bounds = (
        (columns.boxes, -FARTHEST, FARTHEST),
        (columns.boxes[:, 2:], 0.0, FARTHEST),
        (columns.score, -HIGHEST, HIGHEST),
        (columns.area, 0.0, FARTHEST**2),
    )
    # least and most of a column with NaN are NaN, which is within no bounds
    return all(low <= values.min(initial=high) and values.max(initial=low) <= high for values, low, high in bounds)


def annotation_columns(records: Records, where: str) -> Columns:
    """Annotations as columns.

    Raises:
        UserError: the first that does not fit, named.
    """
    absent = np.array([r.get("area") is None for r in records], bool)
    area = np.full(len(records), np.nan)
    area[~absent] = areas([r for r, a in zip(records, absent, strict=True) if not a], where)
    return Columns(
        integers(records, "image_id", where),
        integers(records, "category_id", where),
        *_present_boxes(records, where),
        segmentations=[r.get("segmentation") for r in records],
        id=integers(records, "id", where),
        area=area,
        iscrowd=flags(records, "iscrowd", where),
        has_iscrowd=np.array([r.get("iscrowd") is not None for r in records], bool),
    )


def result_columns(records: Records, where: str) -> Columns:
    """Results as columns.

    Raises:
        UserError: the first that does not fit, named.
    """
    named = any(isinstance(r.get("image_id"), str) for r in records)
    fits = [r for r in records if not isinstance(r.get("image_id"), str)]
    numbered = integers(fits, "image_id", where)
    return Columns(
        np.array([r["image_id"] for r in records], object) if named else numbered,
        integers(records, "category_id", where),
        *_present_boxes(records, where),
        segmentations=[r.get("segmentation") for r in records],
        score=numbers(records, "score", where),
    )


def _present_boxes(records: Records, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Boxes, zeros where absent, and where they are present."""
    present = np.array([bool(r.get("bbox")) for r in records], bool)
    if present.all():
        return boxes(records, where), present
    bare = [i for i in np.flatnonzero(~present).tolist() if not records[i].get("segmentation")]
    if bare:
        raise UserError(f"{where} {bare[0]}: neither bbox nor segmentation ({len(bare)} of {len(records)} lack both)")
    found = np.zeros((len(records), 4))
    found[present] = boxes([r for r, p in zip(records, present, strict=True) if p], where)
    return found, present


def integers(records: Records, key: str, where: str) -> np.ndarray:
    """Each record's ``key`` as an integer: (n,) int64.

    Raises:
        UserError: a record without the key, or without an integer in it.
    """
    try:
        column = np.array([r[key] for r in records])
    except (KeyError, TypeError, ValueError):
        raise _first_bad(records, key, _is_id, where, "an integer") from None
    if column.dtype.kind == "i" and column.ndim == 1:
        return column.astype(np.int64)
    if not all(_is_id(r[key]) for r in records):
        raise _first_bad(records, key, _is_id, where, "an integer")
    return np.array([int(r[key]) for r in records], np.int64)  # one 1.0 makes floats of all, which round from 2^53 on


def numbers(records: Records, key: str, where: str) -> np.ndarray:
    """Each record's ``key`` as a finite number: (n,) float64.

    Raises:
        UserError: a record without the key, or with NaN, infinity or no number in it.
    """
    return _column(records, key, where, _is_number, "a finite number")


def areas(records: Records, where: str) -> np.ndarray:
    """Each record's ``area`` in px²: (n,) float64.

    Raises:
        UserError: a record without it, or with a negative or absurdly large one.
    """
    return _column(records, "area", where, _is_area, f"a number of px² from 0 to {FARTHEST**2:g}")


def flags(records: Records, key: str, where: str) -> np.ndarray:
    """Each record's ``key`` as true or false, absent ones false: (n,) bool.

    Raises:
        UserError: a record with anything but 0, 1, true, false or null in it.
    """
    values = [r.get(key) or 0 for r in records]
    wrong = next((i for i, value in enumerate(values) if not (value is True or value == 0 or value == 1)), None)
    if wrong is not None:
        raise UserError(f"{where} {wrong}: {key} {brief(records[wrong][key])}; allowed are 0 and 1")
    return np.array(values, bool)


def _column(records: Records, key: str, where: str, fits: Callable[[Any], bool], allowed: str) -> np.ndarray:
    try:
        column = _floats([r[key] for r in records])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise _first_bad(records, key, fits, where, allowed) from None
    if column.shape != (len(records),) or not all(map(fits, column.tolist())):
        raise _first_bad(records, key, fits, where, allowed)
    return column


def boxes(records: Records, where: str) -> np.ndarray:
    """Each record's ``bbox``: (n, 4) float64, x y width height in px.

    Raises:
        UserError: a record without four finite numbers there, or with a negative width or height.
    """
    allowed = f"[x, y, width, height], numbers within ±{FARTHEST:g} px"
    if not records:
        return np.zeros((0, 4))
    try:
        columns = _floats([r["bbox"] for r in records]).reshape(len(records), -1)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise _first_bad(records, "bbox", _is_box, where, allowed) from None
    if columns.shape[1] != 4 or not (np.abs(columns) <= FARTHEST).all():  # nor NaN
        raise _first_bad(records, "bbox", _is_box, where, allowed)
    negative = np.flatnonzero((columns[:, 2:] < 0).any(1))
    if negative.size:
        first = negative[0]
        raise UserError(
            f"{where} {first}: bbox {records[first]['bbox']} has a negative width or height ({negative.size} of "
            f"{len(records)} have); boxes are [x, y, width, height]"
        )
    return columns


def shown(values: Sequence[Any] | np.ndarray) -> str:
    """The first few of some ids, for a message."""
    listed = ", ".join(str(value) for value in list(values)[:SHOWN])
    return f"{listed}, ..." if len(values) > SHOWN else listed


def brief(value: Any, longest: int = 60) -> str:
    """A JSON value as a message shows it, however deep or long it is."""
    return (value if isinstance(value, str) else reprlib.repr(value))[:longest]


def _floats(values: list[Any]) -> np.ndarray:
    """Numbers as float64; NumPy would also read them out of text."""
    column = np.array(values)
    if column.dtype.kind in "US":
        raise ValueError("text among the numbers")
    return column.astype(np.float64)


def _first_bad(records: Records, key: str, fits: Callable[[Any], bool], where: str, allowed: str) -> UserError:
    absent = [i for i, record in enumerate(records) if key not in record]
    if absent:
        return UserError(
            f"{where} {absent[0]}: no {key} ({len(absent)} of {len(records)} lack it); it must be {allowed}"
        )
    bad = [i for i, record in enumerate(records) if not fits(record[key])]
    value = brief(records[bad[0]][key])
    return UserError(f"{where} {bad[0]}: {key} {value} ({len(bad)} of {len(records)} are wrong); allowed is {allowed}")


def _is_id(value: Any) -> bool:
    return isinstance(value, int | float) and value == value // 1 and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < HIGHEST


def _is_area(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= FARTHEST**2


def _is_box(value: Any) -> bool:
    return (
        isinstance(value, list | tuple) and len(value) == 4 and all(_is_number(v) and abs(v) <= FARTHEST for v in value)
    )
