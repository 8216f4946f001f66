"""Pictures with masks: the layouts that are found, and labels that cannot be trained on."""

from __future__ import annotations

import copy
import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from mmms_plugin.config.data import use_voc_dir
from mmms_plugin.config.edit import class_count_owners, leaf_datasets
from mmms_plugin.config.files import load_config
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.data.seg_layouts import Pair, SegSet, find_pairs
from mmms_plugin.data.seg_set import Mask, SegData, class_names, read_mask, read_seg_set, write_pairs
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
    first, second = (read_seg_set(own, ("train", "val")).layout.splits for _ in range(2))
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
    flat(tmp_path, *[labels(0, 1, 3, *[255] * 7)] * 4)
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


def empty_files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def pairs_of(folder: Path, **options: Any) -> dict[str, list[tuple[str, str]]]:
    """Pictures and masks as paths below the folder; "-" for no mask."""
    found = find_pairs(OwnData("--voc-dir", folder, **options))
    return {
        split: [
            (pair.image.relative_to(folder).as_posix(), pair.mask.relative_to(folder).as_posix() if pair.mask else "-")
            for pair in pairs
        ]
        for split, pairs in found.splits.items()
    }


DECOMPOSED = unicodedata.normalize("NFD", "Grün")  # as macOS writes it
FOUND: dict[str, tuple[list[str], dict[str, list[tuple[str, str]]]]] = {
    # title: the files there are, and the pairs that are found; the first picture of each is a.jpg
    "all in one": (["Img/a.jpg", "GT/a.png"], {"train": [("Img/a.jpg", "GT/a.png")]}),
    "a mask of any ending": (
        ["images/a.jpg", "images/b.jpg", "images/c.v2.JPG", "images/d.jpg", "images/notes.txt",
         "masks/a_mask.png", "masks/b-mask.png", "masks/c.v2_gt.TIF", "masks/d_other.png", "masks/e.png"],
        {"train": [("images/a.jpg", "masks/a_mask.png"), ("images/b.jpg", "masks/b-mask.png"),
                   ("images/c.v2.JPG", "masks/c.v2_gt.TIF"), ("images/d.jpg", "-")]},
    ),
    "the mask of the same name first": (
        ["images/a.jpg", "masks/a.png", "masks/a_mask.png"], {"train": [("images/a.jpg", "masks/a.png")]},
    ),
    "mmsegmentation's own": (
        ["img_dir/train/a.jpg", "ann_dir/train/a.png", "img_dir/val/b.jpg", "ann_dir/val/b.png"],
        {"train": [("img_dir/train/a.jpg", "ann_dir/train/a.png")],
         "val": [("img_dir/val/b.jpg", "ann_dir/val/b.png")]},
    ),
    "fast.ai's names": (["images/a.png", "labels/a_P.png"], {"train": [("images/a.png", "labels/a_P.png")]}),
    "images before imgs, masks before labels": (
        ["imgs/b.jpg", "images/a.jpg", "masks/a.png", "labels/b.png"], {"train": [("images/a.jpg", "masks/a.png")]},
    ),
    "splits inside": (
        ["images/train/a.jpg", "masks/train/a.png", "images/Valid/b.jpg", "masks/Valid/b.png", "images/other/c.jpg",
         "masks/other/c.png", "images/test/d.jpg"],
        {"train": [("images/train/a.jpg", "masks/train/a.png")], "val": [("images/Valid/b.jpg", "masks/Valid/b.png")]},
    ),
    "splits inside of which none has masks": (
        ["images/train/a.jpg", "masks/val/a.png", "images/a.jpg", "masks/a.png"],
        {"train": [("images/a.jpg", "masks/a.png")]},
    ),
    "splits outside": (
        ["train/images/a.jpg", "train/masks/a.png", "test/images/b.jpg", "test/masks/b.png", "val/images/c.jpg",
         "val/masks/d.png", "more/images/e.jpg", "more/masks/e.png"],
        {"test": [("test/images/b.jpg", "test/masks/b.png")], "train": [("train/images/a.jpg", "train/masks/a.png")],
         "val": [("val/images/c.jpg", "-")]},
    ),
    "pictures outside without masks": (
        ["train/images/a.jpg", "train/masks/a.png", "val/images/b.jpg", "val/labelled/b.png"],
        {"train": [("train/images/a.jpg", "train/masks/a.png")]},
    ),
    "lists beside": (
        ["images/a.jpg", "masks/a.png", "images/b.jpg", "train.txt=\ufeffa\n\n", "val.txt=b.jpg"],
        {"train": [("images/a.jpg", "masks/a.png")], "val": [("images/b.jpg", "-")]},
    ),
    "VOC's lists": (
        ["JPEGImages/a.jpg", "JPEGImages/b.png", "SegmentationClass/a.png", "ImageSets/Segmentation/val.txt= b.PNG ",
         "ImageSets/Segmentation/test.txt=a", "train.txt=a"],
        {"val": [("JPEGImages/b.png", "-")], "test": [("JPEGImages/a.jpg", "SegmentationClass/a.png")]},
    ),
    "Cityscapes": (
        ["leftImg8bit/train/a/a1_leftImg8bit.png", "gtFine/train/a/a1_gtFine_labelIds.png",
         "gtFine/train/a/a1_gtFine_labelTrainIds.png", "gtFine/train/a/a1_gtFine_color.png",
         "leftImg8bit/val/b/b1_leftImg8bit.png", "gtFine/val/b/b1_gtFine_labelIds.png"],
        {"train": [("leftImg8bit/train/a/a1_leftImg8bit.png", "gtFine/train/a/a1_gtFine_labelTrainIds.png")],
         "val": [("leftImg8bit/val/b/b1_leftImg8bit.png", "gtFine/val/b/b1_gtFine_labelIds.png")]},
    ),
    "CamVid": (
        ["train/a.png", "trainannot/a.png", "valannot/b.png", "val/b.png", "train.txt=/SegNet/train/a.png x"],
        {"train": [("train/a.png", "trainannot/a.png")], "val": [("val/b.png", "valannot/b.png")]},
    ),
    "folders named after split and kind": (
        ["images_train/a.jpg", "masks-train/a.png", "validation_labels/b_L.png", "validation/b.png"],
        {"train": [("images_train/a.jpg", "masks-train/a.png")],
         "val": [("validation/b.png", "validation_labels/b_L.png")]},
    ),
    "both kinds in one folder": (
        ["train/a_sat.jpg", "train/a_mask.png", "train/b.jpg", "valid/c.jpg", "valid/c_mask.png", "data.csv"],
        {"train": [("train/a_sat.jpg", "train/a_mask.png"), ("train/b.jpg", "-")],
         "val": [("valid/c.jpg", "valid/c_mask.png")]},
    ),
    "words before the names": (
        ["img_1.png", "mask_1.png", "image02.jpg", "label02.png"],
        {"train": [("image02.jpg", "label02.png"), ("img_1.png", "mask_1.png")]},
    ),
    "case": (["images/A.JPG", "masks/a_Mask.png"], {"train": [("images/A.JPG", "masks/a_Mask.png")]}),
    "two pictures for a name without words": (
        ["images/a.jpg", "images/a_rgb.jpg", "masks/a_mask.png", "masks/a_rgb_mask.png"],
        {"train": [("images/a.jpg", "masks/a_mask.png"), ("images/a_rgb.jpg", "masks/a_rgb_mask.png")]},
    ),
    "left and right": (
        ["images/a_l.png", "images/a_r.png", "masks/a_l_mask.png", "masks/a_r_mask.png", "images/a.png"],
        {"train": [("images/a.png", "-"), ("images/a_l.png", "masks/a_l_mask.png"),
                   ("images/a_r.png", "masks/a_r_mask.png")]},
    ),
    "left and right in one folder": (
        ["train/a_l.png", "train/a_l_mask.png", "train/a_r.png", "train/a_r_mask.png"],
        {"train": [("train/a_l.png", "train/a_l_mask.png"), ("train/a_r.png", "train/a_r_mask.png")]},
    ),
    "words at both ends": (
        ["images/img_a_rgb.png", "masks/mask_a_gt.png", "masks/mask_a_gt_color.png"],
        {"train": [("images/img_a_rgb.png", "masks/mask_a_gt.png")]},
    ),
    "one mask for two pictures": (
        ["images/a_img.jpg", "images/a_rgb.jpg", "masks/a.png", "images/b.jpg", "masks/b.png"],
        {"train": [("images/a_img.jpg", "-"), ("images/a_rgb.jpg", "-"), ("images/b.jpg", "masks/b.png")]},
    ),
    "pictures of one name and two types": (
        ["images/a.jpg", "images/a.png", "masks/a.png"],
        {"train": [("images/a.jpg", "masks/a.png"), ("images/a.png", "-")]},
    ),
    "accents in two spellings": (
        [f"images/{DECOMPOSED}.jpg", "masks/Grün.png", "images/b.jpg", "masks/b.png", "train.txt=Grün\nb"],
        {"train": [(f"images/{DECOMPOSED}.jpg", "masks/Grün.png"), ("images/b.jpg", "masks/b.png")]},
    ),
    "files of the system": (
        ["images/._a.jpg", "images/a.jpg", "masks/a.png", "masks/._a.png", "__MACOSX/train/images/a.jpg", ".x/a"],
        {"train": [("images/a.jpg", "masks/a.png")]},
    ),
    "VOC's folders without lists": (
        ["JPEGImages/a.jpg", "SegmentationClass/a.png"], {"train": [("JPEGImages/a.jpg", "SegmentationClass/a.png")]},
    ),
}  # fmt: skip


def test_nothing_can_be_held_back_without_training_pictures(tmp_path):
    empty_files(tmp_path, "test/a.png", "testannot/a.png")
    with pytest.raises(UserError, match=r"no pictures for train \(found: 1 for test\)"):
        find_pairs(OwnData("--voc-dir", tmp_path, val_split=0.5))


def test_masks_without_a_picture_are_reported(tmp_path):
    """But for those that show a picture's classes in other ways, and where a list names the pictures."""
    names = ["b_other", "a", "a_color", "c", "d_gt"]
    empty_files(tmp_path, "images/a.jpg", "images/b.jpg", *(f"masks/{name}.png" for name in names))
    assert find_pairs(OwnData("--voc-dir", tmp_path)).unpaired == {"train": ["c.png", "d_gt.png"]}
    data = read_seg_set(OwnData("--voc-dir", tmp_path))
    assert {"mask-unpaired": ("c.png", "d_gt.png"), "mask-missing": ("b.jpg",)}.items() <= {
        finding.code: finding.examples for finding in data.all_findings
    }.items()
    (tmp_path / "train.txt").write_text("a", encoding="utf-8")
    assert find_pairs(OwnData("--voc-dir", tmp_path)).unpaired == {}


@pytest.mark.parametrize("title", FOUND)
def test_pairs_are_found_by_their_names(title, tmp_path):
    names, expected = FOUND[title]
    for name in names:
        name, _, text = name.partition("=")
        empty_files(tmp_path, name)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert pairs_of(tmp_path) == expected


@pytest.mark.parametrize(
    ("names", "is_voc"),
    [
        (["JPEGImages/a.jpg", "SegmentationClass/a.png"], True),
        (["JPEGImages/a.jpg"], True),
        (["JPEGImages/a.png", "SegmentationClass/a.png"], False),
        (["JPEGImages/a.jpg", "SegmentationClass/a.bmp"], False),
    ],
)
def test_voc_s_layout_is_voc_s_with_its_file_types_only(names, is_voc, tmp_path):
    empty_files(tmp_path, *names)
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a", encoding="utf-8")
    assert find_pairs(OwnData("--voc-dir", tmp_path)).voc == is_voc
    (tmp_path / "ImageSets/Segmentation/train.txt").unlink()
    if len(names) > 1:
        assert not find_pairs(OwnData("--voc-dir", tmp_path)).voc


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["images/a.jpg"], r"found: images/$"),
        (["masks/a.png", "b"], r"found: masks/, b$"),
        (["images/a.jpg", "masks/b.png"], r"images.a.jpg has no mask, masks.b.png has no picture; a mask has its"),
        (["images/train/a.jpg", "masks/train/b.png"], r"images.train.a.jpg has no mask, masks.train.b.png has no pict"),
        (["cat/a.jpg", "dog/a.jpg"], r"found: cat/, dog/$"),
        (["images/a.jpg", "labels/a.txt"], r"found: images/, labels/$"),
        ([], r"found: nothing$"),
        (list("abcdef"), r"found: a, b, c, d, e, f$"),
        (list("abcdefg"), r"found: a, b, c, d, e, f and 1 more$"),
        (["images/a.jpg", "masks/a.png", "train.txt=\n \n"], r"train\.txt: no image names$"),
        (["images/a.jpg", "masks/a.png", "train.txt/a"], None),
        (["images/a.jpg", "masks/a.png", "val.txt=a\nb.v2\nc.png"],
         r"of the 3 images of val.txt, 2 have no picture \(first: b.v2\)$"),
    ],
)  # fmt: skip
def test_folders_without_pairs_are_reported(names, message, tmp_path):
    for name in names:
        name, _, text = name.partition("=")
        empty_files(tmp_path, name)
        (tmp_path / name).write_text(text, encoding="utf-8")
    if message is None:
        assert list(pairs_of(tmp_path)) == ["train"]
        return
    with pytest.raises(UserError, match=message):
        find_pairs(OwnData("--voc-dir", tmp_path))


def test_a_list_that_is_not_text_is_reported(tmp_path):
    empty_files(tmp_path, "images/a.jpg", "masks/a.png")
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match=r"train\.txt: not a text file in UTF-8$"):
        find_pairs(OwnData("--voc-dir", tmp_path))


def test_a_share_cannot_be_held_back_where_there_is_validation_already(tmp_path):
    split_below(tmp_path)
    with pytest.raises(UserError, match=r"^--val-split: --voc-dir .* has pictures for validation already$"):
        find_pairs(OwnData("--voc-dir", tmp_path, val_split=0.3))
    data = read_seg_set(OwnData("--voc-dir", tmp_path, training=False, split="train"), ("train",))
    assert sorted(data.layout.splits) == ["train", "val"], "all masks name the classes"
    (tmp_path / "labels.txt").write_text("background\nleaf\n", encoding="utf-8")
    for splits, training, kept in ((("train",), False, ["train"]), (("train",), True, ["train", "val"])):
        data = read_seg_set(OwnData("--voc-dir", tmp_path, training=training, split="train"), splits)
        assert sorted(data.layout.splits) == sorted(data.findings) == sorted(data.pictures) == kept
        assert data.remarks == []
        (tmp_path / "masks/val/val0.png").unlink()
        data = read_seg_set(OwnData("--voc-dir", tmp_path, training=training, split="train"), splits)
        assert {finding.severity for finding in data.all_findings} <= {"warning"}, "of a split that is not needed"
        pair(tmp_path / "images/val", tmp_path / "masks/val", "val0.png", 3)


NAMED: dict[str, tuple[dict[str, str], dict[str, Any], tuple[str, ...] | str]] = {
    # title: files of names, options, and the classes or what is said
    "lines": ({"labels.txt": "\ufeffbackground\n\n  leaf \nstem"}, {}, ("background", "leaf", "stem")),
    "fast.ai's": ({"codes.txt": "a\nb"}, {}, ("a", "b")),
    "CVAT's": ({"labelmap.txt": "# label:color:parts:actions\nsky:0,0,0::\nsea:9,9,9::"}, {}, ("sky", "sea")),
    "Roboflow's": ({"images/_classes.csv": "Pixel Value, Class\n0, a\n1, b, c"}, {}, ("a", "b, c")),
    "a number missing": ({"images/_classes.csv": "Pixel Value, Class\n0, a\n2, b"}, {}, "a row for each of the labels"),
    "labels.txt before classes.txt": ({"labels.txt": "a\nb", "classes.txt": "c\nd"}, {}, ("a", "b")),
    "classes.txt": ({"classes.txt": "c\nd"}, {}, ("c", "d")),
    "names before binary masks": ({"labels.txt": "a\nb"}, {"binary_masks": True}, ("a", "b")),
    "binary masks": ({}, {"binary_masks": True}, ("background", "object")),
    "two at least": ({"labels.txt": "a\n"}, {}, "labels.txt: 1 class name; at least 2 are needed, one a line"),
    "none": ({"labels.txt": "\n"}, {}, "labels.txt: 0 class names"),
    "one twice": ({"labels.txt": "a\nb\nc\nb"}, {}, "labels.txt: class 'b' is listed twice"),
}


@pytest.mark.parametrize("title", NAMED)
def test_classes_are_named_by_a_file(title, tmp_path):
    files, options, expected = NAMED[title]
    flat(tmp_path, *[labels(0, 255 if "binary_masks" in options else 1)] * 2)
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    own = OwnData("--voc-dir", tmp_path, **options)
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            read_seg_set(own)
    else:
        data = read_seg_set(own)
        assert data.classes == expected
        assert data.remarks == []


def test_vocs_list_of_classes_of_boxes_names_no_masks(tmp_path):
    layout = SegSet(tmp_path, {})
    for folder in ("SegmentationClass", "Annotations"):
        (tmp_path / folder).mkdir()
    (tmp_path / "classes.txt").write_text("cat\ndog\n", encoding="utf-8")
    assert class_names(layout, OwnData("--data", tmp_path))[:2] == ("background", "aeroplane")
    (tmp_path / "Annotations").rmdir()
    assert class_names(layout, OwnData("--data", tmp_path)) == ("cat", "dog")


@pytest.mark.parametrize(
    ("values", "count"), [((0,), 2), ((1, 2), 3), ((0, 254), 255), ((0, 1, 255), 2), ((255, 0, 5), 6)]
)
def test_classes_are_counted_by_the_highest_label(values, count, tmp_path):
    flat(tmp_path, labels(0, 1), labels(*values))
    data = read_seg_set(OwnData("--voc-dir", tmp_path))
    assert data.classes == ("background", *(f"class {i}" for i in range(1, count)))
    (remark,) = data.remarks
    assert remark.endswith(f"no labels.txt names the classes; from the masks: {', '.join(data.classes)}")


def wide(*values: int) -> np.ndarray:
    return np.repeat(np.resize(np.array(values, np.int32), SIDE[1])[:, None], SIDE[0], 1)


def test_masks_of_every_type_are_counted(tmp_path):
    """Palettes, grey values, one bit, 16 and 32 bits: labels and pixels as NumPy counts them."""
    palette = Image.fromarray(labels(0, 2, 3))
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 9, 9, 9])
    made = {
        "palette.png": (palette, labels(0, 2, 3)),
        "grey.png": (Image.fromarray(labels(1, 255)), labels(1, 255)),
        "bit.png": (Image.fromarray(labels(0, 1).astype(bool)), labels(0, 1)),
        "16.png": (Image.fromarray(wide(0, 300, 2).astype(np.uint16)), wide(0, 300, 2)),
        "32.tif": (Image.fromarray(wide(0, 70_000, -3)), wide(0, 70_000, -3)),
        "float.tif": (Image.fromarray(wide(0, 4, 2).astype(np.float32)), wide(0, 4, 2)),
    }
    for name, (image, expected) in made.items():
        image.save(tmp_path / name)
        mask = read_mask(tmp_path / name)
        values, counts = np.unique(expected, return_counts=True)
        assert (mask.problem, mask.size) == ("", SIDE), name
        assert mask.pixels == dict(zip(values.tolist(), counts.tolist(), strict=True)), name
    for name, mode in (("colour.png", "RGB"), ("clear.png", "RGBA"), ("both.png", "LA")):
        picture(1).convert(mode).save(tmp_path / name)
        assert read_mask(tmp_path / name) == Mask("mask-colour", mode)
    assert read_mask(tmp_path / "gone.png").problem == "mask-unreadable"


def test_a_mask_that_cannot_be_read_says_why_in_a_line(tmp_path, monkeypatch):
    for message, detail in ((f"{'x' * 81}\nmore", "x" * 80), ("", "OSError")):

        def fail(file: object, formats: object, message: str = message) -> None:
            raise OSError(message) if message else OSError

        (tmp_path / "a.png").write_bytes(b"1")
        monkeypatch.setattr("PIL.Image.open", fail)
        assert read_mask(tmp_path / "a.png") == Mask("mask-unreadable", detail)


def test_pictures_and_masks_of_more_pixels_than_allowed(tmp_path):
    flat(tmp_path)
    pixels = SIDE[0] * SIDE[1]
    (findings,) = read_seg_set(OwnData("--voc-dir", tmp_path, max_pixels=pixels - 1)).findings.values()
    errors = {finding.code: finding for finding in findings if finding.severity == "error"}
    assert {code: finding.count for code, finding in errors.items()} == {"mask-unreadable": 10, "picture-too-large": 10}
    assert f"{SIDE[0]} x {SIDE[1]} px; --max-pixels allows" in errors["mask-unreadable"].examples[0]
    (findings,) = read_seg_set(OwnData("--voc-dir", tmp_path, max_pixels=pixels)).findings.values()
    assert not [finding for finding in findings if finding.severity == "error"]


def test_the_labels_of_many_rows_are_added_up(tmp_path):
    """Masks are counted some rows at a time."""
    for kind in (np.uint8, np.int32):
        mask = np.repeat(np.arange(1000, dtype=np.int32)[:, None] % 3, 2, 1).astype(kind)
        Image.fromarray(mask).save(tmp_path / "a.tif")
        assert read_mask(tmp_path / "a.tif").pixels == {0: 668, 1: 666, 2: 666}


def findings_of(folder: Path, names: str | None = None, **options: Any) -> dict[str, list[str]]:
    """Examples by code, of a set that is not split."""
    if names:
        (folder / "labels.txt").write_text("\n".join(names), encoding="utf-8")
    data = read_seg_set(OwnData("--voc-dir", folder, **options))
    return {finding.code: list(finding.examples) for finding in data.all_findings}


def outside(label: int, pixels: int, first: int, most: int, masks: int = 1) -> str:
    return f"{among(label, pixels, first, masks)}, allowed are 0 to {most}"


def among(label: int, pixels: int, first: int, masks: int = 1) -> str:
    return f"label {label}: {pixels} pixels in {masks} mask{'s' * (masks > 1)} (p{first}.png)"


LABELS: dict[str, tuple[list[np.ndarray], str, bool, dict[str, list[str]]]] = {
    # title: masks, names of the classes, whether binary, and what is found
    "all inside": ([labels(0, 1), labels(2)], "bls", False, {}),
    "one beyond the last": (
        [labels(0, 1), labels(0, 2), labels(2)], "bl", False, {"mask-labels": [outside(2, 600 + 1200, 1, 1, 2)]},
    ),
    "below 0": ([wide(0, -1), labels(1)], "bl", False, {"mask-labels": [outside(-1, 600, 0, 1)]}),
    "two outside": (
        [labels(0, 1, 5), labels(0, 254)], "bl", False,
        {"mask-labels": [outside(5, 400, 0, 1), outside(254, 600, 1, 1)]},
    ),
    "none of the first": ([labels(1), labels(2)], "bls", False, {"mask-class-unused": ["0 b"]}),
    "void in half": ([labels(0, 1, 255, 255), labels(0, 1)], "bl", False, {}),
    "void in more than half": (
        [labels(0, 1, 255, 255, 255), labels(0, 1)], "bl", False, {"mask-void": ["p0.png: 60.0% of the pixels"]},
    ),
    "nothing but void in one": ([labels(0, 1), labels(255)], "bl", False,
        {"mask-void-only": ["p1.png: 100.0% of the pixels"]}),
    "void beside class 1": ([labels(1, 255)] * 2, "bl", False,
        {"mask-one-label": ["label 1: 1200 pixels, label 255: 1200 pixels"], "mask-class-unused": ["0 b"]}),
    "nothing but void": ([labels(255)] * 2, "bl", False, {"mask-binary": ["label 255: 2400 pixels"]}),
    "nothing but background": ([labels(0)] * 2, "bl", False,
        {"mask-one-label": ["label 0: 2400 pixels"], "mask-class-unused": ["1 l"]}),
    "binary": ([labels(0, 255)] * 2, "bl", True, {}),
    "binary without objects": ([labels(0)] * 2, "bl", True,
        {"mask-one-label": ["label 0: 2400 pixels"], "mask-class-unused": ["1 l"]}),
    "binary with 1 as well": ([labels(0, 1, 255)] * 2, "bl", True, {"mask-not-binary": [among(1, 800, 0, 2)]}),
    "binary with others": ([labels(0, 7, 255)] * 2, "bl", True, {"mask-not-binary": [among(7, 800, 0, 2)]}),
}  # fmt: skip


@pytest.mark.parametrize("title", LABELS)
def test_labels_are_judged_to_the_exact_limit(title, tmp_path):
    masks, names, binary, expected = LABELS[title]
    for i, mask in enumerate(masks):
        pair(
            tmp_path / "images", tmp_path / "masks", f"p{i}.png", i, mask, ".png" if mask.dtype == np.uint8 else ".tif"
        )
    found = findings_of(tmp_path, names, binary_masks=binary)
    assert {code: [text.replace(".tif", ".png") for text in texts] for code, texts in found.items()} == expected


def test_long_names_of_classes_are_cut(tmp_path):
    flat(tmp_path, labels(0), labels(2))
    assert findings_of(tmp_path, ["b", "x" * 41, "c"]) == {"mask-class-unused": ["1 " + "x" * 40]}


IGNORED: dict[str, tuple[list[np.ndarray], dict[str, Any], dict[str, list[str]]]] = {
    # title: masks, options, and what is found; the classes are b, l, s
    "in no mask": ([labels(0, 1, 2)], {"ignore_label": 77}, {"ignore-label-unused": ["77"]}),
    "beyond the classes": ([labels(0, 1, 2, 11)], {"ignore_label": 11}, {}),
    "a class": ([labels(0, 1, 2)], {"ignore_label": 1},
        {"mask-class-unused": ["1 l"]}),
    "255, said out loud": ([labels(0, 1), labels(2, 255, 255)], {"ignore_label": 255},
        {"mask-void": ["p1.png: 66.7% of the pixels"]}),
    "255 and 0": ([labels(0, 255)], {"ignore_label": 255},
        {"mask-one-label": ["label 0: 600 pixels, label 255: 600 pixels"], "mask-class-unused": ["1 l", "2 s"]}),
    "nothing else": ([labels(7), labels(255)], {"ignore_label": 7},
        {"mask-one-label": ["label 7: 1200 pixels, label 255: 1200 pixels"],
         "mask-void-only": ["p0.png: 100.0% of the pixels", "p1.png: 100.0% of the pixels"],
         "mask-class-unused": ["0 b", "1 l", "2 s"]}),
    "beside binary masks": ([labels(0, 255, 7)], {"ignore_label": 7, "binary_masks": True},
        {"mask-class-unused": ["2 s"]}),
}  # fmt: skip


@pytest.mark.parametrize("title", IGNORED)
def test_a_label_may_be_ignored(title, tmp_path):
    masks, options, expected = IGNORED[title]
    flat(tmp_path, *masks)
    assert findings_of(tmp_path, "bls", **options) == expected


def test_mmseg_ignores_the_label_too(deeplab, tmp_path):
    """Labels that name no class: the classes end before the ignored one."""
    flat(tmp_path, *[labels(0, 1, 3)] * 4)
    config = copy.deepcopy(deeplab)
    remarks = use_voc_dir(config, OwnData("--voc-dir", tmp_path, tmp_path / "work", val_split=0.5, ignore_label=3))
    assert {owner["num_classes"] for owner in class_count_owners(config.model)} == {2}
    assert any("joins 2 data sets" in remark for remark in remarks)
    (dataset,) = leaf_datasets(config.train_dataloader)
    dataset.pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]
    init_default_scope("mmseg")
    assert DATASETS.build(dataset)[0]["gt_seg_map"].tolist() == labels(0, 1, 255).tolist()


def test_binary_masks_have_no_other_meaning_for_their_labels(tmp_path):
    for label in (1, 255):
        with pytest.raises(UserError, match=f"^--ignore-label {label}: --binary-masks reads 255 as class 1; give one"):
            OwnData("--voc-dir", tmp_path, binary_masks=True, ignore_label=label)


def cmyk(path: Path) -> None:
    picture(3).convert("CMYK").save(path, "JPEG")


def mirrored(path: Path, orientation: int = 2) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    picture(3).save(path, exif=tags)


def stored_upright(folder: Path) -> None:
    """The mask is turned as the picture will be."""
    mirrored(folder / "images/p1.png", 6)
    Image.fromarray(labels(0, 1).T).save(folder / "masks/p1.png")


FILES_OF_PAIRS: dict[str, tuple[Callable[[Path], object], dict[str, list[str]]]] = {
    "mirrored": (lambda d: mirrored(d / "images/p1.png"), {"picture-exif": ["p1.png"]}),
    "turned with its mask": (stored_upright, {"picture-exif": ["p1.png"]}),
    "turned without its mask": (
        lambda d: mirrored(d / "images/p1.png", 6), {"picture-rotated": ["p1.png"], "picture-exif": ["p1.png"]},
    ),
    "upright": (lambda d: mirrored(d / "images/p1.png", 1), {}),
    "CMYK": (lambda d: cmyk(d / "images/p1.png"), {"picture-cmyk": ["p1.png"]}),
    "16 bits": (
        lambda d: Image.fromarray(wide(0, 9).astype(np.uint16)).save(d / "images/p1.png"),
        {"picture-16-bit": ["p1.png"]},
    ),
    "no mask": (gone, {"mask-missing": ["p1.png"]}),
    "no masks at all": (
        lambda d: ((d / "train.txt").write_text("p0\np1", encoding="utf-8"), shutil.rmtree(d / "masks"),
                   (d / "masks").mkdir()),
        {"no-pairs": ["2 pictures, the first is p0.png"], "mask-class-unused": ["0 b", "1 l"]},
    ),
    "another size": (
        lambda d: Image.fromarray(labels(0, 1)[1:]).save(d / "masks/p1.png"),
        {"mask-size": ["p1.png: 40 x 29, its picture 40 x 30"]},
    ),
    "empty picture": (lambda d: (d / "images/p1.png").write_bytes(b""), {"picture-empty": ["p1.png"]}),
    "picture of text": (
        lambda d: (d / "images/p1.png").write_bytes(b"no"),
        {"picture-unreadable": ["p1.png: not a known picture format"]},
    ),
    "mask of no use": (
        lambda d: picture(3).save(d / "masks/p1.png"), {"mask-colour": ["p1.png: RGB"]},
    ),
    "JPEG": (
        lambda d: ((d / "masks/p1.png").unlink(), Image.fromarray(labels(1)).save(d / "masks/p1.JPG")),
        {"mask-jpeg": ["p1.JPG"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("title", FILES_OF_PAIRS)
def test_everything_that_is_wrong_with_files_is_found(title, tmp_path):
    spoil, expected = FILES_OF_PAIRS[title]
    flat(tmp_path, labels(0, 1), labels(0, 1))
    spoil(tmp_path)
    assert findings_of(tmp_path, "bl") == expected


def test_pixels_of_pictures_are_read_on_demand(tmp_path):
    flat(tmp_path, labels(0, 1), labels(0, 1))
    content = bytearray((tmp_path / "images/p1.png").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "images/p1.png").write_bytes(content)
    own = OwnData("--voc-dir", tmp_path)
    assert read_seg_set(own).all_findings == []
    for decode in (False, True):
        data = read_seg_set(own, decode=decode)
        assert [finding.code for finding in data.all_findings] == ["picture-unreadable"] * decode
    assert [picture.problem for picture in data.pictures["train"]] == ["", "picture-unreadable"]


def test_pairs_are_written_as_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs = [Pair(Path("a.png"), Path("b.png")), Pair(Path("c.png"), Path("masks/c.png"))]
    written = write_pairs(pairs, Path("work/pairs.txt"))
    assert written == tmp_path / "work/pairs.txt"
    assert [json.loads(line) for line in written.read_text(encoding="utf-8").splitlines()] == [
        [str(tmp_path / "a.png"), str(tmp_path / "b.png")], [str(tmp_path / "c.png"), str(tmp_path / "masks/c.png")],
    ]  # fmt: skip


def test_where_nothing_fits_the_message_says_what_was_found(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match=r"no pictures with masks found; expected are .*; found: photos/$"):
        read_seg_set(OwnData("--voc-dir", tmp_path))
