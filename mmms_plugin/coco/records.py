"""COCO's records as types, and lists of them as NumPy columns: the one way from a JSON file to numbers.

A decoder that knows the fields makes no dictionaries and skips all others; read in small pieces, only the columns stay
in memory. A file that it refuses is read again as plain JSON, to name the place and the value.
"""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import msgspec
import numpy as np

from mmms_plugin.coco.json_files import (
    ANNOTATIONS_WANTED,
    BOM,
    PIECE,
    PREDICTIONS_WANTED,
    UNREAD,
    annotations_of,
    open_json,
    pieces,
    results_of,
    scored_annotations_of,
)
from mmms_plugin.coco.mending import FARTHEST, areas_of, as_id, crowds_of, ids_of, is_number
from mmms_plugin.coco.packed import annotation_columns, result_columns
from mmms_plugin.coco.run_lengths import RunLengths
from mmms_plugin.errors import UserError, counted, printable, shown

HIGHEST = 1e300  # of a score
SHOWN = 5  # ids in a message
BOX_NUMBER = f"a number within ±{FARTHEST:g} px"
ALLOWED = {
    "image_id": "an integer",
    "category_id": "an integer",
    "id": "an integer",
    "score": "a finite number",
    "bbox": "[x, y, width, height]",
}
Id = int | float  # JSON may spell an integer 4.0
Segmentation = TypeVar("Segmentation")  # anything, or in nearly all files one of:
USUAL = RunLengths | list[Any]


class Image(msgspec.Struct, gc=False):
    """A picture; fields other than ``id`` may hold anything."""

    id: Id
    width: Any = None
    height: Any = None
    file_name: Any = None
    coco_url: Any = None
    neg_category_ids: Any = None
    not_exhaustive_category_ids: Any = None


class Category(msgspec.Struct, gc=False):
    """A class of objects."""

    id: Id
    name: Any = None
    frequency: Any = None


class _Annotation(msgspec.Struct, gc=False):
    """An object; what can be mended may hold anything."""

    image_id: Id
    category_id: Id
    bbox: tuple[float, float, float, float] | None = None
    id: Any = None
    area: Any = None
    iscrowd: Any = None
    stated_score: Any = msgspec.field(name="score", default=None)  # of what may be predictions


class _AnnotationWithMask(_Annotation, Generic[Segmentation], gc=False):
    segmentation: Segmentation | None = None


class _Result(msgspec.Struct, gc=False):
    image_id: Id | str  # a file's name
    category_id: Id | str  # a class's name
    score: float
    bbox: tuple[float, float, float, float] | None = None


class _ResultWithMask(_Result, Generic[Segmentation], gc=False):
    segmentation: Segmentation | None = None


class _OwnResult(msgspec.Struct, gc=False):
    """A result in a file with images and categories of its own, whose ids are numbers."""

    image_id: Id
    category_id: Id
    score: float
    bbox: tuple[float, float, float, float] | None = None


class _OwnResultWithMask(_OwnResult, Generic[Segmentation], gc=False):
    segmentation: Segmentation | None = None


class _NamedResult(_Result, gc=False):
    file_name: Any = None
    category_name: Any = None


class _NamedResultWithMask(_NamedResult, Generic[Segmentation], gc=False):
    segmentation: Segmentation | None = None


RESULTS = {  # by whether masks are read, and whether results may have names beside their ids
    (False, False): _Result,
    (True, False): _ResultWithMask,
    (False, True): _NamedResult,
    (True, True): _NamedResultWithMask,
}
BESIDE = ("file_name", "category_name")
FAST = {_Result: result_columns, _OwnResult: result_columns, _Annotation: annotation_columns}


class _File(msgspec.Struct):
    images: list[Image]
    categories: list[Category]
    annotations: msgspec.Raw
    info: Any = None


@dataclass(frozen=True)
class Columns:
    """Annotations or results as columns.

    Attributes:
        image_id: ``(n,)`` int64; of results perhaps names of files, ``(n,)`` object.
        category_id: ``(n,)`` int64; of results perhaps names of classes, ``(n,)`` object.
        boxes: ``(n, 4)`` float64 x y width height in px, zeros where absent.
        has_box: ``(n,)`` bool.
        segmentations: as in the file, RLEs mostly as `RunLengths`; or None if they were not read.
        score: ``(n,)`` float64, of results.
        id: ``(n,)`` int64, of annotations; 0 if absent or not an integer.
        has_id: ``(n,)`` bool, of annotations: whether the file has an integer there.
        area: ``(n,)`` float64 in px², of annotations; NaN where it is not a number.
        iscrowd: ``(n,)`` bool, of annotations.
        has_iscrowd: ``(n,)`` bool, whether the file states it as 0 or 1.
        has_score: ``(n,)`` bool, of annotations: whether they have a score, as predictions do.
        beside: names that results have beside their ids, by the names of `BESIDE`; any value, None if absent.
        instead: ``(n,)`` int64, ids that the file states too and that contradict the ones that are used, by their key.
    """

    image_id: np.ndarray
    category_id: np.ndarray
    boxes: np.ndarray
    has_box: np.ndarray
    segmentations: Sequence[Any] | None
    score: np.ndarray = field(default_factory=lambda: np.zeros(0))
    id: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    has_id: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    area: np.ndarray = field(default_factory=lambda: np.zeros(0))
    iscrowd: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    has_iscrowd: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    has_score: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    beside: dict[str, list[Any]] = field(default_factory=dict)
    instead: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.image_id)

    def results_at(self, places: np.ndarray) -> Columns:
        """Some of the results, in the order of ``places``."""
        names = ("image_id", "category_id", "boxes", "has_box", "score")
        at = places.tolist()
        lists = {name: [values[i] for i in at] for name, values in self.beside.items()}
        masks = None if self.segmentations is None else [self.segmentations[i] for i in at]
        chosen = {name: getattr(self, name)[places] for name in names}
        others = {key: ids[places] for key, ids in self.instead.items()}
        return replace(self, **chosen, segmentations=masks, beside=lists, instead=others)


def read_annotations(path: Path, argument: str, masks: bool) -> tuple[list[Image], list[Category], Columns]:
    """Images, categories and objects of an annotation file.

    Args:
        path: the file.
        argument: the option that names it, for messages.
        masks: read the segmentations; else only if a box or an area has to be taken from one.

    Raises:
        UserError: another kind of file, or a value that cannot be used, named with its place.
    """
    where, kind = f"{argument} {path}", _AnnotationWithMask if masks else _Annotation
    with open_json(path, argument, ANNOTATIONS_WANTED) as source:
        data = source.read()
    try:
        file = msgspec.json.decode(data.removeprefix(BOM), type=_File)
        images, categories = file.images, file.categories
        columns = _columns(_parts(io.BytesIO(file.annotations), kind), kind, f"{where}: annotations")
    except UNREAD:
        content = annotations_of(data, where)
        refuse_nothing(content["images"], content["categories"], where)
        images = _converted(content["images"], Image, f"{where}: images")
        categories = _converted(content["categories"], Category, f"{where}: categories")
        records = _converted(content["annotations"], kind, f"{where}: annotations")
        columns = _columns([records], kind, f"{where}: annotations")
    if not masks and not (columns.has_box.all() and (columns.area > 0).all()):
        return read_annotations(path, argument, True)
    return images, categories, columns


@dataclass(frozen=True)
class Results:
    """The predictions of a file, and its own lists of images and categories, None for a plain list of results.

    Attributes:
        least_score: lower ones are not in the file; 0 if it does not say so.
    """

    columns: Columns
    images: list[Image] | None = None
    categories: list[Category] | None = None
    least_score: float = 0.0


def read_results(path: Path, argument: str, masks: bool) -> Results:
    """The predictions of a result file, or of an annotation file with scores.

    ``path``, ``argument`` and ``masks`` are as of `read_annotations`.

    Raises:
        UserError: another kind of file, or a value that cannot be used, named with its place.
    """
    where = f"{argument} {path}"
    with open_json(path, argument, PREDICTIONS_WANTED) as file:
        head = file.read(PIECE)
        file.seek(0)
        kind = RESULTS[masks, any(f'"{name}"'.encode() in head for name in BESIDE)]
        if head.removeprefix(BOM).lstrip().startswith(b"{"):
            results = _results_with_images(file.read(), _OwnResultWithMask if masks else _OwnResult, where)
        else:
            results = Results(_listed_results(file, kind, where))
    return results if masks or results.columns.has_box.all() else read_results(path, argument, True)


def _listed_results(file: BinaryIO, kind: type[msgspec.Struct], where: str) -> Columns:
    try:
        return _columns(_parts(file, kind), kind, f"{where}: ")
    except UNREAD:
        file.seek(0)
        return _columns([_converted(results_of(file.read(), where), kind, f"{where}: ")], kind, f"{where}: ")


def _results_with_images(data: bytes, kind: type[msgspec.Struct], where: str) -> Results:
    """From an object with images, categories, and results as annotations, such as ``mmms predict`` writes."""
    try:
        file = msgspec.json.decode(data.removeprefix(BOM), type=_File)
        images, categories, info = file.images, file.categories, file.info
        columns = _columns(_parts(io.BytesIO(file.annotations), kind), kind, f"{where}: annotations")
    except UNREAD:
        content = scored_annotations_of(data, where)
        images = _converted(content["images"], Image, f"{where}: images")
        categories = _converted(content["categories"], Category, f"{where}: categories")
        records = _converted(content["annotations"], kind, f"{where}: annotations")
        columns, info = _columns([records], kind, f"{where}: annotations"), content.get("info")
    least: Any = info.get("least_score") if isinstance(info, dict) else None
    return Results(columns, images, categories, float(least) if is_number(least) and 0 < least <= 1 else 0.0)


def _parts(file: BinaryIO, kind: type[msgspec.Struct]) -> Iterator[list[Any] | dict[str, np.ndarray]]:
    """A JSON list, some of its records at a time: as columns while they are in the usual spelling, else as records.

    Raises:
        msgspec.MsgspecError: one does not fit, or has an unusual segmentation.
    """
    usual: Any = kind[USUAL] if "segmentation" in kind.__struct_fields__ else kind  # type: ignore[index]
    decode, fast = msgspec.json.Decoder(list[usual]).decode, FAST.get(kind)
    for piece in pieces(file):
        columns = fast(piece) if fast else None
        if columns is None:
            fast = None  # the next records are probably spelled as these
        yield decode(piece) if columns is None else columns


def image_and_category_ids(
    images: Sequence[Image], categories: Sequence[Category], where: str
) -> tuple[np.ndarray, np.ndarray]:
    """The ids of all images and of all categories: int64.

    Raises:
        UserError: one is not an integer, or is used twice.
    """
    ids = []
    for name, what, records in (("images", "image", images), ("categories", "category", categories)):
        column = _ids(records, "id", f"{where}: {name}", 0)
        values, counts = np.unique(column, return_counts=True)
        twice = values[counts > 1]
        if len(twice):
            raise UserError(
                f"{where}: {counted(len(twice), f'{what} id')} used more than once ({few(twice)}); each must be unique"
            )
        ids.append(column)
    return ids[0], ids[1]


def few(values: Sequence[Any] | np.ndarray) -> str:
    """The first of some ids or names, for a message."""
    listed = ", ".join(printable(str(value)) for value in list(values)[:SHOWN])
    return f"{listed}, ..." if len(values) > SHOWN else listed


def refuse_nothing(images: Sequence[Any], categories: Sequence[Any], where: str) -> None:
    """Raise a UserError if a data set has no images or no categories."""
    if not images or not categories:
        raise UserError(f"{where}: no {'categories' if images else 'images'}; there is nothing to evaluate")


def _converted(values: list[Any], kind: type[msgspec.Struct], where: str) -> list[Any]:
    """Records from plain JSON.

    Raises:
        UserError: a value does not fit; its place and the value.
    """
    fields = set(kind.__struct_encode_fields__)  # alone: of other keys, halves of surrogate pairs cannot be compared
    values = [
        {key: item for key, item in value.items() if key in fields and not (key == "bbox" and item == [])}
        if isinstance(value, dict)
        else value
        for value in values
    ]
    try:
        return msgspec.convert(values, list[kind])  # type: ignore[valid-type]
    except UnicodeEncodeError:  # half of a surrogate pair where a number belongs
        encoded = json.dumps(values, ensure_ascii=False).encode(errors="replace")
        return _converted(json.loads(encoded), kind, where)
    except msgspec.ValidationError as error:
        message, _, path = str(error).rstrip("`").partition(" - at `$")
        value: Any = values
        for key, place in re.findall(r"\.(\w+)|\[(\d+)\]", path):
            value = value[key] if key else value[int(place)]
        absent = re.search(r"missing required field `(\w+)`", message)
        if absent:
            allowed = ALLOWED[absent[1]]
            raise UserError(f"{where}{path}: no {absent[1]}; it must be {allowed}") from None
        key = re.search(r"\.(\w+)(\[\d+\])?$", path)
        allowed = BOX_NUMBER if key and key[2] else ALLOWED[key[1]] if key else "an object"
        raise _wrong(f"{where}{path}", value, allowed) from None


def _wrong(place: str, value: Any, allowed: str) -> UserError:
    return UserError(f"{place}: {shown(value)}; allowed is {allowed}")


def _columns(parts: Iterable[list[Any] | dict[str, np.ndarray]], kind: type[msgspec.Struct], where: str) -> Columns:
    """Records as columns, piece by piece.

    Raises:
        UserError: a value out of bounds; its place and the value.
    """
    joined: dict[str, list[Any]] = {}
    lists: dict[str, list[Any]] = {name: [] for name in ("segmentation", *BESIDE) if name in kind.__struct_fields__}
    start = 0
    for records in parts:
        part = records if isinstance(records, dict) else _part(records, kind.__struct_fields__, where, start)
        for name, column in part.items():
            joined.setdefault(name, []).append(column)
        for name, values in lists.items():
            values += map(attrgetter(name), records)
        start += len(part["image_id"])
    whole: dict[str, Any] = {name: np.concatenate(joined.pop(name)) for name in list(joined)}
    columns = Columns(
        **whole,
        segmentations=lists.pop("segmentation", None),
        beside=lists,
    )
    _check_bounds(columns, where)
    return columns


def _check_bounds(columns: Columns, where: str) -> None:
    size = "a width and a height of at least 0: boxes are [x, y, width, height]"
    for name, values, first, low, high, allowed in (
        (".bbox", columns.boxes, 0, -FARTHEST, FARTHEST, BOX_NUMBER),
        (".bbox", columns.boxes[:, 2:], 2, 0.0, FARTHEST, size),
        (".score", columns.score[:, None], None, -HIGHEST, HIGHEST, ALLOWED["score"]),
    ):
        # minimum and maximum of a column with NaN are NaN, which is out of bounds
        if not (low <= values.min(initial=high) and values.max(initial=low) <= high):
            i, k = np.argwhere(~((low <= values) & (values <= high)))[0].tolist()
            place = f"{where}[{i}]{name}" + (f"[{k + first}]" if first is not None else "")
            raise _wrong(place, values[i, k].item(), allowed)


def _part(records: list[Any], fields: Sequence[str], where: str, start: int) -> dict[str, np.ndarray]:
    """The columns of one piece, whose first record is number ``start`` of the file."""
    part = {name: _ids(records, name, where, start) for name in ("image_id", "category_id")}
    part["boxes"], part["has_box"] = _boxes(list(map(attrgetter("bbox"), records)))
    if "score" in fields:
        part["score"] = np.fromiter(map(attrgetter("score"), records), np.float64, len(records))
    else:
        values = [record.id for record in records]
        part["id"] = ids_of(values)
        part["has_id"] = part["id"] != 0
        for i in np.flatnonzero(~part["has_id"]).tolist():
            part["has_id"][i] = as_id(values[i]) is not None
        part["area"] = areas_of([record.area for record in records])
        part["iscrowd"], part["has_iscrowd"] = crowds_of([record.iscrowd for record in records])
        part["has_score"] = np.array([record.stated_score is not None for record in records], bool)
    return part


def _ids(records: Sequence[Any], name: str, where: str, start: int) -> np.ndarray:
    """Ids as int64, or as objects if any is the name of a file."""
    values = list(map(attrgetter(name), records))
    try:
        return np.frombuffer(struct.pack(f"{len(values)}q", *values), np.int64)
    except struct.error:  # a text, a fraction, or more than 64 bits
        pass
    if any(isinstance(value, str) for value in values):
        return np.array(values, object)
    ids = [as_id(value) for value in values]
    if None in ids:
        i = ids.index(None)
        raise _wrong(f"{where}[{start + i}].{name}", values[i], ALLOWED[name])
    return np.array(ids, np.int64)


def _boxes(boxes: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes, zeros where absent, and which are present."""
    try:
        values = np.fromiter(chain.from_iterable(boxes), np.float64, 4 * len(boxes)).reshape(-1, 4)
        return values, np.ones(len(boxes), bool)
    except TypeError:  # None
        values, _ = _boxes([box or (0.0,) * 4 for box in boxes])
        return values, np.array([box is not None for box in boxes], bool)
