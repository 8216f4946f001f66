"""Lists of COCO records to NumPy columns, quickly, naming the first record that does not fit.

The quick path builds a column in one go; only when that fails are the records looked at one by one for the message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmms_plugin.errors import UserError

Records = Sequence[Mapping[str, Any]]
SHOWN = 5  # ids in a message


def integers(records: Records, key: str, where: str) -> np.ndarray:
    """Each record's ``key`` as an integer: (n,) int64.

    Raises:
        UserError: a record without the key, or without an integer in it.
    """
    try:
        column = np.array([r[key] for r in records])
    except (KeyError, TypeError, ValueError):
        raise _first_bad(records, key, _is_id, where, "an integer") from None
    plain = column.dtype.kind == "i" and column.ndim == 1
    if not plain and not all(_is_id(r[key]) for r in records):
        raise _first_bad(records, key, _is_id, where, "an integer")
    return column.astype(np.int64)


def numbers(records: Records, key: str, where: str) -> np.ndarray:
    """Each record's ``key`` as a finite number: (n,) float64.

    Raises:
        UserError: a record without the key, or with NaN, infinity or no number in it.
    """
    try:
        column = _floats([r[key] for r in records])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise _first_bad(records, key, _is_number, where, "a finite number") from None
    if column.shape != (len(records),) or not np.isfinite(column).all():
        raise _first_bad(records, key, _is_number, where, "a finite number")
    return column


def boxes(records: Records, where: str) -> np.ndarray:
    """Each record's ``bbox``: (n, 4) float64, x y width height in px.

    Raises:
        UserError: a record without four finite numbers there, or with a negative width or height.
    """
    allowed = "[x, y, width, height], finite numbers"
    if not records:
        return np.zeros((0, 4))
    try:
        columns = _floats([r["bbox"] for r in records]).reshape(len(records), -1)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise _first_bad(records, "bbox", _is_box, where, allowed) from None
    if columns.shape[1] != 4 or not np.isfinite(columns).all():
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
    value = str(records[bad[0]][key])[:60]
    return UserError(f"{where} {bad[0]}: {key} {value} ({len(bad)} of {len(records)} are wrong); allowed is {allowed}")


def _is_id(value: Any) -> bool:
    return isinstance(value, int | float) and value == value // 1 and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e300


def _is_box(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 4 and all(_is_number(number) for number in value)
