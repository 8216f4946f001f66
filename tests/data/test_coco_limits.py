"""A COCO data set that is mended: the exact limits, and the values in the mended copy."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pycocotools.coco import COCO

from mmms_plugin.data.coco_set import write_mended
from mmms_plugin.size_ap import size_ap
from tests.data.small_sets import coco_content, examples, one_picture, read, write_coco

BOXES: list[tuple[list[Any], str]] = [
    # in a picture of 40 x 30, which they may leave by 2.8 and 2.6 px
    ([-2.75, 5, 10, 10], ""), ([-2.85, 5, 10, 10], "box-leaves"),
    ([4, -2.55, 10, 10], ""), ([4, -2.65, 10, 10], "box-leaves"),
    ([35, 5, 7.75, 10], ""), ([35, 5, 7.85, 10], "box-leaves"),
    ([4, 25, 10, 7.55], ""), ([4, 25, 10, 7.65], "box-leaves"),
    ([-2.8, 5, 11, 10], ""), ([4, -2.6, 11, 10], ""), ([35, 5, 7.8, 10], ""), ([4, 25, 10, 7.6], ""),
    ([-9.5, 5, 10, 10], "box-leaves"), ([-10, 5, 10, 10], "box-outside"),
    ([4, -9.5, 10, 10], "box-leaves"), ([4, -10, 10, 10], "box-outside"),
    ([39.5, 5, 1, 10], ""), ([40, 5, 1, 10], "box-outside"),
    ([4, 29.5, 10, 1], ""), ([4, 30, 10, 1], "box-outside"),
    ([4, 5, 1, 10], ""), ([4, 5, 0.9, 10], "box-small"), ([4, 5, 0, 10], "box-small"), ([4, 5, -1, 10], "box-negative"),
    ([4, 5, 10, 1], ""), ([4, 5, 10, 0.9], "box-small"), ([4, 5, 10, 0], "box-small"), ([4, 5, 10, -1], "box-negative"),
    ([4, 5, 1e9, 10], "box-leaves"), ([4, 5, 1e9 + 1, 10], "box-nan"), ([-1e9 - 1, 5, 10, 10], "box-nan"),
]  # fmt: skip


def test_boxes_are_judged_to_the_exact_limit(tmp_path):
    coco = one_picture(tmp_path, [{"bbox": box} for box, _ in BOXES])
    expected: dict[str, list[str]] = {}
    for number, (box, code) in enumerate(BOXES, start=1):
        if code:
            size = " in 40 x 30" if code in ("box-leaves", "box-outside") else ""
            expected.setdefault(code, []).append(f"annotation {number}: {box}{size}")
    assert examples(coco) == expected


POLYGONS: list[tuple[list[list[float]], str]] = [
    ([[-2.75, 5, 9, 5, 9, 9]], ""), ([[-2.85, 5, 9, 5, 9, 9]], "polygon-outside"),
    ([[4, -2.55, 9, 5, 9, 9]], ""), ([[4, -2.65, 9, 5, 9, 9]], "polygon-outside"),
    ([[4, 5, 42.75, 5, 9, 9]], ""), ([[4, 5, 42.85, 5, 9, 9]], "polygon-outside"),
    ([[4, 5, 9, 32.55, 9, 9]], ""), ([[4, 5, 9, 32.65, 9, 9]], "polygon-outside"),
    ([[4, 5, 9, 5, 9, 9], [4, 5, 60, 5, 9, 9]], "polygon-outside"),
    ([[4, 5, 9, 5, 9, 9], [4, 5, 9, 5]], "polygon-short"),
]  # fmt: skip


def test_polygons_are_judged_to_the_exact_limit(tmp_path):
    objects = [{"segmentation": polygons, "bbox": [4, 5, 10, 10 + i]} for i, (polygons, _) in enumerate(POLYGONS)]
    coco = one_picture(tmp_path, objects, masks=True)
    expected: dict[str, list[str]] = {}
    for number, (_, code) in enumerate(POLYGONS, start=1):
        if code:
            expected.setdefault(code, []).append(f"annotation {number}")
    assert examples(coco) == expected
    assert coco.content["annotations"][-1]["segmentation"] == [[4, 5, 9, 5, 9, 9]]


def test_boxes_of_a_picture_of_unknown_size_are_not_compared_with_it(tmp_path):
    images = [
        {"id": 0, "file_name": "p0.jpg", "width": 40},
        {"id": 1, "file_name": "p1.jpg", "width": 40, "height": 30},
    ]
    one_picture(tmp_path, [], images=images)
    (tmp_path / "images/p0.jpg").unlink()
    content = json.loads((tmp_path / "train.json").read_text(encoding="utf-8"))
    content["annotations"] = [
        {"id": 1 + i, "image_id": i, "category_id": 1, "iscrowd": 0, "area": 9, "bbox": [400 - 360 * i, 5, 9, 9]}
        for i in (0, 1)
    ]
    (tmp_path / "train.json").write_text(json.dumps(content), encoding="utf-8")
    assert examples(read(tmp_path, masks=False)) == {
        "picture-missing": [f"p0.jpg not in {tmp_path / 'images'}"],
        "box-outside": ["annotation 2: [40, 5, 9, 9] in 40 x 30"],
    }


MENDED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # title: what is changed in an annotation, and what it is in the mended file
    "iscrowd true": ({"iscrowd": True}, {"iscrowd": 1}),
    "iscrowd false": ({"iscrowd": False}, {"iscrowd": 0}),
    "iscrowd '1'": ({"iscrowd": "1"}, {"iscrowd": 1}),
    "iscrowd 'true'": ({"iscrowd": "true"}, {"iscrowd": 1}),
    "iscrowd 'True'": ({"iscrowd": "True"}, {"iscrowd": 1}),
    "iscrowd 'no'": ({"iscrowd": "no"}, {"iscrowd": 0}),
    "iscrowd 2": ({"iscrowd": 2}, {"iscrowd": 0}),
    "iscrowd 1.0": ({"iscrowd": 1.0}, {"iscrowd": 1}),
    "iscrowd null": ({"iscrowd": None}, {"iscrowd": 0}),
    "area of the box": ({"area": 0, "bbox": [4, 5, 10, 3]}, {"area": 30}),
    "area of a flat box": ({"area": "x", "bbox": [4, 5, 10, 0]}, {"area": 0}),
    "flat box of area 0": ({"area": 0, "bbox": [4, 6, 10, 0]}, {"area": 0}),
    "area of the mask": (
        {"area": None, "bbox": [4, 5, 10, 10], "segmentation": {"size": [30, 40], "counts": [300, 7, 893]}},
        {"area": 7},
    ),
    "area of the box of an empty mask": (
        {"area": None, "segmentation": {"size": [30, 40], "counts": [1200]}}, {"area": 100},
    ),
    "area of the box of a bad mask": ({"area": None, "segmentation": [[1, 2, 3]]}, {"area": 100}),
    "empty mask of area 0": ({"area": 0, "segmentation": {"size": [30, 40], "counts": [1200]}}, {"area": 0}),
    "box and area of the mask": (
        {"area": 0, "bbox": [], "segmentation": {"size": [30, 40], "counts": [302, 7, 23, 5, 863]}},
        {"area": 12, "bbox": [10, 2, 2, 7]},
    ),
    "id": ({"id": 0}, {}),
}  # fmt: skip


def test_what_is_mended_has_the_right_value(tmp_path):
    """All numbered anew, since one had no id; those that were sound keep their values."""
    sound = {"area": 5, "bbox": [1, 1, 3, 3], "iscrowd": 1}
    coco = one_picture(tmp_path, [sound, *(change for change, _ in MENDED.values())])
    numbered = [f"annotation {i}: " for i, title in enumerate(MENDED, start=2) if title.startswith(("area", "box"))]
    assert [text[: text.index(":") + 2] for text in examples(coco)["area"]] == numbered
    written = coco.write(tmp_path / "mended.json")
    records = json.loads(written.read_text(encoding="utf-8"))["annotations"]
    assert [record["id"] for record in records] == list(range(1, len(MENDED) + 2))
    for record, (title, (_, expected)) in zip(records, [("sound", ({}, sound)), *MENDED.items()], strict=True):
        values = {key: record[key] for key in expected}
        assert values == expected, title
        assert type(record["iscrowd"]) is int, title


def test_a_byte_order_mark_is_left_out_of_the_copy(tmp_path):
    """pycocotools does not read a file that begins with one."""
    path = write_coco(tmp_path, coco_content(), "train.json", "images")
    plain = path.read_text(encoding="utf-8")
    path.write_text(f"\ufeff{plain}", encoding="utf-8")
    splits = {"train": read(tmp_path)}
    assert examples(splits["train"]) == {"byte-order-mark": []}
    copy = write_mended(splits, tmp_path / "work")["train"]
    assert COCO(str(copy)).dataset == json.loads(plain)


SIZES: list[tuple[tuple[Any, Any], str]] = [
    # as stated of a picture of 40 x 30
    ((40, 30), ""), ((40.0, 30.0), ""), ((40.5, 30), "image-size"), ((True, 30), "image-size"),
    ((40, 0.5), "image-size"),
    ((2**31, 30), "image-size"), ((2**31 - 1, 30), "image-size-wrong"), ((-40, 30), "image-size"),
    ((20, 15), "image-size-scaled"), ((20, 16), "image-size-scaled"), ((20, 17), "image-size-wrong"),
    ((20, 14), "image-size-scaled"), ((20, 13), "image-size-wrong"), ((80, 60), "image-size-scaled"),
    ((80, 62), "image-size-scaled"), ((80, 63), "image-size-wrong"), ((80, 57), "image-size-wrong"),
    ((1, 1), "image-size-scaled"), ((40, 31), "image-size-scaled"), ((40, 32), "image-size-wrong"),
]  # fmt: skip


def test_sizes_are_taken_from_the_pictures_unless_these_were_scaled(tmp_path):
    """The same aspect ratio to a pixel of the larger one is another scale: its boxes would be wrong."""
    content = coco_content(count=len(SIZES))
    for image, (size, _) in zip(content["images"], SIZES, strict=True):
        image.update(width=size[0], height=size[1])
    content["annotations"] = content["annotations"][-1:]
    write_coco(tmp_path, content, "train.json", "images")
    coco = read(tmp_path, masks=False)
    expected: dict[str, list[str]] = {}
    for i, (size, code) in enumerate(SIZES):
        if code:
            shown = "" if code == "image-size" else f": {size[0]} x {size[1]}, the picture 40 x 30"
            expected.setdefault(code, []).append(f"p{i}.jpg{shown}")
    found = examples(coco)
    assert {code: found.get(code) for code in expected} == expected
    for image, (size, code) in zip(coco.images, SIZES, strict=True):
        assert (image["width"], image["height"]) == (size if code == "image-size-scaled" else (40, 30))


@pytest.mark.parametrize(
    ("box", "code"),
    [
        ([30, 20, 12.75, 9], "image-size-wrong"), ([30, 20, 12.85, 9], "image-size-scaled"),
        ([30, 20, 9, 12.55], "image-size-wrong"), ([30, 20, 9, 12.65], "image-size-scaled"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", [0, 1])
def test_boxes_that_do_not_fit_the_picture_tell_that_it_was_scaled(box, code, place, tmp_path):
    """By more than 2 px and 2 %, whichever box of the picture it is."""
    boxes = [[4, 5, 10, 10]]
    boxes.insert(place, box)
    images = [{"id": 0, "file_name": "p0.jpg", "width": 99, "height": 50}]
    coco = one_picture(tmp_path, [{"bbox": box} for box in boxes], images=images)
    assert examples(coco) == {code: ["p0.jpg: 99 x 50, the picture 40 x 30"]}


def test_ap_is_the_same_on_the_users_file_and_on_the_mended_copy(tmp_path):
    """Of every size, with boxes and with masks; pycocotools would take a match with id 0 for none."""
    polygon = [[2, 3, 12, 3, 12, 9]]
    changes: list[dict[str, Any]] = [
        {"id": 0}, {"id": 3}, {"id": 3}, {"id": "x"}, {"iscrowd": "true"}, {"iscrowd": 2}, {"iscrowd": None},
        {"area": 0}, {"area": "x"}, {"area": -1, "bbox": [4, 5, 0, 9]}, {"area": None, "bbox": []},
        {"area": 0, "segmentation": {"size": [30, 40], "counts": [1200]}}, {"segmentation": [[1, 2, 3, 4], *polygon]},
    ]  # fmt: skip
    objects = [{"bbox": [i, 2, 9, 9], "segmentation": polygon, **change} for i, change in enumerate(changes)]
    coco = one_picture(tmp_path, objects, masks=True)
    results = [
        {"image_id": 0, "category_id": 1, "score": 1 - i / 20, "bbox": [i, 2, 9, 8 + i % 2], "segmentation": polygon}
        for i in range(len(changes))
    ]
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    copy = coco.write(tmp_path / "copy/mended.json")
    assert {finding.code for finding in coco.findings} >= {
        "annotation-id", "iscrowd", "area", "box-missing", "polygon-short",
    }  # fmt: skip
    for iou_type in ("bbox", "segm"):
        options = dict(iou_type=iou_type, bins="a=0:8,b=8:9,c=9:inf", sweep=False)
        own, mended = (
            size_ap(path, tmp_path / "results.json", **options).runs[0].bins for path in (tmp_path / "train.json", copy)
        )
        assert own[0].ap > 0
        assert own == mended
