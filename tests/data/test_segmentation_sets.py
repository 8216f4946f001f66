"""Pictures with masks: the layouts that are found, and labels that cannot be trained on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from mmms_plugin.data.own_data import OwnData
from mmms_plugin.data.seg_set import SegData, read_seg_set
from mmms_plugin.engine.config_edit import class_count_owners, leaf_datasets
from mmms_plugin.engine.config_files import load_config
from mmms_plugin.engine.voc_dir import use_voc_dir
from mmms_plugin.errors import UserError
from tests.data.small_sets import picture

SIDE = 40, 30


@pytest.fixture(scope="module")
def deeplab() -> Config:
    return load_config("deeplabv3_ps_r50_voc12aug")


def labels(*values: int) -> np.ndarray:
    """A mask with each of the values in a band of its own."""
    return np.repeat(np.resize(np.array(values, np.uint8), SIDE[1])[:, None], SIDE[0], 1)


def pair(images: Path, masks: Path, name: str, seed: int, mask: np.ndarray | None = None, suffix: str = ".png") -> None:
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    stem = name.rpartition(".")[0]
    picture(seed, SIDE).save(images / name)
    Image.fromarray(labels(0, 1) if mask is None else mask).save(masks / (stem + suffix))


def split_below(folder: Path) -> None:
    for split, seed in (("train", 0), ("val", 5)):
        for i, kind in enumerate((".jpg", ".png", ".tif")):
            pair(folder / f"images/{split}", folder / f"masks/{split}", f"{split}{i}{kind}", seed + i)


def split_above(folder: Path) -> None:
    for split, name in (("train", "train"), ("valid", "val")):
        for i in range(3):
            pair(folder / split / "Images", folder / split / "Masks", f"{name}{i}.bmp", i, suffix="_mask.png")


def listed(folder: Path) -> None:
    for split in ("train", "val"):
        for i in range(3):
            pair(folder / "images", folder / "masks", f"{split}{i}.v2.png", i)
        (folder / f"{split}.txt").write_text("".join(f"{split}{i}.v2\n" for i in range(3)), encoding="utf-8")


def voc_of_png(folder: Path) -> None:
    for split in ("train", "val"):
        for i in range(3):
            pair(folder / "JPEGImages", folder / "SegmentationClass", f"{split}{i}.png", i)
        lists = folder / "ImageSets/Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.txt").write_text("".join(f"{split}{i}\n" for i in range(3)), encoding="utf-8")


@pytest.mark.parametrize("layout", [split_below, split_above, listed, voc_of_png], ids=lambda made: made.__name__)
def test_pictures_and_masks_of_any_type_are_paired(layout: Callable[[Path], None], deeplab, tmp_path):
    """And mmseg reads them, a palette of the folder's classes set in every head."""
    layout(tmp_path)
    (tmp_path / "labels.txt").write_text("background\nleaf\n", encoding="utf-8")
    config = copy.deepcopy(deeplab)
    use_voc_dir(config, OwnData("--voc-dir", tmp_path, tmp_path / "work"))
    assert {owner["num_classes"] for owner in class_count_owners(config.model)} == {2}
    init_default_scope("mmseg")
    for split in ("train", "val"):
        (dataset,) = leaf_datasets(config[f"{split}_dataloader"])
        dataset.pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]
        built = DATASETS.build(dataset)
        assert [Path(built[i]["img_path"]).name.split(".")[0] for i in range(3)] == [f"{split}{i}" for i in range(3)]
        assert all(built[i]["gt_seg_map"].tolist() == labels(0, 1).tolist() for i in range(3))
        assert built.metainfo["classes"] == ("background", "leaf")


def flat(folder: Path, *masks: np.ndarray) -> None:
    for i, mask in enumerate(masks or [labels(0, 1)] * 10):
        pair(folder / "images", folder / "masks", f"p{i}.png", i, mask)


def test_one_folder_alone_is_split_by_picture(tmp_path):
    flat(tmp_path)
    with pytest.raises(UserError, match=r"no pictures for val \(found: 10 for train\).* --val-split 0.2"):
        read_seg_set(OwnData("--voc-dir", tmp_path), ("train", "val"))
    own = OwnData("--voc-dir", tmp_path, val_split=0.3)
    first, second = (read_seg_set(own, ("train", "val")).found.splits for _ in range(2))
    assert first == second
    assert (len(first["train"]), len(first["val"])) == (7, 3)


def found_in(folder: Path, **options: bool) -> tuple[SegData, dict[str, str]]:
    data = read_seg_set(OwnData("--voc-dir", folder, val_split=0.5, **options))
    return data, {finding.code: finding.text for finding in data.all_findings}


def test_masks_of_0_and_255_stop_unless_they_are_read_as_binary(deeplab, tmp_path):
    flat(tmp_path, *[labels(0, 0, 255)] * 4)
    _, codes = found_in(tmp_path)
    assert "label 0: 1600 pixels, label 255: 800 pixels" in codes["mask-binary"]
    assert "--binary-masks" in codes["mask-binary"]
    data, codes = found_in(tmp_path, binary_masks=True)
    assert data.classes == ("background", "object")
    assert codes == {}
    config = copy.deepcopy(deeplab)
    use_voc_dir(config, OwnData("--voc-dir", tmp_path, tmp_path / "work", val_split=0.5, binary_masks=True))
    (dataset,) = leaf_datasets(config.train_dataloader)
    dataset.pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]
    init_default_scope("mmseg")
    assert DATASETS.build(dataset)[0]["gt_seg_map"].tolist() == labels(0, 0, 1).tolist()


def test_labels_outside_of_the_classes_are_counted(tmp_path):
    flat(tmp_path, *[labels(0, 1, 7)] * 3, labels(0, 1, 7, 200))
    (tmp_path / "labels.txt").write_text("background\nleaf\nstem\n", encoding="utf-8")
    _, codes = found_in(tmp_path)
    assert "label 7: " in codes["mask-labels"]
    assert "allowed are 0 to 2" in codes["mask-labels"]
    assert codes["mask-class-unused"].endswith(": 1 (2 stem)")


def test_void_is_reported_and_classes_are_taken_from_the_masks(tmp_path):
    flat(tmp_path, *[labels(0, 1, 3, 255)] * 4)
    data, codes = found_in(tmp_path)
    assert data.classes == ("background", "class 1", "class 2", "class 3")
    assert "of the pixels" in codes["mask-void"]
    assert "2 class 2" in codes["mask-class-unused"]
    assert any("no labels.txt names the classes" in remark for remark in data.remarks)


def rotated(path: Path) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    picture(3, SIDE).save(path, exif=tags)


def gone(folder: Path) -> None:
    (folder / "masks/p1.png").unlink()


SPOILT = {
    "mask-missing": gone,
    "mask-colour": lambda folder: picture(3, SIDE).save(folder / "masks/p1.png"),
    "mask-unreadable": lambda folder: (folder / "masks/p1.png").write_bytes(b"\x89PNG no"),
    "mask-size": lambda folder: picture(3, (30, 40)).save(folder / "images/p1.png"),
    "picture-rotated": lambda folder: rotated(folder / "images/p1.png"),
    "picture-empty": lambda folder: (folder / "images/p1.png").write_bytes(b""),
}


@pytest.mark.parametrize("code", SPOILT)
def test_files_that_stop_training(code, tmp_path):
    flat(tmp_path)
    SPOILT[code](tmp_path)
    _, codes = found_in(tmp_path)
    assert "p1.png" in codes[code]


def test_where_nothing_fits_the_message_says_what_was_found(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match=r"no pictures with masks found; expected are .*; found: photos/$"):
        read_seg_set(OwnData("--voc-dir", tmp_path))
