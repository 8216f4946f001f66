"""Opening and decoding COCO annotation and result files; any other kind of file is named.

Formats: https://cocodataset.org/#format-data and https://cocodataset.org/#format-results.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from mmms_plugin.coco.text_files import bytes_of
from mmms_plugin.errors import UserError
from mmms_plugin.files import what_else

PREDICTIONS_WANTED = (
    "a COCO result file is wanted: a JSON list of {image_id, category_id, bbox or segmentation, score}, or an object "
    "with images, categories and such a list as annotations"
)
ANNOTATIONS_WANTED = "a COCO annotation file is wanted: a JSON object with images, annotations and categories"
PIPE = "a named pipe"
PIECE = 1 << 18  # bytes; decoding is fastest within the processor's cache
BETWEEN = re.compile(rb"\}\s*,\s*(?=\{)")
BOM = b"\xef\xbb\xbf"
T = TypeVar("T")
UNREAD = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)  # what the typed decoder raises
_NOUNS = {
    "int": "an integer", "float": "a number", "str": "a text", "bool": "true or false", "array": "a list",
    "object": "an object",
}  # fmt: skip
_PHRASES = {"Expected ": "must be ", ", got ": ", not ", " | ": " or ", "Object missing required field": "has no"}
_LOG_KEYS = {"loss", "lr", "base_lr", "epoch", "iter", "step", "data_time", "time"}  # mmengine's, mmcv's scalars


def open_json(path: str | Path, argument: str, wanted: str) -> BinaryIO:
    """A file that can be read more than once; a pipe is read into memory.

    Raises:
        UserError: it cannot be opened.
    """
    try:
        if (other := what_else(path)) and other != PIPE:  # a device such as /dev/zero has no end
            raise UserError(f"{argument} {path}: {other}, not a file; {wanted}")
        file = Path(path).open("rb")  # noqa: SIM115  (the caller closes it)
        return file if file.seekable() else io.BytesIO(file.read())
    except FileNotFoundError:
        raise UserError(f"{argument} {path}: no such file") from None
    except OSError as error:
        raise UserError(f"{argument} {path}: cannot be read ({error.strerror})") from None


def read_typed(path: str | Path, argument: str, kind: type[T], wanted: str) -> T:
    """A JSON file of this package as a dataclass or msgspec structure; further keys are ignored.

    Args:
        path: the file.
        argument: what names it, for messages.
        kind: the type; its bounds (`msgspec.Meta`) are checked.
        wanted: the kind of file that is wanted, or what to do about another one, for messages.

    Raises:
        UserError: missing, not JSON, or a value of another type or out of bounds; its place and what is allowed.
    """
    content = decode_json(bytes_of(Path(path), argument), f"{argument} {path}", wanted)
    try:
        return msgspec.convert(content, kind)
    except UnicodeEncodeError:
        raise UserError(f"{argument} {path}: holds half of a surrogate pair; {wanted}") from None
    except msgspec.ValidationError as error:
        message, _, place = str(error).rstrip("`").partition(" - at `$")
        message = re.sub(
            r"\b(int|float|str|bool|array|object)\b", lambda word: _NOUNS[word[0]], message.replace("`", "")
        )
        for phrase, ours in _PHRASES.items():
            message = message.replace(phrase, ours)
        raise UserError(
            f"{argument} {path}: {place.lstrip('.') or 'the content'}: {message.removesuffix('.0')}; {wanted}"
        ) from None


def load_annotations(path: str | Path, argument: str = "--ann") -> dict[str, Any]:
    """The content of a COCO annotation file.

    Args:
        path: the file.
        argument: the option that names it, for messages.

    Raises:
        UserError: missing, not JSON, truncated, or another kind of file, which is named.
    """
    with open_json(path, argument, ANNOTATIONS_WANTED) as file:
        return annotations_of(file.read(), f"{argument} {path}")


def annotations_of(data: bytes, where: str) -> dict[str, Any]:
    """As `load_annotations`, from a file's bytes."""
    return _lists_of(decode_json(data, where, ANNOTATIONS_WANTED), where, ANNOTATIONS_WANTED)


def scored_annotations_of(data: bytes, where: str) -> dict[str, Any]:
    """As `load_annotations`, from a file's bytes, of a file whose annotations are predictions.

    Raises:
        UserError: also if no annotation has a score.
    """
    content = _lists_of(decode_json(data, where, PREDICTIONS_WANTED), where, PREDICTIONS_WANTED)
    if content["annotations"] and not any("score" in record for record in content["annotations"]):
        raise UserError(f"{where}: this is a COCO annotation file without scores; {PREDICTIONS_WANTED}")
    return content


def _lists_of(content: Any, where: str, wanted: str) -> dict[str, Any]:
    kind = kind_of(content)
    if kind != "a COCO annotation file":
        raise UserError(f"{where}: this is {kind}; {wanted}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content[key], list) or not all(isinstance(item, dict) for item in content[key]):
            raise UserError(f"{where}: {key!r} is not a list of objects; {wanted}")
    return content


def results_of(data: bytes, where: str) -> list[Any]:
    """The content of a COCO result file; an empty list is one (a model that found nothing).

    Raises:
        UserError: not JSON, truncated, or another kind of file, which is named.
    """
    content = decode_json(data, where, PREDICTIONS_WANTED)
    kind = kind_of(content)
    if kind not in ("a COCO result file", "an empty list"):
        raise UserError(f"{where}: this is {kind}; {PREDICTIONS_WANTED}")
    return content


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """A JSON list of objects as several such lists, so that the objects need not be in memory together.

    A file is cut between two objects. A cut inside a string or a nested list leaves pieces that are not JSON, which
    the decoder reports.

    Raises:
        msgspec.DecodeError: it is not a list.
    """
    rest = file.read(PIECE).removeprefix(BOM).lstrip(b" \t\r\n")
    if not rest.startswith(b"["):
        raise msgspec.DecodeError("not a list")
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
        between = BETWEEN.match(data, at)
        if between:
            return at + 1, between.end()
    return None


def kind_of(content: Any) -> str:
    """The kind of a JSON file, with an article, such as "a training log"."""
    if isinstance(content, list):
        return _kind_of_list(content)
    if not isinstance(content, dict):
        return f"a single JSON {type(content).__name__}"
    if {"images", "annotations", "categories"} <= content.keys():
        first = (
            content["annotations"][0] if content["annotations"] and isinstance(content["annotations"], list) else None
        )
        panoptic = isinstance(first, dict) and "segments_info" in first
        return "a COCO panoptic annotation file" if panoptic else "a COCO annotation file"
    if {"images", "categories"} & content.keys():
        absent = [key for key in ("images", "annotations", "categories") if key not in content]
        return f"an annotation file without {' and '.join(absent)}"
    if "image_id" in content and "category_id" in content:
        return "a single object, not a list"
    if {"pictures", "classes"} <= content.keys():
        return "a classifier's predictions, without boxes"
    return _kind_of_scalars(content)


def _kind_of_list(content: list) -> str:
    if not content:
        return "an empty list"
    first = content[0]
    if not isinstance(first, dict):
        return f"a list of {type(first).__name__}s"
    keys = first.keys()
    if "image_id" in keys and "category_id" in keys:
        annotation = "score" not in keys and "iscrowd" in keys
        return "a list of annotations (no scores)" if annotation else "a COCO result file"
    if "segments_info" in keys:
        return "a COCO panoptic result file"
    if keys & _LOG_KEYS:
        return "a training log"
    missing = [key for key in ("image_id", "category_id") if key not in keys]
    return f"a list of objects without {' and '.join(missing)}"


def _kind_of_scalars(content: dict) -> str:
    keys = content.keys()
    measures = [key for key in keys if any(word in key.lower() for word in ("map", "ap50", "ar@", "bbox_", "segm_"))]
    if len(keys & _LOG_KEYS) >= 2 or "loss" in keys:
        return "a training log"
    if measures:
        return "a file of metrics"
    names = ", ".join(str(key)[:20] for key in list(keys)[:4])
    return f"a JSON object with the key{'s' * (len(keys) > 1)} {names}" if keys else "an empty JSON object"


def decode_json(data: bytes, where: str, wanted: str) -> Any:
    """A file's content, also of JSON as Python writes it, with NaN, Infinity and halves of surrogate pairs.

    Args:
        data: the file's bytes.
        where: argument and file, for messages.
        wanted: the kind of file that is wanted, for messages.

    Raises:
        UserError: not JSON, or truncated.
    """
    try:
        return msgspec.json.decode(data.removeprefix(BOM))
    except UNREAD:
        pass
    try:
        text = data.decode("utf-8-sig")
        return json.loads(text)
    except UnicodeDecodeError:
        raise UserError(f"{where}: not a text file in UTF-8 (a pickle, an archive, UTF-16?); {wanted}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: {_what_is_wrong(text, error)}; {wanted}") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deep for JSON; {wanted}") from None
    except ValueError:  # Python reads integers of 4300 digits and no more
        raise UserError(f"{where}: holds an integer of thousands of digits; {wanted}") from None


def _what_is_wrong(text: str, error: json.JSONDecodeError) -> str:
    if not text.strip():
        return "the file is empty"
    if error.msg == "Extra data":
        first = text[: error.pos].strip()
        lines = "several JSON values, one a line"
        return f"this is {kind_of(json.loads(first))} of {lines}" if first.startswith("{") else f"this is {lines}"
    stripped = text.rstrip()
    cut = error.pos >= len(stripped) or error.msg.startswith("Unterminated string")
    if stripped[0] in "[{" and (cut or (error.pos > len(stripped) - 8 and stripped[-1] not in "]}")):
        return f"truncated JSON: the file ends after {len(text)} characters in the middle of a value"
    return f"not JSON (line {error.lineno}, column {error.colno}: {error.msg})"
