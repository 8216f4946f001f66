"""JSON records of numbers as columns, by way of MessagePack.

To take numbers out of Python objects one by one takes as long as to parse them. msgspec writes them as MessagePack in a
fraction of that time, and there every record has the same length, so that NumPy reads them as columns.

Only records in the usual spelling are read so: all fields are there, and ids are integers that a float64 holds.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
import numpy as np

from mmms_plugin.coco.json_files import UNREAD

EXACT = 2.0**53  # integers below it are float64
FEW, MANY = 1 << 4, 1 << 16  # records of a list whose header has 1 byte, 3 bytes
Box = tuple[float, float, float, float]
_pack = msgspec.msgpack.Encoder().encode
# a byte with the type or length stands before every value (https://msgpack.org)
_NUMBER = np.dtype([("type", "u1"), ("value", ">f8")])
_FORMS: dict[Any, Any] = {
    float: _NUMBER,
    Box: [("type", "u1"), ("values", _NUMBER, 4)],
    int: "u1",  # below 128, which is its own type
    type(None): "u1",
}


class _Result(msgspec.Struct, gc=False):
    image_id: float
    category_id: float
    bbox: Box
    score: float


class _Annotation(msgspec.Struct, gc=False):
    image_id: float
    category_id: float
    bbox: Box
    id: float
    area: float
    iscrowd: int
    score: None = None


@cache
def _reader(kind: type[msgspec.Struct]) -> tuple[Any, np.dtype]:
    """The decoder of a JSON list of such records, and the type of a packed one."""
    fields: list[Any] = [("type", "u1")]
    for field in msgspec.structs.fields(kind):
        fields += [(f"{field.name}, the name", "u1", 1 + len(field.name)), (field.name, _FORMS[field.type])]
    return msgspec.json.Decoder(list[kind]).decode, np.dtype(fields)  # type: ignore[valid-type]


def _table(piece: bytes, kind: type[msgspec.Struct]) -> np.ndarray | None:
    """A JSON list as a structured array; None if a record is spelled in another way."""
    decode, record = _reader(kind)
    try:
        records = decode(piece)
    except UNREAD:
        return None
    packed = _pack(records)
    header = 1 if len(records) < FEW else 3
    if len(records) >= MANY or len(packed) != header + len(records) * record.itemsize:  # an integer is above 127
        return None
    return np.frombuffer(packed, record, offset=header)


def result_columns(piece: bytes) -> dict[str, np.ndarray] | None:
    """Image and category ids, boxes and scores of a JSON list of results; None if one is not in the usual spelling."""
    table = _table(piece, _Result)
    ids = None if table is None else _ids(table, "image_id", "category_id")
    if table is None or ids is None:
        return None
    return ids | _boxes(table) | {"score": table["score"]["value"].astype(np.float64)}


def annotation_columns(piece: bytes) -> dict[str, np.ndarray] | None:
    """The columns of a JSON list of annotations without scores; None if one is not in the usual spelling."""
    table = _table(piece, _Annotation)
    ids = None if table is None else _ids(table, "image_id", "category_id", "id")
    if table is None or ids is None or table["iscrowd"].max(initial=0) > 1:
        return None
    every, none = np.ones(len(table), bool), np.zeros(len(table), bool)
    return ids | _boxes(table) | {
        "has_id": every,
        "area": table["area"]["value"].astype(np.float64),
        "iscrowd": table["iscrowd"] == 1,
        "has_iscrowd": every,
        "has_score": none,
    }  # fmt: skip


def _boxes(table: np.ndarray) -> dict[str, np.ndarray]:
    return {"boxes": table["bbox"]["values"]["value"].astype(np.float64), "has_box": np.ones(len(table), bool)}


def _ids(table: np.ndarray, *names: str) -> dict[str, np.ndarray] | None:
    """Columns of ids as int64; None if one is a fraction or too large to be exact."""
    columns = {}
    for name in names:
        values = table[name]["value"].astype(np.float64)
        if not np.abs(values).max(initial=0) < EXACT:
            return None
        columns[name] = values.astype(np.int64)
        if not (columns[name] == values).all():
            return None
    return columns
