"""A config's own data sets, as the host built them: something to learn from, and masks that fit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from PIL import Image

from mmms_plugin.errors import UserError
from mmms_plugin.train.host_data import check_built
from mmms_plugin.train.runner import CheckedBuilds
from tests.data.small_sets import SIDE, picture


class Records(BaseDataset):
    """A data set of records in memory."""

    ignore_index, reduce_zero_label = 255, False

    def __init__(self, records: list[dict[str, Any]], steps: tuple[str, ...] = ()) -> None:
        self.records = records
        super().__init__(metainfo=dict(classes=("a", "b", "c")))
        self.pipeline = SimpleNamespace(transforms=[type(name, (), {})() for name in steps])

    def load_data_list(self) -> list[dict[str, Any]]:
        return self.records


def boxes(*instances: dict[str, Any]) -> Records:
    record = dict(width=40, height=30, img_path=__file__, seg_map_path=None, instances=list(instances))
    return Records([dict(record), dict(record)])


GOOD = dict(bbox=[4, 4, 9, 9], bbox_label=0, ignore_flag=0)
DIFFICULT = GOOD | dict(ignore_flag=1)
FLAT = GOOD | dict(bbox=[-1, -1, -1, -1])
OUTSIDE = GOOD | dict(bbox=[40, 4, 60, 9])


@pytest.mark.parametrize(
    ("instances", "words"),
    [
        ((DIFFICULT, FLAT, OUTSIDE), "6 objects of the config's classes, of which 2 are difficult, crowds or ignored"),
        ((), "0 objects of the config's classes"),
    ],
)
def test_data_sets_without_a_usable_object_are_refused(instances, words):
    for dataset in (boxes(*instances), RepeatDataset(boxes(*instances), 3), ConcatDataset([boxes(*instances)])):
        with pytest.raises(UserError, match=f"^train data: no usable object in 2 pictures: {words}"):
            check_built(dataset, "train", set(), 10**6)
    check_built(ConcatDataset([boxes(*instances), boxes(DIFFICULT, GOOD)]), "train", set(), 10**6)


def test_pictures_of_objects_are_there(tmp_path):
    dataset = Records([dict(img_path=str(tmp_path / f"{i}.png"), instances=[GOOD]) for i in range(2)])
    picture(0).save(tmp_path / "0.png")
    with pytest.raises(UserError, match=r"^val data: pictures that are missing: 1 of 2 \(first: .*1.png\)$"):
        check_built(dataset, "val", set(), 10**6)


@pytest.mark.parametrize(
    ("labels", "words"), [([3, 3], "label 3"), ([[], []], "no label"), ([3, 2], ""), ([[1], [1]], ""), ([[], [1]], "")]
)
def test_pictures_of_one_class_teach_nothing(labels, words):
    dataset = Records([dict(img_path="", gt_label=label) for label in labels])
    check_built(dataset, "val", set(), 10**6)
    if words:
        with pytest.raises(UserError, match=f"^train data: all 2 pictures have {words}: nothing to learn$"):
            check_built(dataset, "train", set(), 10**6)
    else:
        check_built(dataset, "train", set(), 10**6)


def masks(folder: Path, *labels: int, **info: Any) -> Records:
    """Pictures and masks of these labels."""
    picture(0).save(folder / "a.png")
    Image.fromarray(np.resize(np.array(labels, np.uint8), SIDE[::-1])).save(folder / "m.png")
    record = dict(img_path=str(folder / "a.png"), seg_map_path=str(folder / "m.png"), **info)
    return Records([record], ("LoadImageFromFile", "LoadAnnotations"))


@pytest.mark.parametrize(
    ("labels", "info", "words"),
    [
        ((0, 1, 2, 255), {}, ""),
        ((0, 3), {}, r"labels outside the config's classes: 1 \(label 3 in 1 mask \(m.png\), allowed are 0 to 2\)"),
        ((1, 2, 3), dict(reduce_zero_label=True), ""),
        ((0, 1, 255), dict(reduce_zero_label=True), "splits whose masks hold one label and void at most"),
        ((1, 4), dict(reduce_zero_label=True), "label 4, read as 3 in 1 mask"),
        ((0, 7), dict(label_map={7: 1}), ""),
        ((0, 7), dict(label_map={7: 255}), "splits whose masks hold one label and void at most"),
        ((0, 1, 9), {}, ""),  # which the model ignores
    ],
)
def test_labels_are_compared_with_the_classes_as_mmseg_reads_them(labels, info, words, tmp_path):
    dataset = masks(tmp_path, *labels, **info)
    if words:
        with pytest.raises(UserError, match=f"^train data: .*{words}"):
            check_built(dataset, "train", {9}, 10**6)
    else:
        check_built(dataset, "train", {9}, 10**6)


def test_pictures_and_masks_are_looked_at(tmp_path):
    dataset = masks(tmp_path, 0, 1)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"^val data: pictures that cannot be read: 1 \(a.png"):
        check_built(dataset, "val", set(), 10**6)
    dataset = masks(tmp_path, 0, 1)
    (tmp_path / "m.png").unlink()
    with pytest.raises(UserError, match=r"^val data: splits without a picture that has a mask: 1"):
        check_built(dataset, "val", set(), 10**6)
    dataset.pipeline.transforms.pop()  # the host reads these masks in another way
    check_built(dataset, "val", set(), 10**6)


def test_the_runner_checks_data_that_were_not_checked_before(tmp_path):
    runner = object.__new__(CheckedBuilds)
    runner.cfg = dict(model=dict(decode_head=dict(ignore_index=9)))
    loader = SimpleNamespace(dataset=masks(tmp_path, 0, 1, 7, 9))
    runner._check_data("val", loader)
    runner.checks_data = True
    with pytest.raises(UserError, match=r"^val data: labels outside the config's classes: 1 \(label 7 in 1 mask"):
        runner._check_data("val", loader)
