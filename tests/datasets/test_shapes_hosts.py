"""The hosts' own data set classes read the generated files unchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmms_plugin.datasets import CLASSES, draw_picture, write_shapes

SIZE = 96


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("hosts") / "data", 6, 2, SIZE, crowds=True).root


def test_mmdet_reads_the_coco_view(root: Path) -> None:
    from mmdet.datasets import CocoDataset
    from mmdet.utils import register_all_modules

    register_all_modules()
    data = CocoDataset(
        data_root=str(root),
        ann_file="annotations/instances_train.json",
        data_prefix={"img": "images/"},
        metainfo={"classes": CLASSES},
        pipeline=[{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True}],
    )
    assert len(data) == 6
    for index in range(6):
        item, picture = data[index], draw_picture(0, "train", index, SIZE)
        np.testing.assert_array_equal(item["img"][..., ::-1], picture.image)
        masks = item["gt_masks"].to_ndarray()
        np.testing.assert_array_equal(masks.any(axis=0), picture.ids > 0)
        assert item["gt_ignore_flags"].any() == (picture.scene == "crowded")
        if picture.scene != "crowded":
            assert tuple(item["gt_bboxes_labels"]) == picture.labels
            np.testing.assert_array_equal(item["gt_masks"].get_bboxes("hbox").tensor, item["gt_bboxes"].tensor)


@pytest.mark.parametrize("own_classes", [False, True])
def test_mmseg_reads_the_voc_view(root: Path, own_classes: bool) -> None:
    from mmseg.datasets import BaseSegDataset, PascalVOCDataset
    from mmseg.utils import register_all_modules

    register_all_modules()
    names = (root / "labels.txt").read_text(encoding="utf-8").split()
    assert names == ["background", *CLASSES]
    options = {
        "data_root": str(root),
        "ann_file": "ImageSets/Segmentation/val.txt",
        "data_prefix": {"img_path": "JPEGImages", "seg_map_path": "SegmentationClass"},
        "pipeline": [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}],
    }
    if own_classes:
        palette = [[40 * k] * 3 for k in range(len(names))]
        data = BaseSegDataset(img_suffix=".jpg", metainfo={"classes": names, "palette": palette}, **options)
    else:
        data = PascalVOCDataset(**options)
    assert len(data) == 2
    for index in range(2):
        item, picture = data[index], draw_picture(0, "val", index, SIZE)
        classes = np.array([0, *(label + 1 for label in picture.labels)])
        expected = np.where(picture.void, 255, classes[picture.ids])
        np.testing.assert_array_equal(item["gt_seg_map"], expected)
        assert np.abs(item["img"][..., ::-1].astype(int) - picture.image).mean() < 3.0
