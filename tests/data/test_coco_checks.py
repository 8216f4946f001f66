"""Every way in which a COCO data set can be wrong: found, named, mended or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from mmms_plugin.data.coco_file import CocoFile
from mmms_plugin.data.coco_set import read_splits
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.data.rules import RULES
from tests.data.small_sets import coco_content, picture, write_coco

Spoil = Callable[[dict[str, Any], Path], object]


def read(folder: Path, masks: bool = True) -> CocoFile:
    own = OwnData("--coco-dir", folder, folder, split="train", training=False)
    return read_splits(own, masks=masks)["train"]


def objects(**changes: Any) -> Spoil:
    """Change the first annotation."""
    return lambda content, folder: content["annotations"][0].update(changes)


def first_image(**changes: Any) -> Spoil:
    return lambda content, folder: content["images"][0].update(changes)


def without(kind: str, key: str) -> Spoil:
    return lambda content, folder: content[kind][0].pop(key)


def save(name: str, make: Callable[[Path], object]) -> Spoil:
    return lambda content, folder: make(folder / "images" / name)


def rotated(path: Path, size: tuple[int, int]) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    picture(9, size).save(path, exif=tags)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


NAN = float("nan")
SPOILT: dict[str, tuple[str, Spoil]] = {
    # title: the code that is found, and how
    "no images": ("no-images", lambda c, f: c.update(images=[], annotations=[])),
    "no categories": ("no-categories", lambda c, f: c.update(categories=[], annotations=[])),
    "no objects": ("no-objects", lambda c, f: c["annotations"].clear()),
    "category without id": ("category-id", without("categories", "id")),
    "category id is text": ("category-id", lambda c, f: c["categories"][0].update(id="1")),
    "category ids twice": ("category-id-twice", lambda c, f: c["categories"][0].update(id=2)),
    "category without name": ("category-name", without("categories", "name")),
    "category name is a number": ("category-name", lambda c, f: c["categories"][0].update(name=7)),
    "category name twice": ("category-name-twice", lambda c, f: c["categories"][0].update(name="stick")),
    "image without id": ("image-id", without("images", "id")),
    "image id twice": ("image-id-twice", first_image(id=1)),
    "image without file_name": ("file-name", without("images", "file_name")),
    "file_name is a list": ("file-name", first_image(file_name=["p0.jpg"])),
    "file_name twice": ("file-name-twice", first_image(file_name="p1.jpg")),
    "backslashes": ("backslashes", first_image(file_name="images\\p0.jpg")),
    "absolute": ("file-name-outside", first_image(file_name="/etc/p0.jpg")),
    "drive": ("file-name-outside", first_image(file_name="C:\\me\\p0.jpg")),
    "climbs out": ("file-name-outside", first_image(file_name="../../p0.jpg")),
    "URL": ("file-name-outside", first_image(file_name="http://h/data/p0.jpg?d=1")),
    "other folder": ("file-name-elsewhere", first_image(file_name="upload/1/p0.jpg")),
    "ambiguous": (
        "file-name-ambiguous",
        lambda c, f: [c["images"][i].update(file_name=f"{i}/p0.jpg") for i in (0, 1)],
    ),
    "image without width": ("image-size", without("images", "width")),
    "width is null": ("image-size", first_image(width=None)),
    "width and height swapped": ("image-size-wrong", first_image(width=30, height=40)),
    "enlarged": ("image-size-scaled", first_image(width=80, height=60)),
    "boxes of a larger picture": (
        "image-size-scaled",
        lambda c, f: (c["images"][0].update(width=99, height=70), c["annotations"][0].update(bbox=[70, 50, 9, 9])),
    ),
    "annotation without id": ("annotation-id", without("annotations", "id")),
    "annotation id 0": ("annotation-id", objects(id=0)),
    "annotation id twice": ("annotation-id", objects(id=2)),
    "annotation id is text": ("annotation-id", objects(id="a1")),
    "unknown image": ("unknown-image", objects(image_id=77)),
    "no image_id": ("unknown-image", without("annotations", "image_id")),
    "unknown category": ("unknown-category", objects(category_id=77)),
    "no category_id": ("unknown-category", without("annotations", "category_id")),
    "iscrowd missing": ("iscrowd", without("annotations", "iscrowd")),
    "iscrowd true": ("iscrowd", objects(iscrowd=True)),
    "no bbox": ("box-missing", without("annotations", "bbox")),
    "no bbox, no mask": ("box-and-mask-missing", objects(bbox=[], segmentation=[])),
    "box of text": ("box-not-numbers", objects(bbox=["4", "5", "10", "10"])),
    "box is text": ("box-not-numbers", objects(bbox="4 5 10 10")),
    "box of three": ("box-not-numbers", objects(bbox=[4, 5, 10])),
    "box with null": ("box-not-numbers", objects(bbox=[4, 5, None, 10])),
    "NaN box": ("box-nan", objects(bbox=[4, 5, NAN, 10])),
    "infinite box": ("box-nan", objects(bbox=[4, float("inf"), 10, 10])),
    "box of 400 digits": ("box-nan", objects(bbox=[4, 5, 10**400, 10])),
    "negative box": ("box-negative", objects(bbox=[4, 5, -10, 10])),
    "flat box": ("box-small", objects(bbox=[4, 5, 0, 10])),
    "box outside": ("box-outside", objects(bbox=[50, 5, 10, 10])),
    "box leaves": ("box-leaves", objects(bbox=[30, 5, 20, 10])),
    "no area": ("area", without("annotations", "area")),
    "area 0": ("area", objects(area=0)),
    "negative area": ("area", objects(area=-3.5)),
    "area is NaN": ("area", objects(area=NAN)),
    "area is text": ("area", objects(area="100")),
    "no segmentation": ("segmentation-missing", without("annotations", "segmentation")),
    "two points": ("segmentation-bad", objects(segmentation=[[4, 5, 14, 15]])),
    "two points of several": ("polygon-short", objects(segmentation=[[4, 5, 14, 15], [4, 5, 14, 5, 14, 15]])),
    "odd polygon": ("segmentation-bad", objects(segmentation=[[4, 5, 14, 15, 4, 15, 3]])),
    "NaN polygon": ("segmentation-bad", objects(segmentation=[[4, 5, NAN, 15, 4, 15]])),
    "polygon outside": ("polygon-outside", objects(segmentation=[[4, 5, 90, 15, 4, 15]])),
    "RLE of another size": ("segmentation-bad", objects(segmentation={"size": [40, 30], "counts": [1200]})),
    "RLE too short": ("segmentation-bad", objects(segmentation={"size": [30, 40], "counts": "08"})),
    "object twice": ("object-twice", lambda c, f: c["annotations"].append({**c["annotations"][0], "id": 99})),
    "unused class": ("class-unused", lambda c, f: c["categories"].append({"id": 3, "name": "ring"})),
    "image without objects": (
        "image-unused",
        lambda c, f: c.update(annotations=[a for a in c["annotations"] if a["image_id"]]),
    ),
    "corners": (
        "box-corners",
        lambda c, f: [
            a.update(bbox=[25, 18, 35, 28], segmentation=[[25, 18, 35, 18, 35, 28]]) for a in c["annotations"]
        ],
    ),
    "picture missing": ("picture-missing", save("p0.jpg", Path.unlink)),
    "empty picture": ("picture-empty", save("p0.jpg", lambda path: path.write_bytes(b""))),
    "text for a picture": (
        "picture-unreadable",
        save("p0.jpg", lambda path: path.write_text("<html>not found", encoding="utf-8")),
    ),
    "truncated JPEG": ("picture-truncated", save("p0.jpg", cut)),
    "EXIF, boxes turned": ("picture-exif", save("p0.jpg", lambda path: rotated(path, (30, 40)))),
    "EXIF, boxes as stored": ("picture-rotated", save("p0.jpg", lambda path: rotated(path, (40, 30)))),
    "CMYK": ("picture-cmyk", save("p0.jpg", lambda path: picture(1).convert("CMYK").save(path))),
    "16 bits": (
        "picture-16-bit",
        lambda c, f: (
            c["images"][0].update(file_name="p0.png"),
            cv2.imwrite(str(f / "images/p0.png"), np.full((30, 40, 3), 300, np.uint16)),
        ),
    ),
    "truncated PNG": (
        "picture-truncated",
        lambda c, f: (
            c["images"][0].update(file_name="p0.png"),
            picture(1).save(f / "images/p0.png"),
            cut(f / "images/p0.png"),
        ),
    ),
    "float TIFF": (
        "picture-unreadable",
        lambda c, f: (
            c["images"][0].update(file_name="p0.tif"),
            Image.fromarray(np.zeros((30, 40), np.float32)).save(f / "images/p0.tif"),
        ),
    ),
}


@pytest.mark.parametrize("title", SPOILT)
def test_each_problem_is_found_and_nothing_else_stops(title, tmp_path):
    """The expected code is found; where it is no error, no other error comes with it, and the mended file is sound."""
    code, spoil = SPOILT[title]
    content = coco_content()
    write_coco(tmp_path, content, "annotations/instances_train.json", "images")
    spoil(content, tmp_path)
    (tmp_path / "annotations/instances_train.json").write_text(json.dumps(content), encoding="utf-8")
    coco = read(tmp_path)
    found = {finding.code: finding for finding in coco.findings}
    assert code in found, [finding.text for finding in coco.findings]
    assert all("\n" not in finding.text for finding in found.values())
    errors = [finding.text for finding in found.values() if finding.severity == "error"]
    assert bool(errors) == (RULES[code].severity == "error"), errors
    assert coco.mended == any(finding.severity == "mended" for finding in found.values())
    if coco.mended and not errors:
        coco.write(tmp_path / "annotations/instances_train.json")
        again = read(tmp_path)
        assert [f.text for f in again.findings if f.severity != "warning"] == []


def test_a_sound_data_set_has_no_findings(tmp_path):
    write_coco(tmp_path, coco_content(), "annotations/instances_train.json", "images")
    coco = read(tmp_path)
    assert list(coco.findings) == []
    assert not coco.mended


def test_the_first_examples_and_the_number_are_told(tmp_path):
    content = coco_content(count=5)
    for annotation in content["annotations"]:
        annotation["bbox"][2] = -1
    write_coco(tmp_path, content, "train.json", "images")
    (finding,) = [f for f in read(tmp_path).findings if f.severity == "error"]
    assert finding.text.startswith(
        "boxes with a negative width or height: 10 (annotation 1: [4, 5, -1, 10]; annotation 2: [10, 0, -1, 20]; "
        "annotation 3: [4, 5, -1, 10] and 7 more); boxes are [x, y, width, height]"
    )
    assert len(finding.as_json()["examples"]) == 10


def test_boxes_alone_need_no_masks(tmp_path):
    content = coco_content()
    content["annotations"][0]["segmentation"] = []
    content["annotations"][1]["segmentation"] = [[1, 2, 3]]
    write_coco(tmp_path, content, "train.json", "images")
    assert {(f.code, f.severity) for f in read(tmp_path, masks=False).findings} == {("segmentation-bad", "warning")}


def test_names_are_never_followed_out_of_the_folder(tmp_path):
    """A picture that is only outside counts as missing, whatever its name says."""
    content = coco_content(count=1)
    write_coco(tmp_path / "set", content, "train.json", "images")
    picture(5).save(tmp_path / "secret.jpg")
    for name in ("../secret.jpg", str(tmp_path / "secret.jpg"), "images/../../secret.jpg"):
        content["images"][0]["file_name"] = name
        (tmp_path / "set/train.json").write_text(json.dumps(content), encoding="utf-8")
        assert {"file-name-outside", "picture-missing"} <= {f.code for f in read(tmp_path / "set").findings}
