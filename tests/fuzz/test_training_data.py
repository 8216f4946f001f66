"""Damaged COCO data sets: refused in one line, or mended into something that training can use."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from mmms_plugin.coco.findings import errors_first, refuse_errors
from mmms_plugin.data.coco_set import read_splits, write_mended
from mmms_plugin.data.coco_usable import note_usable
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.errors import UserError
from tests.data.small_sets import coco_content, write_coco

MUTANTS = 150
NAN = float("nan")
ODD: list[Any] = [
    None, "x", "", -1, 0, 1.5, NAN, float("inf"), [], {}, [[]], [1], 10**400, -(10**30), 2**64, "\ud800", "\x1b[31m",
    True, "1", ["a"], {"a": 1}, "../x", "/etc/passwd", "a" * 500, [[1, 2], [3]], [[NAN] * 6],
    {"size": [30, 40], "counts": [1200]}, {"size": ["a", None], "counts": "x"}, {"size": [2**40] * 2, "counts": "0"},
]  # fmt: skip


def places(node: Any, path: tuple = ()) -> Iterator[tuple]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def mutate(content: dict[str, Any], draw: random.Random) -> None:
    for _ in range(draw.choice([1, 1, 1, 2, 3, 6])):
        *above, last = draw.choice(list(places(content)))
        node: Any = content
        for key in above:
            node = node[key]
        way = draw.random()
        if way < 0.2 and isinstance(node, dict):
            node.pop(last)
        elif way < 0.3 and isinstance(node, list):
            node.insert(draw.randrange(len(node) + 1), copy.deepcopy(node[last]))
        else:
            node[last] = copy.deepcopy(draw.choice(ODD))


def check_trainable(path: Path, folder: Path, masks: bool) -> None:
    """As mmdet reads a file, with pycocotools."""
    coco = COCO(str(path))
    content = coco.dataset
    ids = {image["id"] for image in content["images"]}
    for annotation in content["annotations"]:
        assert len(annotation["bbox"]) == 4
        assert all(abs(value) <= 1e9 for value in annotation["bbox"])
        assert annotation["area"] >= 0
        assert annotation["iscrowd"] in (0, 1)
        assert annotation["image_id"] in ids
        if masks:
            coco.annToMask(annotation)
    for image in content["images"]:
        assert min(image["width"], image["height"]) > 0
        assert (folder / "images" / image["file_name"]).is_file() or (folder / image["file_name"]).is_file()


def test_mutants_are_refused_in_one_line_or_mended(tmp_path):
    for split, first in (("train", 0), ("val", 3)):
        write_coco(tmp_path, coco_content(first), f"{split}.json", "images")
    whole = {split: json.loads((tmp_path / f"{split}.json").read_text(encoding="utf-8")) for split in ("train", "val")}
    draw, accepted, refusals = random.Random(3), 0, []
    for _ in range(MUTANTS):
        contents = copy.deepcopy(whole)
        mutate(contents[draw.choice(["train", "val"])], draw)
        for split, content in contents.items():
            mark = "\ufeff" * (draw.random() < 0.1)
            (tmp_path / f"{split}.json").write_text(mark + json.dumps(content), encoding="utf-8")
        masks = draw.random() < 0.7
        try:
            splits = read_splits(OwnData("--coco-dir", tmp_path, tmp_path / "work"), masks=masks)
            for coco in splits.values():
                note_usable(coco)
                assert "images" in coco.counts
            refuse_errors(errors_first(coco.findings for coco in splits.values()))
        except UserError as error:
            refusals.append(str(error))
            continue
        accepted += 1
        for path in write_mended(splits, tmp_path / "work/annotations").values():
            check_trainable(path, tmp_path, masks)
    assert not any("\n" in line for line in refusals)
    assert MUTANTS / 20 < accepted < MUTANTS / 2
