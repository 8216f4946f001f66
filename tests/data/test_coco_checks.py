"""Every way in which a COCO data set can be wrong: found, named, mended or refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from mmms_plugin.coco.rules import RULES
from tests.data.small_sets import coco_content, examples, one_picture, picture, read, write_coco

Spoil = Callable[[dict[str, Any], Path], object]


def objects(**changes: Any) -> Spoil:
    """Change the first annotation."""
    return lambda content, folder: content["annotations"][0].update(changes)


def first_image(**changes: Any) -> Spoil:
    return lambda content, folder: content["images"][0].update(changes)


def without(kind: str, key: str) -> Spoil:
    return lambda content, folder: content[kind][0].pop(key)


def save(name: str, make: Callable[[Path], object]) -> Spoil:
    return lambda content, folder: make(folder / "images" / name)


def rotated(path: Path, size: tuple[int, int], orientation: int = 6) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    picture(9, size).save(path, exif=tags)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


NAN = float("nan")


LONG = "x" * 61  # names are cut after 60 characters


SPOILT: dict[str, tuple[dict[str, str], Spoil]] = {
    # title: everything that is found, the code that it is about first, and how; "..." where a library words it
    "no images": ({"no-images": "", "no-objects": ""}, lambda c, f: c.update(images=[], annotations=[])),
    "no categories": ({"no-categories": "", "no-objects": ""}, lambda c, f: c.update(categories=[], annotations=[])),
    "no objects": ({"no-objects": ""}, lambda c, f: c["annotations"].clear()),
    "category without id": (
        {
            "category-id": "category number 1",
            "unknown-category": "annotation 1: category_id 1; annotation 3: category_id 1; annotation 5: category_id 1",
            "class-unused": "disc",
        },
        without("categories", "id"),
    ),
    "category id is text": (
        {
            "category-id": "category number 1: '1'",
            "unknown-category": "annotation 1: category_id 1; annotation 3: category_id 1; annotation 5: category_id 1",
            "class-unused": "disc",
        },
        lambda c, f: c["categories"][0].update(id="1"),
    ),
    "category ids twice": (
        {
            "category-id-twice": "2",
            "unknown-category": "annotation 1: category_id 1; annotation 3: category_id 1; annotation 5: category_id 1",
        },
        lambda c, f: c["categories"][0].update(id=2),
    ),
    "category without name": ({"category-name": "category 1"}, without("categories", "name")),
    "category name is a number": ({"category-name": "category 1: 7"}, lambda c, f: c["categories"][0].update(name=7)),
    "category name twice": ({"category-name-twice": "'stick'"}, lambda c, f: c["categories"][0].update(name="stick")),
    "image without id": (
        {
            "image-id": "image number 1",
            "unknown-image": "annotation 1: image_id 0; annotation 2: image_id 0",
            "image-unused": "p0.jpg",
        },
        without("images", "id"),
    ),
    "image id twice": (
        {"image-id-twice": "1", "unknown-image": "annotation 1: image_id 0; annotation 2: image_id 0"},
        first_image(id=1),
    ),
    "image without file_name": ({"file-name": "image 0"}, without("images", "file_name")),
    "file_name is a list": ({"file-name": "image 0: ['p0.jpg']"}, first_image(file_name=["p0.jpg"])),
    "file_name twice": ({"file-name-twice": "p1.jpg"}, first_image(file_name="p1.jpg")),
    "backslashes": (
        {"backslashes": "images\\p0.jpg", "file-name-elsewhere": "images/p0.jpg"},
        first_image(file_name="images\\p0.jpg"),
    ),
    "absolute": ({"file-name-outside": "/etc/p0.jpg"}, first_image(file_name="/etc/p0.jpg")),
    "drive": (
        {"file-name-outside": "C:/me/p0.jpg", "backslashes": "C:\\me\\p0.jpg"},
        first_image(file_name="C:\\me\\p0.jpg"),
    ),
    "climbs out": ({"file-name-outside": "../../p0.jpg"}, first_image(file_name="../../p0.jpg")),
    "URL": ({"file-name-outside": "http://h/data/p0.jpg?d=1"}, first_image(file_name="http://h/data/p0.jpg?d=1")),
    "other folder": ({"file-name-elsewhere": "upload/1/p0.jpg"}, first_image(file_name="upload/1/p0.jpg")),
    "ambiguous": (
        {
            "file-name-ambiguous": "0/p0.jpg; 1/p0.jpg",
            "picture-missing": "0/p0.jpg not in images; 1/p0.jpg not in images",
        },
        lambda c, f: [c["images"][i].update(file_name=f"{i}/p0.jpg") for i in (0, 1)],
    ),
    "image without width": ({"image-size": "p0.jpg"}, without("images", "width")),
    "width is null": ({"image-size": "p0.jpg"}, first_image(width=None)),
    "width and height swapped": (
        {"image-size-wrong": "p0.jpg: 30 x 40, the picture 40 x 30"},
        first_image(width=30, height=40),
    ),
    "enlarged": (
        {
            "image-size-scaled": "p0.jpg: 80 x 60, the picture 40 x 30",
            "segmentation-bad": "annotation 2: segmentation RLE size [30, 40] is not the image's [60, 80]",
        },
        first_image(width=80, height=60),
    ),
    "boxes of a larger picture": (
        {
            "image-size-scaled": "p0.jpg: 99 x 70, the picture 40 x 30",
            "segmentation-bad": "annotation 2: segmentation RLE size [30, 40] is not the image's [70, 99]",
        },
        lambda c, f: (c["images"][0].update(width=99, height=70), c["annotations"][0].update(bbox=[70, 50, 9, 9])),
    ),
    "annotation without id": ({"annotation-id": "annotation number 1: none"}, without("annotations", "id")),
    "annotation id 0": ({"annotation-id": "annotation number 1: 0"}, objects(id=0)),
    "annotation id twice": ({"annotation-id": "annotation number 1: 2; annotation number 2: 2"}, objects(id=2)),
    "annotation id is text": ({"annotation-id": "annotation number 1: 'a1'"}, objects(id="a1")),
    "unknown image": ({"unknown-image": "annotation 1: image_id 77"}, objects(image_id=77)),
    "no image_id": ({"unknown-image": "annotation 1: image_id missing"}, without("annotations", "image_id")),
    "unknown category": ({"unknown-category": "annotation 1: category_id 77"}, objects(category_id=77)),
    "no category_id": (
        {"unknown-category": "annotation 1: category_id missing"},
        without("annotations", "category_id"),
    ),
    "iscrowd missing": ({"iscrowd": "annotation 1"}, without("annotations", "iscrowd")),
    "iscrowd true": ({"iscrowd": "annotation 1"}, objects(iscrowd=True)),
    "no bbox": ({"box-missing": "annotation 1"}, without("annotations", "bbox")),
    "no bbox, no mask": (
        {"box-and-mask-missing": "annotation 1", "segmentation-missing": "annotation 1"},
        objects(bbox=[], segmentation=[]),
    ),
    "box of text": ({"box-not-numbers": "annotation 1: ['4', '5', '10', '10']"}, objects(bbox=["4", "5", "10", "10"])),
    "box is text": ({"box-not-numbers": "annotation 1: '4 5 10 10'"}, objects(bbox="4 5 10 10")),
    "box of three": ({"box-not-numbers": "annotation 1: [4, 5, 10]"}, objects(bbox=[4, 5, 10])),
    "box with null": ({"box-not-numbers": "annotation 1: [4, 5, None, 10]"}, objects(bbox=[4, 5, None, 10])),
    "NaN box": ({"box-nan": "annotation 1: [4, 5, nan, 10]"}, objects(bbox=[4, 5, NAN, 10])),
    "infinite box": ({"box-nan": "annotation 1: [4, inf, 10, 10]"}, objects(bbox=[4, float("inf"), 10, 10])),
    "box of 400 digits": (
        {"box-nan": "annotation 1: [4, 5, 100000000000000000...0000000000000000000, 10]"},
        objects(bbox=[4, 5, 10**400, 10]),
    ),
    "negative box": ({"box-negative": "annotation 1: [4, 5, -10, 10]"}, objects(bbox=[4, 5, -10, 10])),
    "flat box": ({"box-small": "annotation 1: [4, 5, 0, 10]"}, objects(bbox=[4, 5, 0, 10])),
    "box outside": ({"box-outside": "annotation 1: [50, 5, 10, 10] in 40 x 30"}, objects(bbox=[50, 5, 10, 10])),
    "box leaves": ({"box-leaves": "annotation 1: [30, 5, 20, 10] in 40 x 30"}, objects(bbox=[30, 5, 20, 10])),
    "no area": ({"area": "annotation 1: none"}, without("annotations", "area")),
    "area 0": ({"area": "annotation 1: 0"}, objects(area=0)),
    "negative area": ({"area": "annotation 1: -3.5"}, objects(area=-3.5)),
    "area is NaN": ({"area": "annotation 1: nan"}, objects(area=NAN)),
    "area is text": ({"area": "annotation 1: '100'"}, objects(area="100")),
    "no segmentation": ({"segmentation-missing": "annotation 1"}, without("annotations", "segmentation")),
    "two points": (
        {"segmentation-bad": "annotation 1: segmentation polygons must be ..."},
        objects(segmentation=[[4, 5, 14, 15]]),
    ),
    "two points of several": (
        {"polygon-short": "annotation 1"},
        objects(segmentation=[[4, 5, 14, 15], [4, 5, 14, 5, 14, 15]]),
    ),
    "odd polygon": (
        {"segmentation-bad": "annotation 1: segmentation polygons must be ..."},
        objects(segmentation=[[4, 5, 14, 15, 4, 15, 3]]),
    ),
    "NaN polygon": (
        {"segmentation-bad": "annotation 1: segmentation polygons must be ..."},
        objects(segmentation=[[4, 5, NAN, 15, 4, 15]]),
    ),
    "polygon of one point": ({"mask-empty": "annotation 1"}, objects(segmentation=[[4, 5] * 3])),
    "polygon beside the picture": (
        {"mask-empty": "annotation 1", "polygon-outside": "annotation 1"},
        objects(segmentation=[[90, 5, 99, 5, 99, 15]]),
    ),
    "run lengths of nothing": (
        {"mask-empty": "annotation 1"},
        objects(segmentation={"size": [30, 40], "counts": [1200]}),
    ),
    "masks of nothing": (
        {"no-masks": "6 masks", "mask-empty": "; ".join(f"annotation {i}" for i in range(1, 7))},
        lambda c, f: [a.update(segmentation=[[4, 5] * 3]) for a in c["annotations"]],
    ),
    "polygon outside": ({"polygon-outside": "annotation 1"}, objects(segmentation=[[4, 5, 90, 15, 4, 15]])),
    "RLE of another size": (
        {
            "segmentation-bad": "annotation 1: segmentation RLE size [40, 30] is not the image's [30, 40] (width and "
            "height swapped?)"
        },
        objects(segmentation={"size": [40, 30], "counts": [1200]}),
    ),
    "RLE too short": (
        {"segmentation-bad": "annotation 1: segmentation RLE is damaged: its counts do not sum to 30 * 40 pixels"},
        objects(segmentation={"size": [30, 40], "counts": "08"}),
    ),
    "object twice": (
        {"object-twice": "annotations 1 and 99"},
        lambda c, f: c["annotations"].append({**c["annotations"][0], "id": 99}),
    ),
    "unused class": ({"class-unused": "ring"}, lambda c, f: c["categories"].append({"id": 3, "name": "ring"})),
    "image without objects": (
        {"image-unused": "p0.jpg"},
        lambda c, f: c.update(annotations=[a for a in c["annotations"] if a["image_id"]]),
    ),
    "corners": (
        {
            "box-corners": "100% leave their picture as [x, y, width, height]; as [x1, y1, x2, y2] 100% are valid "
            "boxes inside it",
            "box-leaves": "; ".join(f"annotation {i}: [25, 18, 35, 28] in 40 x 30" for i in range(1, 7)),
        },
        lambda c, f: [
            a.update(bbox=[25, 18, 35, 28], segmentation=[[25, 18, 35, 18, 35, 28]]) for a in c["annotations"]
        ],
    ),
    "normalised": (
        {
            "box-normalised": "the highest number is 0.6",
            "box-small": "; ".join(f"annotation {i}: [0.1, 0.2, 0.5, 0.{i}]" for i in range(1, 7)),
        },
        lambda c, f: [a.update(bbox=[0.1, 0.2, 0.5, a["id"] / 10]) for a in c["annotations"]],
    ),
    "second category empty": (
        {
            "category-name": "category number 2",
            "category-id": "category number 2",
            "unknown-category": "annotation 2: category_id 2; annotation 4: category_id 2; annotation 6: category_id 2",
            "class-unused": "",
        },
        lambda c, f: c["categories"][1].clear(),
    ),
    "category id of 61 letters": (
        {"category-id": f"category number 3: '{LONG[:30]} ... {LONG[-30:]}'", "class-unused": "ring"},
        lambda c, f: c["categories"].append({"id": LONG, "name": "ring"}),
    ),
    "category id of 60 letters": (
        {"category-id": f"category number 3: '{LONG[:60]}'", "class-unused": "ring"},
        lambda c, f: c["categories"].append({"id": LONG[:60], "name": "ring"}),
    ),
    "category ids too large, broken and true": (
        {
            "category-id": "category number 3: 9223372036854775808; category number 4: -9.223372036854776e+18; "
            "category number 5: 3.5; category number 6: True",
            "class-unused": "c; d; e; f",
        },
        lambda c, f: c["categories"].extend(
            {"id": number, "name": name} for name, number in (("c", 2**63), ("d", -(2.0**63)), ("e", 3.5), ("f", True))
        ),
    ),
    "category name blank": ({"category-name": "category 1: ' '"}, lambda c, f: c["categories"][0].update(name=" ")),
    "two categories without name": (
        {"category-name": "category 1: ''; category 2: ''"},
        lambda c, f: [category.update(name="") for category in c["categories"]],
    ),
    "category name three times": (
        {"category-name-twice": "'stick'", "class-unused": "stick"},
        lambda c, f: c.update(categories=[{"id": i, "name": "stick"} for i in (1, 2, 3)]),
    ),
    "unused class of 50 letters": (
        {"class-unused": LONG[:40]},
        lambda c, f: c["categories"].append({"id": 3, "name": LONG[:50]}),
    ),
    "second image without id and name": (
        {
            "image-id": "image number 2",
            "file-name": "image 2",
            "unknown-image": "annotation 3: image_id 1; annotation 4: image_id 1",
            "image-unused": "None",
        },
        lambda c, f: [c["images"][1].pop(key) for key in ("id", "file_name")],
    ),
    "blank file_name": ({"file-name": "image 0: ' '"}, first_image(file_name=" ")),
    "file_name with a zero byte": ({"file-name": r"image 0: 'p0\x00.jpg'"}, first_image(file_name="p0\0.jpg")),
    "file_name that no system can have": ({"file-name": r"image 0: '\ud800.jpg'"}, first_image(file_name="\ud800.jpg")),
    "file_name is the root": ({"file-name": "image 0: '/'"}, first_image(file_name="/")),
    "file_name is a Windows root": ({"file-name": "image 0: '\\\\'"}, first_image(file_name="\\\\")),
    "file_name is the folder above": ({"file-name": "image 0: 'a/..'"}, first_image(file_name="a/..")),
    "file_name is the folder itself": ({"file-name": "image 0: './.'"}, first_image(file_name="./.")),
    "file_name is an address without a path": ({"file-name": "image 0: '?x://'"}, first_image(file_name="?x://")),
    "file_name is too long": (
        {"file-name": f"image 0: '{'x' * 30} ... {'x' * 26}.jpg'"},
        first_image(file_name=f"{'x' * 252}.jpg"),
    ),
    "file_name has too many folders": (
        {"file-name": f"image 0: '{'d/' * 15} ... {'d/' * 12}p0.jpg'"},
        first_image(file_name=f"{'d/' * 3000}p0.jpg"),
    ),
    "folder of a file_name is too long": (
        {"file-name-elsewhere": f"{'x' * 5000}/p0.jpg"},
        first_image(file_name=f"{'x' * 5000}/p0.jpg"),
    ),
    "file_name is a folder": (
        {"picture-unreadable": "sub.jpg: a folder, not a file"},
        lambda c, f: (c["images"][0].update(file_name="sub.jpg"), (f / "images/sub.jpg").mkdir()),
    ),
    "image without file_name and height": (
        {"file-name": "image 0", "segmentation-bad": "annotation 1: ..."},
        lambda c, f: [c["images"][0].pop(key) for key in ("file_name", "height")],
    ),
    "one picture in another folder listed twice": (
        {"file-name-twice": "upload/p0.jpg", "file-name-elsewhere": "upload/p0.jpg; upload/p0.jpg"},
        lambda c, f: [c["images"][i].update(file_name="upload/p0.jpg") for i in (0, 1)],
    ),
    "file_name twice with backslashes": (
        {
            "backslashes": "a\\p0.jpg; a\\p0.jpg",
            "file-name-twice": "a\\p0.jpg",
            "file-name-elsewhere": "a/p0.jpg; a/p0.jpg",
        },
        lambda c, f: [c["images"][i].update(file_name="a\\p0.jpg") for i in (0, 1)],
    ),
    "only names of addresses end at a question mark": (
        {"picture-missing": "p0.jpg?d=1 not in images", "file-name-outside": "/data/p0.jpg?d=1"},
        first_image(file_name="/data/p0.jpg?d=1"),
    ),
    "all pictures elsewhere": (
        {"picture-missing": "p0.jpg not in images; p1.jpg not in images; p2.jpg not in images"},
        lambda c, f: [(f / "images" / image["file_name"]).unlink() for image in c["images"]],
    ),
    "swapped, boxes at the slack of the picture": (
        {"segmentation-missing": "annotation 2", "image-size-wrong": "p0.jpg: 99 x 70, the picture 40 x 30"},
        lambda c, f: (
            c["images"][0].update(width=99, height=70),
            c["annotations"][0].update(bbox=[30, 25, 12.75, 7.5]),
            c["annotations"][1].pop("segmentation"),
        ),
    ),
    "negative annotation id": (
        {"annotation-id": "annotation number 2: -2"},
        lambda c, f: c["annotations"][1].update(id=-2),
    ),
    "annotation id 1.5": ({"annotation-id": "annotation number 1: 1.5"}, objects(id=1.5)),
    "second annotation of unknown image without id": (
        {"unknown-image": "annotation number 2: image_id None", "annotation-id": "annotation number 2: none"},
        lambda c, f: (c["annotations"][1].update(image_id=None), c["annotations"][1].pop("id")),
    ),
    "image and category unknown": (
        {"unknown-image": "annotation 1: image_id 3", "unknown-category": "annotation 1: category_id 0"},
        objects(image_id=3, category_id=0),
    ),
    "no bbox, mask of no use": (
        {
            "box-and-mask-missing": "annotation 1: its segmentation is of no use",
            "segmentation-bad": "annotation 1: segmentation polygons must be ...",
        },
        objects(bbox=None, segmentation=[[4, 5, 14, 15]]),
    ),
    "box of five": ({"box-not-numbers": "annotation 1: [4, 5, 10, 10, 1]"}, objects(bbox=[4, 5, 10, 10, 1])),
    "box with true": ({"box-not-numbers": "annotation 1: [4, 5, True, 10]"}, objects(bbox=[4, 5, True, 10])),
    "box is an object": ({"box-not-numbers": "annotation 1: {'x': 4}"}, objects(bbox={"x": 4})),
    "area infinite": ({"area": "annotation 1: inf"}, objects(area=float("inf"))),
    "area true": ({"area": "annotation 1: True"}, objects(area=True)),
    "area of 41 letters": ({"area": f"annotation 1: '{LONG[:41]}'"}, objects(area=LONG[:41])),
    "two points beside what is no polygon": (
        {
            "segmentation-bad": "annotation 1: segmentation polygons must be ...",
            "polygon-short": "annotation 1",
        },
        objects(segmentation=[[4, 5, 14, 15], "abc"]),
    ),
    "object twice, twice": (
        {"object-twice": "annotations 1 and 98; annotations 1 and 99"},
        lambda c, f: c["annotations"].extend({**c["annotations"][0], "id": number} for number in (98, 99)),
    ),
    "image without objects and of a long name": (
        {"picture-missing": f"{'y' * 90}.jpg not in images", "image-unused": "y" * 80},
        lambda c, f: c["images"].append({"id": 7, "file_name": f"{'y' * 90}.jpg", "width": 4, "height": 4}),
    ),
    "picture missing": ({"picture-missing": "p0.jpg not in images"}, save("p0.jpg", Path.unlink)),
    "empty picture": ({"picture-empty": "p0.jpg"}, save("p0.jpg", lambda path: path.write_bytes(b""))),
    "text for a picture": (
        {"picture-unreadable": "p0.jpg: not a known picture format"},
        save("p0.jpg", lambda path: path.write_text("<html>not found", encoding="utf-8")),
    ),
    "truncated JPEG": ({"picture-truncated": "p0.jpg: ..."}, save("p0.jpg", cut)),
    "EXIF, boxes turned": ({"picture-exif": "p0.jpg"}, save("p0.jpg", lambda path: rotated(path, (30, 40)))),
    "EXIF, mirrored": ({"picture-exif": "p0.jpg"}, save("p0.jpg", lambda path: rotated(path, (40, 30), 2))),
    "EXIF, on its left side": ({"picture-exif": "p0.jpg"}, save("p0.jpg", lambda path: rotated(path, (30, 40), 5))),
    "EXIF 5, boxes as stored": (
        {"picture-rotated": "p0.jpg: 40 x 30, the picture 30 x 40"},
        save("p0.jpg", lambda path: rotated(path, (40, 30), 5)),
    ),
    "EXIF 4, width and height swapped": (
        {"segmentation-bad": "annotation 2: ...", "image-size-wrong": "p0.jpg: 40 x 30, the picture 30 x 40"},
        save("p0.jpg", lambda path: rotated(path, (30, 40), 4)),
    ),
    "EXIF, boxes as stored": (
        {"picture-rotated": "p0.jpg: 40 x 30, the picture 30 x 40"},
        save("p0.jpg", lambda path: rotated(path, (40, 30))),
    ),
    "CMYK": ({"picture-cmyk": "p0.jpg"}, save("p0.jpg", lambda path: picture(1).convert("CMYK").save(path))),
    "16 bits": (
        {"picture-16-bit": "p0.png"},
        lambda c, f: (
            c["images"][0].update(file_name="p0.png"),
            cv2.imwrite(str(f / "images/p0.png"), np.full((30, 40, 3), 300, np.uint16)),
        ),
    ),
    "truncated PNG": (
        {"picture-truncated": "p0.png: ..."},
        lambda c, f: (
            c["images"][0].update(file_name="p0.png"),
            picture(1).save(f / "images/p0.png"),
            cut(f / "images/p0.png"),
        ),
    ),
    "float TIFF": (
        {"picture-unreadable": "p0.tif: OpenCV cannot decode this TIFF"},
        lambda c, f: (
            c["images"][0].update(file_name="p0.tif"),
            Image.fromarray(np.zeros((30, 40), np.float32)).save(f / "images/p0.tif"),
        ),
    ),
}


@pytest.mark.parametrize("title", SPOILT)
def test_each_problem_is_found_and_nothing_else(title, tmp_path):
    """The expected findings with their places; where the first is no error, the mended file is sound."""
    expected, spoil = SPOILT[title]
    content = coco_content()
    write_coco(tmp_path, content, "annotations/instances_train.json", "images")
    spoil(content, tmp_path)
    (tmp_path / "annotations/instances_train.json").write_text(json.dumps(content), encoding="utf-8")
    coco = read(tmp_path)
    findings = {finding.code: finding for finding in coco.findings}
    shown = {code: "; ".join(finding.examples) for code, finding in findings.items()}
    for code, text in shown.items():
        shown[code] = text.replace(f"{tmp_path}{os.sep}", "")
        start, dots, _ = expected.get(code, "").partition("...")
        if dots and shown[code].startswith(start):
            shown[code] = expected[code]
    assert shown == expected
    assert all(finding.count == max(1, len(finding.examples)) for finding in findings.values())
    assert all("\n" not in finding.text for finding in findings.values())
    errors = [finding.text for finding in findings.values() if finding.severity == "error"]
    assert bool(errors) == (RULES[next(iter(expected))].severity == "error"), errors
    assert coco.mended == any(finding.severity == "mended" for finding in findings.values())
    if coco.mended and not errors:
        coco.write(tmp_path / "annotations/instances_train.json")
        again = read(tmp_path)
        assert [f.text for f in again.findings if f.severity != "warning"] == []


def nothing(content: dict[str, Any], folder: Path) -> None:
    pass


def in_folders(content: dict[str, Any], folder: Path) -> None:
    """Two pictures of one name, and one with dots in its name."""
    for i, name in enumerate(("a/p.jpg", "b/p.jpg", "b/..p..jpg")):
        content["images"][i]["file_name"] = name
        (folder / "images" / name).parent.mkdir(exist_ok=True)
        (folder / f"images/p{i}.jpg").rename(folder / "images" / name)


def largest_ids(content: dict[str, Any], folder: Path) -> None:
    content["categories"][0]["id"] = 2**63 - 1
    content["images"][0]["id"] = -(2**63) + 1
    for annotation in content["annotations"]:
        annotation["id"] += 2**62
        annotation["category_id"] = 2**63 - 1 if annotation["category_id"] == 1 else 2
        annotation["image_id"] = annotation["image_id"] or -(2**63) + 1


def ids_as_floats(content: dict[str, Any], folder: Path) -> None:
    content["images"][0].update(id=0.0, width=40.0)
    content["categories"][0]["id"] = 1.0
    for annotation in content["annotations"]:
        annotation.update(image_id=float(annotation["image_id"]), category_id=float(annotation["category_id"]))


def alike_but_not_twice(content: dict[str, Any], folder: Path) -> None:
    first = content["annotations"][0]
    content["annotations"] += [
        {**first, "id": 97, "category_id": 2},
        {**first, "id": 98, "bbox": [4, 5, 10, 11]},
        {**first, "id": 99, "bbox": [5, 5, 10, 10]},
    ]


@pytest.mark.parametrize("change", [nothing, in_folders, largest_ids, ids_as_floats, alike_but_not_twice])
def test_a_sound_data_set_has_no_findings(change, tmp_path):
    content = coco_content()
    path = write_coco(tmp_path, content, "annotations/instances_train.json", "images")
    change(content, tmp_path)
    path.write_text(json.dumps(content), encoding="utf-8")
    coco = read(tmp_path)
    assert [finding.text for finding in coco.findings] == []
    assert not coco.mended
    assert all(type(image["id"]) is int for image in coco.images)


def test_a_file_without_masks_is_judged_for_boxes_only(tmp_path):
    coco = one_picture(tmp_path, [{"bbox": None}, {"bbox": []}], masks=False)
    assert examples(coco) == {"box-and-mask-missing": ["annotation 1", "annotation 2"]}


def test_the_first_examples_and_the_number_are_reported(tmp_path):
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
