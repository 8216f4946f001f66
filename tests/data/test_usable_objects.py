"""The objects that a detector learns from: as many as mmdet's own data set keeps, and why the others are left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmms_plugin.data.coco_file import CocoFile
from mmms_plugin.data.coco_set import read_splits
from mmms_plugin.data.coco_usable import note_usable
from mmms_plugin.data.own_data import OwnData
from tests.data.small_sets import coco_content, examples, one_picture, write_coco

EMPTY = {"size": [30, 40], "counts": [1200]}
CASES: dict[str, tuple[list[dict[str, Any]], dict[str, Any], int, str]] = {
    # title: objects in a picture of 40 x 30 px, arguments, how many are usable, and why none is
    "sound": ([{}, {"bbox": [0, 0, 40, 30]}, {"bbox": [39, 29, 1, 1]}, {"bbox": [-5, -5, 5.5, 5.5]}], {}, 4, ""),
    "crowds": ([{"iscrowd": 1}] * 3, {}, 0, "3 objects; crowds: 3"),
    "some crowds": ([{"iscrowd": 1}] * 3 + [{}], {}, 1, ""),
    "normalised": (
        [{"bbox": [0.2, 0.3, 0.5, 0.4], "area": 0.2}] * 2, {}, 0,
        "2 objects; with a side below 1 px: 2; are the boxes normalised?",
    ),
    "flat": ([{"bbox": [4, 5, 0, 9]}, {"bbox": [4, 5, 9, 0.99]}], {}, 0, "2 objects; with a side below 1 px: 2"),
    "outside": (
        [{"bbox": box} for box in ([40, 5, 9, 9], [5, 30, 9, 9], [-9, 5, 9, 9], [5, -20, 9, 9])], {}, 0,
        "4 objects; outside their picture: 4",
    ),
    "ignored": ([{"ignore": 1}, {"ignore": True}], {}, 0, "2 objects; marked ignore: 2"),
    "not ignored": ([{"ignore": 0}, {"ignore": None}], {}, 2, ""),
    "empty masks": (
        [{"area": 0, "segmentation": EMPTY}] * 2, {}, 0, "2 objects; without a pixel in their mask: 2",
    ),
    "other classes": (
        [{}] * 2, {"classes": ["stick"]}, 0, "2 objects; of other categories than the config's classes: 2",
    ),
    "the config's classes": ([{}] * 2, {"classes": ("stick", "disc")}, 2, ""),
    "small picture": ([{}] * 2, {"min_size": 31}, 0, "2 objects; in pictures below filter_cfg.min_size: 2"),
    "picture of the smallest size": ([{}] * 2, {"min_size": 30}, 2, ""),
    "of all kinds": (
        [{"iscrowd": 1, "bbox": [50, 5, 9, 9]}, {"iscrowd": 1}, {"bbox": [4, 5, 0.5, 9], "ignore": 1}], {}, 0,
        "3 objects; marked ignore: 1, outside their picture: 1, crowds: 1",
    ),
}  # fmt: skip


def kept_by_mmdet(coco: CocoFile, folder: Path, classes: Any = ("disc",), min_size: float = 0) -> int:
    from mmdet.datasets import CocoDataset

    dataset = CocoDataset(
        ann_file=str(coco.write(folder / "mended.json")), data_prefix=dict(img=f"{coco.image_dir}/"), pipeline=[],
        metainfo=dict(classes=tuple(classes)), filter_cfg=dict(filter_empty_gt=True, min_size=min_size),
        lazy_init=True, serialize_data=False,
    )  # fmt: skip
    dataset.data_list = dataset.load_data_list()
    return sum(not instance["ignore_flag"] for picture in dataset.filter_data() for instance in picture["instances"])


@pytest.mark.parametrize("title", CASES)
def test_as_many_objects_are_usable_as_mmdet_trains_on(title, tmp_path):
    objects, arguments, usable, why = CASES[title]
    coco = one_picture(tmp_path, [json.loads(json.dumps(entry)) for entry in objects])
    coco.content["categories"].append({"id": 2, "name": "stick"})
    note_usable(coco, **arguments)
    assert len(coco.usable) == usable == kept_by_mmdet(coco, tmp_path, **arguments)
    assert examples(coco).get("no-usable-objects") == ([why] if why else None)


def test_the_share_that_is_left_out_is_reported(tmp_path):
    coco = one_picture(tmp_path, [{"iscrowd": 1}, {"iscrowd": 1, "bbox": [60, 5, 9, 9]}, {}, {"ignore": 1}])
    note_usable(coco, min_size=32)
    texts = {finding.code: finding.text for finding in coco.findings}
    assert coco.counts == "1 image, 4 objects, 0 usable"
    assert texts["object-crowd"].startswith("objects that are crowds: 2 of 4 (annotation 1; annotation 2); neither")
    assert texts["box-outside"].startswith("boxes that lie outside their picture: 1 of 4 (annotation 2: [60, 5, 9, 9]")
    assert texts["object-ignored"].startswith("objects that are marked ignore: 1 of 4 (annotation 4)")
    assert texts["picture-small"].startswith("pictures with a side below filter_cfg.min_size: 1 of 1 (p0.jpg: 40 x 30)")


def test_classes_of_which_no_object_is_usable_are_reported(tmp_path):
    objects = [{}, {"category_id": 2, "iscrowd": 1}, {"category_id": 3, "iscrowd": 1}, {"iscrowd": 1}]
    coco = one_picture(tmp_path, objects,
                       categories=[{"id": i, "name": name} for i, name in enumerate("abcd", start=1)])  # fmt: skip
    note_usable(coco, classes="abd")
    found = examples(coco)
    assert (coco.usable, found["class-unusable"], found["class-unused"]) == (coco.boxed[:1], ["b"], ["d"])


def test_a_class_of_which_all_objects_are_held_back_is_reported(tmp_path):
    content = coco_content(count=4)
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] == 1 or a["image_id"] == 0]
    write_coco(tmp_path, content, "train.json", "images")
    parts = read_splits(OwnData("x", tmp_path, val_split=0.5), masks=True)
    for coco in parts.values():
        note_usable(coco)
    assert sorted(examples(coco).get("class-unusable", []) for coco in parts.values()) == [[], ["stick"]]


def test_boxes_that_are_refused_come_before_the_count(tmp_path):
    """Where a box is broken, that is what is wrong; a file without objects has a rule of its own."""
    coco = one_picture(tmp_path, [{"bbox": [1, 2, -3, 4]}, {"iscrowd": 1}])
    note_usable(coco)
    assert (coco.usable, "no-usable-objects" in coco.findings) == ([], False)
    coco = one_picture(tmp_path, [])
    note_usable(coco)
    assert set(examples(coco)) == {"no-objects"}
