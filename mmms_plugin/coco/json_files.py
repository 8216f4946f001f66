"""Opening a COCO annotation or result file, and saying in one line what it is when it is something else.

Formats: https://cocodataset.org/#format-data and https://cocodataset.org/#format-results.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmms_plugin.errors import UserError

PREDICTIONS_WANTED = "a COCO result file is wanted: a JSON list of {image_id, category_id, bbox or segmentation, score}"
ANNOTATIONS_WANTED = "a COCO annotation file is wanted: a JSON object with images, annotations and categories"
_LOG_KEYS = {"loss", "lr", "base_lr", "epoch", "iter", "step", "data_time", "time"}  # mmengine's, mmcv's scalars


def load_annotations(path: str | Path, argument: str = "--ann") -> dict[str, Any]:
    """The content of a COCO annotation file.

    Args:
        path: the file. argument: what the user calls it, for messages.
    Raises:
        UserError: missing, not JSON, truncated, or another kind of file, which is named.
    """
    content = _load(path, argument, ANNOTATIONS_WANTED)
    kind = kind_of(content)
    if kind != "a COCO annotation file":
        raise UserError(f"{argument} {path}: this is {kind}; {ANNOTATIONS_WANTED}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content[key], list) or not all(isinstance(item, dict) for item in content[key]):
            raise UserError(f"{argument} {path}: {key!r} is not a list of objects; {ANNOTATIONS_WANTED}")
    return content


def load_predictions(path: str | Path, argument: str = "--pred") -> list[dict[str, Any]]:
    """The content of a COCO result file; an empty list is one (a model that found nothing).

    Args:
        path: the file. argument: what the user calls it, for messages.
    Raises:
        UserError: missing, not JSON, truncated, or another kind of file, which is named.
    """
    content = _load(path, argument, PREDICTIONS_WANTED)
    kind = kind_of(content)
    if kind not in ("a COCO result file", "an empty list"):
        raise UserError(f"{argument} {path}: this is {kind}; {PREDICTIONS_WANTED}")
    strange = next((i for i, item in enumerate(content) if not isinstance(item, dict)), None)
    if strange is not None:
        raise UserError(f"{argument} {path}: item {strange} is no object; {PREDICTIONS_WANTED}")
    return content


def kind_of(content: Any) -> str:
    """What a JSON value is to people who evaluate detectors, with its article."""
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
    return f"a JSON object with the keys {names}" if keys else "an empty JSON object"


def _load(path: str | Path, argument: str, wanted: str) -> Any:
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except IsADirectoryError:
        raise UserError(f"{argument} {path}: this is a folder; {wanted}") from None
    except FileNotFoundError:
        raise UserError(f"{argument} {path}: no such file") from None
    except UnicodeDecodeError:
        raise UserError(
            f"{argument} {path}: not a text file in UTF-8 (a pickle, an archive, UTF-16?); {wanted}"
        ) from None
    except OSError as error:
        raise UserError(f"{argument} {path}: cannot be read ({error.strerror})") from None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{argument} {path}: {_what_is_wrong(text, error)}; {wanted}") from None
    except RecursionError:
        raise UserError(f"{argument} {path}: nested too deep for JSON; {wanted}") from None
    except ValueError:  # Python reads integers of 4300 digits and no more
        raise UserError(f"{argument} {path}: holds an integer of thousands of digits; {wanted}") from None


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
