"""Small COCO files with something wrong in them: other values in any place, and damage to the text itself."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
from pycocotools import mask as rle

WIDTH, HEIGHT = 40, 30

NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 7, 1.5, -0.0, -12.25, 1e-320, 1e30, -1e30, 1e308, 2**31, 2**32, 2**53, 2**63, 2**64, -(2**63), 10**400,
    float("nan"), float("inf"), float("-inf"), None, True, False,
)  # fmt: skip
WORDS: tuple[Any, ...] = (
    "", "1", "nan", "name", "\ud800", "\x1b[31m", "\x00", "a\nb", "=1+1", "-5", "@x", "$x^2$", "[red]", "<b>",
    "\u202ex", "%s {0}", "x" * 5000, "猫",
)  # fmt: skip
LISTS: tuple[Any, ...] = (
    [], [[]], [None], [1, 2], [1, 2, 3, 4], ["1", "2", "3", "4"], [1e308] * 4, [-1e9, -1e9, 2e9, 2e9], [0, 0, 0, 0],
    [5, 5, -1, 3], [float("nan")] * 4, [[1, 1, 9, 1, 9, 9]], [[1, 1, 9, 1, 9]], [[1e6, -1e6] * 40], [{}], {},
)  # fmt: skip
MASKS: tuple[Any, ...] = (
    {"size": [HEIGHT, WIDTH]},
    {"size": [HEIGHT, WIDTH], "counts": "08"},
    {"size": [HEIGHT, WIDTH], "counts": ""},
    {"size": None, "counts": "08"},
    {"size": [2**32, 2**32], "counts": "08"},
    {"size": [-HEIGHT, -WIDTH], "counts": [HEIGHT * WIDTH]},
    {"size": ["30", "40"], "counts": "08"},
    {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]},
    {"size": [HEIGHT, WIDTH], "counts": [0, 2**32 + HEIGHT * WIDTH]},
    {"size": [0, 0], "counts": []},
)
VALUES = (*NUMBERS, *WORDS, *LISTS, *MASKS)
LETTERS = [chr(i) for i in range(46, 114)]
TEXTS = (
    *"[]{},:", '"', "\\", "\x00", "\ufeff", "NaN", "-Infinity", "1e999", "9" * 5000, "/**/", "\\ud800", "null",
)  # fmt: skip


def files(rng: np.random.Generator) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Sound annotations and results of three pictures, every kind of mask among them."""
    annotations, results = [], []
    for i in range(int(rng.integers(1, 14))):
        width, height = rng.integers(1, 20, 2).tolist()
        x, y = int(rng.integers(0, WIDTH - width)), int(rng.integers(0, HEIGHT - height))
        one = {
            "image_id": int(rng.integers(1, 4)),
            "category_id": int(rng.integers(1, 4)),
            "bbox": [x, y, width, height],
        }
        masks = _masks(x, y, width, height)
        rest = {"id": i + 1, "area": width * height, "iscrowd": int(rng.random() < 0.1)}
        annotations.append({**one, **rest, "segmentation": masks[i % 3]})
        for _ in range(int(rng.integers(3))):
            results.append({**one, "score": round(float(rng.random()), 2), "segmentation": masks[int(rng.integers(3))]})
    images = [{"id": i, "width": WIDTH, "height": HEIGHT, "file_name": f"{i}.png"} for i in (3, 1, 2)]
    categories = [{"id": i, "name": f"class {i}"} for i in (2, 1, 3)]
    return {"images": images, "annotations": annotations, "categories": categories}, results


def mutate(content: Any, rng: np.random.Generator) -> bytes:
    """The JSON text of ``content`` with one to three things wrong."""
    content = copy.deepcopy(content)
    for _ in range(int(rng.integers(1, 4))):
        content = _mutate_value(content, rng)
    text = json.dumps(content, ensure_ascii=bool(rng.random() < 0.5))
    data = text.encode("utf-8", "surrogatepass")
    return damaged_text(data, rng) if rng.random() < 0.3 else data


def _masks(x: int, y: int, width: int, height: int) -> tuple[Any, ...]:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    runs = [x * HEIGHT + y, *[height, HEIGHT - height] * (width - 1), height]
    polygon = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    compressed = {"size": [HEIGHT, WIDTH], "counts": rle.encode(mask)["counts"].decode()}
    return polygon, compressed, {"size": [HEIGHT, WIDTH], "counts": [*runs, HEIGHT * WIDTH - sum(runs)]}


def pick(values: Any, rng: np.random.Generator) -> Any:
    """One of the values."""
    return values[int(rng.integers(len(values)))]


def _mutate_value(content: Any, rng: np.random.Generator) -> Any:
    """One place of the tree replaced, removed, doubled, or its own value changed a little."""
    places = list(_places(content))
    if not places or rng.random() < 0.02:
        return pick(VALUES, rng)
    parent, key = pick(places, rng)
    how = rng.random()
    if how < 0.55:
        parent[key] = copy.deepcopy(pick(VALUES, rng))
    elif how < 0.7:
        parent[key] = _nearby(parent[key], rng)
    elif how < 0.85:
        del parent[key]
    elif isinstance(parent, list):
        parent.insert(key, copy.deepcopy(pick([parent[key], *VALUES], rng)))
    else:
        other = pick(list(parent), rng)
        parent[key], parent[other] = parent[other], parent[key]
    return content


def _places(content: Any) -> Any:
    """Every (container, key) of a tree, shallow ones again so that they are chosen as often as deep ones."""
    todo = [(content, 0)]
    while todo:
        node, depth = todo.pop()
        if isinstance(node, dict | list):
            for key in list(node) if isinstance(node, dict) else range(len(node)):
                yield from [(node, key)] * (4 if depth < 3 else 1)
                todo.append((node[key], depth + 1))


def _nearby(value: Any, rng: np.random.Generator) -> Any:
    """A value of the same kind, a little or very different."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return pick([-value, value + 1, value * 1e9, value / 3, str(value), [value], value + 0.5], rng)
    if isinstance(value, str) and value:
        at = int(rng.integers(len(value)))
        return value[:at] + pick(LETTERS, rng) * int(rng.integers(3)) + value[at + int(rng.integers(2)) :]
    if isinstance(value, list):
        return pick([value[:-1], value + value, value[::-1], [value], {"0": value}, tuple(map(str, value))], rng)
    return [value]


def damaged_text(data: bytes, rng: np.random.Generator) -> bytes:
    """A text file cut, changed, nested, in another encoding, or twice."""
    at, how = int(rng.integers(len(data) + 1)), int(rng.integers(9))
    if how == 0:
        return data[:at]
    if how == 1:
        return data[:at] + bytes(rng.integers(0, 256, int(rng.integers(1, 4)), np.uint8)) + data[at + 1 :]
    if how == 2:
        brackets = pick(["[", "{", '{"a":', "[{", "]"], rng)
        return data[:at] + (brackets * int(pick([3, 90, 950, 200_000], rng))).encode() + data[at:]
    if how == 3:
        return data.decode("utf-8", "replace").encode("utf-16")
    if how == 4:
        return b"\xef\xbb\xbf" + data
    if how == 5:
        return data + pick([b"\n", b" "], rng) + data
    if how == 6:
        nested = int(pick([5, 40, 300, 900], rng))
        return data.replace(pick([b"[", b":", b", "], rng), b"[" * nested + b"1" + b"]" * nested, 1)
    if how == 7:
        return data.replace(b'"id"', b'"id": 5, "id"', 1)
    return data[:at] + pick(TEXTS, rng).encode() + data[at:]
