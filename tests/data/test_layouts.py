"""Layouts that labelling tools and people leave behind: annotation files, pictures and splits are found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mmms_plugin.data.coco_set import read_splits, write_mended
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.errors import UserError
from tests.data.small_sets import coco_content, write_coco


def renamed(content: dict, pattern: str) -> dict:
    for image in content["images"]:
        image["file_name"] = pattern.format(Path(image["file_name"]).name)
    return content


def roboflow(folder: Path) -> None:
    for i, split in enumerate(("train", "valid", "test")):
        write_coco(folder, coco_content(3 * i), f"{split}/_annotations.coco.json", split)


def cvat_subsets(folder: Path) -> None:
    for i, split in enumerate(("Train", "Validation")):
        write_coco(folder, coco_content(3 * i), f"annotations/instances_{split}.json", f"images/{split}")


def plain(folder: Path) -> None:
    write_coco(folder, coco_content(0), "train.json", "images")
    write_coco(folder, coco_content(3), "val.json", "images")


def fiftyone(folder: Path) -> None:
    for i, split in enumerate(("train", "validation")):
        write_coco(folder, coco_content(3 * i), f"{split}/labels.json", f"{split}/data")


def coco_2017(folder: Path) -> None:
    for i, split in enumerate(("train", "val")):
        write_coco(folder, coco_content(3 * i), f"annotations/instances_{split}2017.json", f"{split}2017")
        (folder / f"annotations/captions_{split}2017.json").write_text("{}", encoding="utf-8")
        (folder / f"annotations/person_keypoints_{split}2017.json").write_text("{}", encoding="utf-8")


@pytest.mark.parametrize("layout", [roboflow, cvat_subsets, plain, fiftyone, coco_2017], ids=lambda made: made.__name__)
def test_train_and_val_are_found_with_their_pictures(layout: Callable[[Path], None], tmp_path):
    layout(tmp_path)
    splits = read_splits(OwnData("--coco-dir", tmp_path), masks=True)
    assert [image["id"] for image in splits["train"].images] == [0, 1, 2]
    assert [image["id"] for image in splits["val"].images] == [3, 4, 5]
    for coco in splits.values():
        assert [f.text for f in coco.findings if f.severity == "error"] == []
        assert all((coco.image_dir / image["file_name"]).is_file() for image in coco.images)


def test_the_test_split_is_read_with_the_classes_of_training(tmp_path):
    roboflow(tmp_path)
    splits = read_splits(OwnData("--coco-dir", tmp_path, split="test", training=False), masks=True)
    assert [image["id"] for image in splits["test"].images] == [6, 7, 8]
    assert set(splits) == {"train", "test"}


def cvat_default(folder: Path) -> None:
    write_coco(folder, coco_content(0, 10), "annotations/instances_default.json", "images/default")


def label_studio(folder: Path) -> None:
    content = coco_content(0, 10)
    write_coco(folder, content, "result.json", "images")
    (folder / "result.json").write_text(json.dumps(renamed(content, "images\\{}")), encoding="utf-8")


def label_studio_upload(folder: Path) -> None:
    content = coco_content(0, 10)
    write_coco(folder, content, "result.json", "images")
    (folder / "result.json").write_text(
        json.dumps(renamed(content, "../../label-studio/data/media/upload/1/{}")), encoding="utf-8"
    )


@pytest.mark.parametrize("layout", [cvat_default, label_studio, label_studio_upload], ids=lambda made: made.__name__)
def test_one_file_alone_is_split_by_picture(layout: Callable[[Path], None], tmp_path):
    layout(tmp_path / "set")
    with pytest.raises(UserError, match=r"no annotations for val \(found: .*--val-split 0.2"):
        read_splits(OwnData("--coco-dir", tmp_path / "set"), masks=True)
    sides = []
    for seed in (0, 0, 1):
        own = OwnData("--coco-dir", tmp_path / "set", val_split=0.3, split_seed=seed)
        files = write_mended(read_splits(own, masks=True), tmp_path / f"work{len(sides)}")
        train, val = (json.loads(files[split].read_text(encoding="utf-8")) for split in ("train", "val"))
        assert (len(train["images"]), len(val["images"])) == (7, 3)
        for part in (train, val):
            ids = {image["id"] for image in part["images"]}
            assert len(part["annotations"]) == 2 * len(ids)
            assert {annotation["image_id"] for annotation in part["annotations"]} == ids
        assert not {i["id"] for i in train["images"]} & {i["id"] for i in val["images"]}
        sides.append([image["file_name"] for image in val["images"]])
    assert sides[0] == sides[1] != sides[2]
    for name in sides[0]:  # a test holds back the same pictures
        own = OwnData("--coco-dir", tmp_path / "set", val_split=0.3, training=False)
        assert name in [image["file_name"] for image in read_splits(own, masks=True)["val"].images]


def test_augmented_copies_of_a_picture_stay_on_one_side(tmp_path):
    content = coco_content(0, 12)
    for image in content["images"]:
        image["file_name"] = f"scene{image['id'] // 3}_jpg.rf.{image['id']}abc.jpg"
    write_coco(tmp_path, content, "train/_annotations.coco.json", "train")
    splits = read_splits(OwnData("--coco-dir", tmp_path, val_split=0.5), masks=True)
    sides = [{image["file_name"].split(".rf.")[0] for image in splits[name].images} for name in ("train", "val")]
    assert not sides[0] & sides[1]


def test_files_named_by_options(tmp_path):
    train = write_coco(tmp_path / "a", coco_content(0), "x/mine.json", "elsewhere/deep")
    val = write_coco(tmp_path / "a", coco_content(3), "y/other.json", "elsewhere/deep")
    own = OwnData("--train-ann", None, train_ann=train, val_ann=val, img_dir=tmp_path / "a/elsewhere/deep")
    splits = read_splits(own, masks=True)
    assert [f.text for coco in splits.values() for f in coco.findings] == []
    with pytest.raises(UserError, match="no annotations for val"):
        read_splits(OwnData("--train-ann", None, train_ann=train), masks=True)
    with pytest.raises(UserError, match="--train-ann FILE"):
        read_splits(OwnData("--val-ann", None, val_ann=val), masks=True)


def test_categories_in_another_order_are_aligned(tmp_path):
    plain(tmp_path)
    content = json.loads((tmp_path / "val.json").read_text(encoding="utf-8"))
    content["categories"] = [{"id": 7, "name": "stick"}]
    content["annotations"] = [{**a, "category_id": 7} for a in content["annotations"] if a["category_id"] == 2]
    (tmp_path / "val.json").write_text(json.dumps(content), encoding="utf-8")
    splits = read_splits(OwnData("--coco-dir", tmp_path), masks=True)
    assert splits["val"].classes == splits["train"].classes == ("disc", "stick")
    assert [c["id"] for c in splits["val"].content["categories"]] == [8, 7]
    assert "category-order" in splits["val"].findings


def yolo(folder: Path) -> None:
    for name in ("images", "labels"):
        (folder / name).mkdir()
    (folder / "labels/1.txt").touch()
    (folder / "data.yaml").touch()


def pascal(folder: Path) -> None:
    (folder / "Annotations").mkdir()
    (folder / "Annotations/1.xml").touch()


def labelme(folder: Path) -> None:
    for i in range(60):
        (folder / f"{i}.json").write_text("{}", encoding="utf-8")


def several(folder: Path) -> None:
    for name in ("train_a", "train_b"):
        write_coco(folder, coco_content(), f"{name}.json", "images")


NOTHING_FITS = {
    yolo: r"found: images/, labels/, data.yaml; this looks like YOLO's layout: export it as COCO JSON",
    pascal: r"boxes in XML files are Pascal VOC's",
    labelme: r"one JSON file for each picture, as labelme writes them",
    several: r"2 files may be the annotations for train \(train_a.json, train_b.json\): choose by --train-ann FILE",
    (lambda folder: None): r"found: nothing; expected are annotations/instances_\{train,val\}.json",
}


@pytest.mark.parametrize("make", NOTHING_FITS)
def test_where_nothing_fits_the_message_says_what_was_found(make, tmp_path):
    make(tmp_path)
    with pytest.raises(UserError, match=NOTHING_FITS[make]) as caught:
        read_splits(OwnData("--coco-dir", tmp_path), masks=True)
    assert "\n" not in str(caught.value)
