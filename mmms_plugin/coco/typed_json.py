"""COCO files that are as they should be, read by a typed decoder, piece by piece; anything else is left to others.

Reading is most of the time of an evaluation. A decoder that knows the fields makes no dictionaries and skips what is
not asked for; in small pieces, only columns of numbers stay in memory. A file is cut where one object ends
and the next begins. A cut inside of a text or of a nested list leaves pieces that are not JSON, so that it is noticed.
Whatever is unusual gives None; the reader then takes the slow path, which finds the words for it.

Objects of numbers alone, which most files hold, are packed again as MessagePack: there a float has nine bytes and a
key its length, so that all objects are alike and NumPy views them as a table, in half the time of a loop over them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from mmms_plugin.coco.columns import Columns, within_bounds

PIECE = 1 << 16  # bytes; what the processor keeps at hand is decoded fastest
BETWEEN = re.compile(rb"\}\s*,\s*(?=\{)")
FAILURES = (msgspec.MsgspecError, RecursionError, ValueError, TypeError, OverflowError, OSError)
Box = tuple[float, float, float, float]


class _Image(msgspec.Struct, gc=False):
    id: int
    width: int | float | None = None
    height: int | float | None = None
    file_name: str | None = None
    coco_url: str | None = None
    neg_category_ids: list[int] | None = None
    not_exhaustive_category_ids: list[int] | None = None


class _Category(msgspec.Struct, gc=False):
    id: int
    name: str | None = None
    frequency: str | None = None


class _Annotation(msgspec.Struct, gc=False):
    id: int
    image_id: int
    category_id: int
    bbox: Box
    area: float
    iscrowd: int | bool | None = None


class _AnnotationWithMask(_Annotation, gc=False):
    segmentation: Any = None


class _Result(msgspec.Struct, gc=False):
    image_id: int | str
    category_id: int
    score: float
    bbox: Box


class _ResultWithMask(msgspec.Struct, gc=False):
    image_id: int | str
    category_id: int
    score: float
    segmentation: Any
    bbox: Box | None = None


class _PlainAnnotation(msgspec.Struct, gc=False):
    """All numbers are floats, which take any JSON number, and are packed with the same length."""

    id: float
    image_id: float
    category_id: float
    area: float
    iscrowd: float
    bbox: Box


class _PlainResult(msgspec.Struct, gc=False):
    image_id: float
    category_id: float
    score: float
    bbox: Box


class _File(msgspec.Struct):
    images: msgspec.Raw
    annotations: msgspec.Raw
    categories: msgspec.Raw


def quick_annotations(path: Path, masks: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Columns] | None:
    """Images, categories and objects of an annotation file without a flaw, else None."""
    try:
        if not path.is_file():  # a pipe can be read but once
            return None
        file = msgspec.json.decode(path.read_bytes(), type=_File)
        images = msgspec.to_builtins(msgspec.json.decode(file.images, type=list[_Image]))
        categories = msgspec.json.decode(file.categories, type=list[_Category])
        found = None if masks else _plain_columns(io.BytesIO(file.annotations), _PlainAnnotation)
        kind = _AnnotationWithMask if masks else _Annotation
        found = found or _columns(io.BytesIO(file.annotations), kind, masks)
    except FAILURES:
        return None
    named = [{"id": c.id, "name": c.id if c.name is None else c.name, "frequency": c.frequency} for c in categories]
    return None if found is None else (images, named, found)


def quick_results(path: Path, masks: bool) -> Columns | None:
    """The predictions of a result file without a flaw, else None."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            found = None if masks else _plain_columns(file, _PlainResult)
            file.seek(0)
            return found or _columns(file, _ResultWithMask if masks else _Result, masks)
    except FAILURES:
        return None


def _plain_columns(file: BinaryIO, kind: type[msgspec.Struct]) -> Columns | None:
    """The columns of a JSON list of objects of numbers; None where they are of another kind or out of bounds."""
    decoder, encoder = msgspec.json.Decoder(list[kind]), msgspec.msgpack.Encoder()  # type: ignore[valid-type]
    row = _packed_row(kind.__struct_fields__)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in kind.__struct_fields__}
    try:
        for piece in _pieces(file):
            records = decoder.decode(piece)
            packed = encoder.encode(records)
            table = np.frombuffer(packed, row, len(records), len(packed) - len(records) * row.itemsize)
            for name, part in parts.items():
                part.append(table[name]["value"].astype(np.float64))
        columns: dict[str, np.ndarray] = {name: np.concatenate(parts.pop(name)) for name in kind.__struct_fields__}
        for name in ("image_id", "category_id", "id"):
            if name in columns:
                columns[name] = _whole(columns[name])
        if "iscrowd" in columns:
            if not np.isin(columns["iscrowd"], (0, 1)).all():
                return None
            columns |= {"iscrowd": columns["iscrowd"] == 1, "has_iscrowd": np.ones(len(columns["iscrowd"]), bool)}
    except FAILURES:
        return None
    boxes = columns.pop("bbox").reshape(-1, 4)
    found = Columns(**columns, boxes=boxes, has_box=np.ones(len(boxes), bool), segmentations=None)
    return found if within_bounds(found) else None


def _packed_row(fields: tuple[str, ...]) -> np.dtype:
    """How MessagePack lays out an object: a byte before it, every text, list and number; numbers have eight more."""
    number = np.dtype({"names": ["value"], "formats": [">f8"], "offsets": [1], "itemsize": 9})
    offsets, end = [], 1
    for name in fields:
        begin = end + 1 + len(name) + (name == "bbox")
        offsets.append(begin)
        end = begin + (4 if name == "bbox" else 1) * number.itemsize
    formats: list[Any] = [(number, 4) if name == "bbox" else number for name in fields]
    return np.dtype({"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": end})


def _whole(values: np.ndarray) -> np.ndarray:
    """Floats as the integers that they are.

    Raises:
        ValueError: they are not, or so large that a float may stand for several.
    """
    if (np.abs(values) >= 2**53).any() or (values != np.rint(values)).any():
        raise ValueError("no integers")
    return values.astype(np.int64)


def _columns(file: BinaryIO, kind: type[msgspec.Struct], masks: bool) -> Columns | None:
    """The columns of a JSON list of objects; None where a value is out of bounds."""
    decoder = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]
    parts: list[dict[str, np.ndarray]] = []
    segmentations: list[Any] = []
    for piece in _pieces(file):
        records = decoder.decode(piece)
        parts.append(_part(records, kind.__struct_fields__, kind is _ResultWithMask))
        if masks:
            segmentations += map(attrgetter("segmentation"), records)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns = Columns(**joined, segmentations=segmentations if masks else None)
    return columns if within_bounds(columns) else None


def _part(records: list[Any], fields: tuple[str, ...], optional_boxes: bool) -> dict[str, np.ndarray]:
    part: dict[str, np.ndarray] = {
        name: _column(records, name) for name in ("image_id", "category_id", "id", "score", "area") if name in fields
    }
    if "iscrowd" in fields:
        flags = [record.iscrowd for record in records]
        if not set(flags) <= {None, 0, 1}:
            raise ValueError("iscrowd")
        part |= {"iscrowd": np.array(flags, bool), "has_iscrowd": np.array([flag is not None for flag in flags], bool)}
    boxes = list(map(attrgetter("bbox"), records))
    if optional_boxes and None in boxes:
        part["has_box"] = np.array([box is not None for box in boxes], bool)
        boxes = [box or (0.0, 0.0, 0.0, 0.0) for box in boxes]
    else:
        part["has_box"] = np.ones(len(records), bool)
    part["boxes"] = np.fromiter(chain.from_iterable(boxes), np.float64, 4 * len(records)).reshape(-1, 4)
    return part


def _column(records: list[Any], name: str) -> np.ndarray:
    kind = np.float64 if name in ("score", "area") else np.int64
    values = list(map(attrgetter(name), records))
    if name == "image_id" and str in set(map(type, values)):  # a file's name
        return np.array(values, object)
    return np.fromiter(values, kind, len(records))


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """A JSON list of objects as several such lists.

    Raises:
        ValueError: it is no list.
    """
    rest = file.read(PIECE).removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    if not rest.startswith(b"["):
        raise ValueError("no list")
    rest, whole = rest[1:], False
    while not whole:
        cut = _last_cut(rest)
        if cut is not None:
            yield b"[" + rest[: cut[0]] + b"]"
            rest = rest[cut[1] :]
        more = file.read(PIECE)
        rest, whole = rest + more, not more
    yield b"[" + rest


def _last_cut(data: bytes) -> tuple[int, int] | None:
    """Where the last object but one ends and the last one begins."""
    at = len(data)
    while (at := data.rfind(b"}", 0, at)) >= 0:
        found = BETWEEN.match(data, at)
        if found:
            return at + 1, found.end()
    return None
