"""Folders of files in no order: every reader of a user's data finds a layout in them, or says in one line why not."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmms_plugin.data.check import check_data
from mmms_plugin.data.coco_set import read_splits
from mmms_plugin.data.image_folder import read_folders
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.data.seg_set import read_seg_set
from mmms_plugin.errors import UserError

FOLDERS = 50
DIRS = (
    "train", "val", "valid", "test", "Training", "images", "masks", "labels", "cat", "dog", "trainannot", "val_masks",
    "leftImg8bit", "gtFine", "JPEGImages", "SegmentationClass", "ImageSets/Segmentation", "__MACOSX", ".x", "ann",
)  # fmt: skip
STEMS = ("a", "b", "a_mask", "a_rgb", "img_1", "mask_1", "a_gtFine_labelIds", "a_leftImg8bit", "._a", "Grün",
         "Gru\u0308n", "A", "a.v2", "mask", "_", "l", "train")  # fmt: skip
SUFFIXES = (".png", ".png", ".jpg", ".tif", ".JPG", ".txt", ".json", "")


def write_file(path: Path, draw: random.Random) -> None:
    if path.suffix.lower() in (".png", ".jpg", ".tif") and draw.random() < 0.85:
        labels = np.array(draw.choices([0, 1, 2, 11, 255], k=48), np.uint8).reshape(6, 8)
        Image.fromarray(labels if draw.random() < 0.5 else np.repeat(labels[..., None], 3, 2)).save(path)
    elif path.suffix == ".txt":
        path.write_text("\n".join(draw.choices(STEMS, k=3)), encoding="utf-8")
    else:
        path.write_bytes(draw.choice([b"", b"x", b"{}", b"[1, 2"]))


def test_any_folder_is_read_or_refused_in_one_line(tmp_path):
    draw, found = random.Random(5), 0
    refusals: list[str] = []
    for number in range(FOLDERS):
        root = tmp_path / str(number)
        root.mkdir()
        for _ in range(draw.randint(0, 14)):
            path = root.joinpath(*draw.choices(DIRS, k=draw.choice([0, 1, 1, 2, 2, 3])))
            path.mkdir(parents=True, exist_ok=True)
            path /= draw.choice(STEMS) + draw.choice(SUFFIXES)
            if not path.is_dir():
                write_file(path, draw)
        split: dict[str, Any] = dict(val_split=draw.choice([0, 0.5]), split=draw.choice(["train", "val", "test"]))
        own = OwnData("x", root, root / "work", training=draw.random() < 0.5, **split)
        labelled = OwnData("x", root, root / "work", ignore_label=draw.choice([None, 0, 11, 255]), **split)
        readers = (
            lambda own=own: check_data(own),
            lambda own=own: read_splits(own, masks=True),
            lambda own=own: read_folders(own),
            lambda own=labelled: read_seg_set(own, ("train", "val")),
        )
        for read in readers:
            try:
                read()
                found += 1
            except UserError as error:
                refusals.append(str(error))
    assert not any("\n" in line for line in refusals)
    assert found > FOLDERS / 10
