"""Overlays of a COCO file: the right pictures, truth beside what is sure enough, in rows; bars of AP by size."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils

from mmms_plugin.report import figure_style
from mmms_plugin.report.drawing import Objects, Style, draw_objects, side_by_side
from mmms_plugin.report.overlays import draw_ap_bars, draw_overlays

CLASSES = {7: "cat", 3: "dog"}  # by id, in the order of the file
COLOUR, GREY = (200, 40, 120), 0.7 * (0.299 * 200 + 0.587 * 40 + 0.114 * 120) + 0.3 * 255


def mask(size: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    x, y, w, h = box
    pixels = np.zeros(size[::-1], np.uint8, order="F")
    pixels[y : y + h, x : x + w] = 1
    return pixels


def rle(pixels: np.ndarray) -> dict:
    coded = mask_utils.encode(pixels)
    return {"size": coded["size"], "counts": coded["counts"].decode()}


@pytest.fixture
def data(tmp_path):
    """Pictures 0 to 5 of growing size, the third without objects; two predictions each, one of them too unsure."""
    sizes = [(64 + 2 * i, 48) for i in range(6)]
    annotations, results = [], []
    for i, size in enumerate(sizes):
        Image.new("RGB", size, COLOUR).save(tmp_path / f"{i}.png")
        box = (4 + i, 5, 20, 10)
        item = {"image_id": i, "bbox": box, "segmentation": rle(mask(size, box))}
        if i != 2:
            annotations.append({**item, "id": i + 1, "category_id": 3, "area": 200, "iscrowd": 0})
        if i != 3:
            results.append({**item, "category_id": 7, "score": 0.3})
        other = (30, 30, 9, 9)
        results.append({"image_id": i, "bbox": other, "segmentation": rle(mask(size, other)), "category_id": 3,
                        "score": 0.299})  # fmt: skip
    images = [{"id": i, "file_name": f"{i}.png", "width": w, "height": h} for i, (w, h) in enumerate(sizes)]
    truth = {"images": images, "annotations": annotations,
             "categories": [{"id": k, "name": name} for k, name in CLASSES.items()]}  # fmt: skip
    for name, content in (("ann", truth), ("pred", results)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path, sizes


def pair(i: int, size: tuple[int, int], score: str) -> np.ndarray:
    """What the pair of a picture must be, by the functions that draw it."""
    pixels = np.full((*size[::-1], 3), int(GREY), np.uint8)
    style = Style.of(tuple(CLASSES.values()), letters=1.8)
    box = (4 + i, 5, 20, 10)
    corners, masks = np.array([(4 + i, 5, 24 + i, 15)]), [mask(size, box)]
    truth = Objects(corners, np.array([1]), None, masks)
    found = Objects(corners, np.array([0]), np.array([0.3]), masks)
    if i == 3:
        found = Objects(np.zeros((0, 4)), np.zeros(0, int), None, [])
    halves = [draw_objects(pixels, objects, style) for objects in (truth, found)]
    return np.asarray(side_by_side(*halves, ("truth", f"prediction, score >= {score}"), 1.8))


@pytest.mark.parametrize(("pictures", "shown"), [(3, (0, 3, 5)), (1, (0,)), (8, (0, 1, 3, 4, 5))])
def test_pictures_with_objects_evenly_spaced_two_in_a_row(data, pictures, shown):
    folder, sizes = data
    draw_overlays(folder / "ann.json", folder, folder / "pred.json", folder / "new/out.png", pictures=pictures)
    sheet = np.asarray(Image.open(folder / "new/out.png").convert("RGB")).astype(int)
    pairs = [pair(i, sizes[i], "0.3").astype(int) for i in shown]
    width, gap, top = max(one.shape[1] for one in pairs), 24, 0
    for start in range(0, len(pairs), 2):
        row = pairs[start : start + 2]
        for column, one in enumerate(row):
            left = column * (width + gap)
            part = sheet[top : top + one.shape[0], left : left + one.shape[1]]
            assert np.abs(part - one).max() <= 1
        top += max(one.shape[0] for one in row) + gap
    assert sheet.shape[:2] == (top - gap, 2 * width + gap)
    assert (sheet[:, width : width + gap] == 255).all()


def test_eight_pictures_and_a_score_of_three_tenths_unless_told(data):
    folder, _ = data
    args = folder / "ann.json", folder, folder / "pred.json"
    draw_overlays(*args, folder / "usual.png")
    draw_overlays(*args, folder / "same.png", pictures=5, score=0.3)
    draw_overlays(*args, folder / "sure.png", pictures=5, score=0.31)
    usual, same, sure = ((folder / f"{name}.png").read_bytes() for name in ("usual", "same", "sure"))
    assert usual == same != sure


def test_bars_of_ap_by_size(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figure_style, "keep_labels_apart", drawn.append)
    metrics = {"coco/bbox_mAP": 0.4, "coco/bbox_mAP_s": 0.0, "coco/bbox_mAP_m": 0.456, "coco/bbox_mAP_l": -1.0,
               "coco/segm_mAP": 0.3, "coco/segm_mAP_s": float("nan"), "coco/segm_mAP_l": 0.5}  # fmt: skip
    for kind in ("png", "pdf"):
        draw_ap_bars(metrics, tmp_path / f"new/bars.{kind}")
    assert Image.open(tmp_path / "new/bars.png").size == (1280, 720)
    assert (tmp_path / "new/bars.pdf").read_bytes().startswith(b"%PDF")
    (axis,) = drawn[0].axes
    for bars, shift, values in zip(axis.containers, (-0.19, 0.19), ((0.4, 0, 0.456, 0), (0.3, 0, 0, 0.5)), strict=True):
        assert [bar.get_center()[0] - shift for bar in bars] == pytest.approx(range(4))
        assert [bar.get_height() for bar in bars] == pytest.approx(values)
    assert [text.get_text() for text in axis.texts] == ["0.40", "0.00", "0.46", "n/a", "0.30", "n/a", "n/a", "0.50"]
    ticks = zip(axis.get_xticks(), axis.get_xticklabels(), strict=True)
    assert [(place, text.get_text().partition("\n")[0]) for place, text in ticks] == [
        (0, "all"), (1, "small"), (2, "medium"), (3, "large"),
    ]  # fmt: skip
    assert axis.get_ylim() == (0, 1)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["box AP", "mask AP"]
    assert "AP" in axis.get_ylabel()
    widths = {round(bar.get_width(), 6) for bars in axis.containers for bar in bars}
    assert max(widths) < 0.38  # beside each other
    assert len({bars[0].get_facecolor() for bars in axis.containers}) == 2
