"""Data sets of objects are written in other formats, and come back as they were."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from mmms_plugin.coco.outlines import outlines, single_polygon
from mmms_plugin.commands import main
from mmms_plugin.data.coco_file import CocoFile
from mmms_plugin.data.coco_set import read_splits
from mmms_plugin.data.own_data import OwnData
from tests.data.small_sets import coco_content, write_coco

NAMES = ['a "b": c', "no", "<tag> & é", "1e3"]
SIZE = (40, 30)


def objects(seed: int) -> list[dict[str, Any]]:
    """Boxes and polygons of all kinds: with two decimals, of two parts, parts that overlap, and run lengths."""
    rng = np.random.default_rng(seed)
    triangles = [(rng.integers(0, 1500, 6) / 100 + shift).tolist() for shift in (0, 15)]
    mask = np.asfortranarray(rng.random((30, 40)) < 0.3, np.uint8)
    rle = mask_utils.encode(mask)
    shapes = [
        [triangles[0]], triangles, [[2.25, 3, 12, 3, 12, 9.5], [2.25, 3, 12, 9.5, 2.25, 9.5], [4, 4, 9, 4, 9, 20]],
        {"size": [30, 40], "counts": rle["counts"].decode("ascii")},
    ]  # fmt: skip
    return [{"segmentation": shape, "bbox": box_of(shape), "iscrowd": 0} for shape in shapes]


def box_of(shape: Any) -> list[float]:
    """Around the points of polygons, but around the pixels where YOLO's polygon is drawn around these."""
    if isinstance(shape, dict):
        return mask_utils.toBbox(shape).tolist()
    if len(shape) == 3:  # parts that overlap
        return mask_utils.toBbox(mask_utils.merge(mask_utils.frPyObjects(shape, 30, 40))).tolist()
    xs, ys = [v for part in shape for v in part[::2]], [v for part in shape for v in part[1::2]]
    return [min(xs), min(ys), round(max(xs) - min(xs), 2), round(max(ys) - min(ys), 2)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A COCO data set whose classes have difficult names, one of them unused; a crowd; pictures in sub-folders."""
    for split, first in (("train", 0), ("val", 10)):
        content = coco_content(first)
        content["categories"] = [{"id": 5 * i + 1, "name": name} for i, name in enumerate(NAMES)]
        content["annotations"] = []
        for image in content["images"]:
            image["file_name"] = f"day {image['id'] % 2}/images/p{image['id']} 1.jpg"
            content["annotations"] += [
                {**record, "image_id": image["id"], "category_id": 5 * (i % 3) + 1, "area": 1}
                for i, record in enumerate(objects(image["id"]))
            ]
        content["annotations"][-1]["iscrowd"] = 1
        for number, record in enumerate(content["annotations"], 1):
            record["id"] = number
        file = write_coco(tmp_path / "in", content, f"annotations/instances_{split}.json", "images")
        for image in content["images"]:
            (tmp_path / "in/images" / image["file_name"]).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / "in/images" / Path(image["file_name"]).name).rename(tmp_path / "in/images" / image["file_name"])
        assert file.is_file()
    return tmp_path / "in"


def read(folder: Path) -> dict[str, CocoFile]:
    return read_splits(OwnData("--data", folder), masks=False)


def rows(coco: CocoFile, masks: bool, crowds: bool = True) -> list[Any]:
    """Picture, class, crowd, box and perhaps pixels of every object."""
    names = {image["id"]: Path(image["file_name"]).name for image in coco.images}
    classes = {category["id"]: category["name"] for category in coco.content["categories"]}
    order = sorted(coco.content["annotations"], key=lambda r: (names[r["image_id"]], r["id"]))
    return [
        (
            names[record["image_id"]], classes[record["category_id"]], record["iscrowd"], record["bbox"],
            pixels(record["segmentation"]) if masks else 0,
        )
        for record in order if crowds or not record["iscrowd"]
    ]  # fmt: skip


def pixels(segmentation: Any) -> bytes:
    if isinstance(segmentation, list):
        segmentation = mask_utils.merge(mask_utils.frPyObjects(segmentation, 30, 40))
    return mask_utils.decode(segmentation).tobytes()


@pytest.mark.parametrize(
    ("to", "options", "masks"),
    [("yolo", [], True), ("yolo", ["--boxes"], False), ("voc", [], False), ("coco", [], True)],
)
def test_what_is_written_comes_back(to, options, masks, data, tmp_path, capsys):
    assert main(["convert-data", str(data), str(tmp_path / "out"), "--to", to, *options]) == 0
    out = capsys.readouterr().out
    assert main(["convert-data", str(tmp_path / "out"), str(tmp_path / "back"), "--to", "coco"]) == 0
    before, after = read(data), read(tmp_path / "back")
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["annotations", "images"]
    for split, coco in before.items():
        assert after[split].classes == coco.classes == tuple(NAMES)
        assert rows(after[split], masks) == rows(coco, masks, crowds=to != "yolo")
        assert [picture.size for picture in after[split].pictures] == [SIZE] * 3
    single = [r["segmentation"] for r in before["train"].content["annotations"] if len(r["segmentation"]) == 1]
    if to == "yolo" and masks:
        kept = [r["segmentation"] for r in after["train"].content["annotations"]]
        assert all(polygon in kept for polygon in single), "a single polygon keeps its points"
    assert ("crowds left out, which YOLO's labels do not know: 2" in out) == (to == "yolo")
    assert ("masks left out, which Pascal VOC's XML files do not hold: 24" in out) == (to == "voc")
    assert ("run-length masks written as polygons around the same pixels: 4" in out) == (to == "yolo" and masks)
    assert out.endswith(f"written: {tmp_path / 'out'}; train with: mmms train CONFIG --data {tmp_path / 'out'}\n")


def test_boxes_below_a_pixel_come_back_from_pascal_voc(tmp_path, capsys):
    content = coco_content()
    boxes = [[3.0, 4.0, 0.25, 0.5], [3.0, 4.0, 0.0, 5.0], [30.5, 2.0, 9.5, 1.0]]
    content["annotations"] = [
        {"id": i, "image_id": content["images"][0]["id"], "category_id": 1, "bbox": box, "iscrowd": 0, "area": 1}
        for i, box in enumerate(boxes, 1)
    ]
    write_coco(tmp_path / "in", content, "annotations/instances_train.json", "images")
    assert main(["convert-data", str(tmp_path / "in"), str(tmp_path / "out"), "--to", "voc"]) == 0
    assert "3 pictures, 2 objects\nboxes without width or height left out: 1\n" in capsys.readouterr().out
    assert main(["convert-data", str(tmp_path / "out"), str(tmp_path / "back"), "--to", "coco"]) == 0
    back = json.loads((tmp_path / "back/annotations/instances_train.json").read_text(encoding="utf-8"))
    assert [record["bbox"] for record in back["annotations"]] == [boxes[0], boxes[2]]


def test_masks_of_any_shape_become_one_polygon_around_the_same_pixels():
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = rng.integers(1, 20, 2).tolist()
        mask = np.asfortranarray(rng.random((height, width)) < rng.random(), np.uint8)
        rle = mask_utils.encode(mask)
        if not mask.any():
            assert single_polygon(rle, (width, height)) == [] == outlines(rle)
            continue
        again = mask_utils.frPyObjects([single_polygon(rle, (width, height))], height, width)
        np.testing.assert_array_equal(mask_utils.decode(again)[..., 0], mask)
    square = mask_utils.encode(np.asfortranarray(np.ones((3, 5), np.uint8)))
    assert sorted(zip(outlines(square)[0][::2], outlines(square)[0][1::2], strict=True)) == [
        (0, 0),
        (0, 3),
        (5, 0),
        (5, 3),
    ]


def test_pictures_are_copied_linked_or_left_where_they_are(data, tmp_path, capsys):
    for how in ("copy", "link", "none"):
        assert main(["convert-data", str(data), str(tmp_path / how), "--to", "coco", "--images", how]) == 0
    name = "day 0/images/p0 1.jpg"
    first = data / "images" / name
    assert os.path.samefile(first, tmp_path / "link/images/train" / name)
    copied = tmp_path / "copy/images/train" / name
    assert copied.read_bytes() == first.read_bytes()
    assert not os.path.samefile(first, copied)
    assert [path.name for path in (tmp_path / "none").iterdir()] == ["annotations"]
    assert f"--data {tmp_path / 'none'} --img-dir {data}\n" in capsys.readouterr().out
    own = OwnData("--data", tmp_path / "none", img_dir=data)
    assert read_splits(own, masks=True)["train"].image_dir == data / "images"


def full(data: Path, out: Path) -> None:
    out.mkdir()
    (out / "mine.txt").write_text("x", encoding="utf-8")


def same_names(data: Path, out: Path) -> None:
    file = data / "annotations/instances_val.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    old = data / "images" / content["images"][0]["file_name"]
    content["images"][0]["file_name"] = "other/P0 1.png"
    (data / "images/other").mkdir()
    old.rename(data / "images/other/P0 1.png")
    file.write_text(json.dumps(content), encoding="utf-8")


def broken(data: Path, out: Path) -> None:
    (data / "images/day 0/images/p0 1.jpg").write_bytes(b"x")


def nothing(data: Path, out: Path) -> None:
    pass


def masks_only(data: Path, out: Path) -> None:
    (data / "images").rename(data / "kept")
    for name in ("annotations/instances_train.json", "annotations/instances_val.json"):
        (data / name).unlink()


REFUSED: list[tuple[Callable[[Path, Path], None], list[str], str]] = [
    (full, ["--to", "coco"], r"OUT .*out: must be a new or an empty folder; nothing is overwritten"),
    (nothing, ["--to", "yolo", "--images", "none"], "--images none: YOLO finds labels beside their pictures"),
    (nothing, ["--to", "kitti"], "invalid choice: 'kitti'"),
    (nothing, [], "the following arguments are required: --to"),
    (
        same_names,
        ["--to", "voc"],
        "P0 1: two pictures have this name but for their types or case; Pascal VOC has one label",
    ),
    (broken, ["--to", "voc"], r"pictures that cannot be read: 1 .*\(mmms check-data .* lists everything\)"),
    (masks_only, ["--to", "yolo"], "neither annotations of objects, nor masks"),
]


@pytest.mark.parametrize(("spoil", "options", "message"), REFUSED)
def test_nothing_is_written_where_something_is_wrong(spoil, options, message, data, tmp_path, capsys):
    out = tmp_path / "out"
    spoil(data, out)
    before = sorted(path for path in tmp_path.rglob("*"))
    assert main(["convert-data", str(data), str(out), *options]) == 2
    err = capsys.readouterr().err
    assert re.search(message, err), err
    assert err.count("\n") == 1
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_nothing_is_written_among_the_data(data, capsys):
    assert main(["convert-data", str(data), str(data / "out"), "--to", "coco"]) == 2
    assert "lies in" in capsys.readouterr().err
    assert not (data / "out").exists()


def test_a_file_system_without_links_is_one_line_and_nothing_is_left(data, tmp_path, monkeypatch, capsys):
    def link(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", link)
    assert main(["convert-data", str(data), str(tmp_path / "new/out"), "--to", "yolo", "--images", "link"]) == 2
    assert re.search(
        r"--images link: no link to .*jpg \(Invalid cross-device link\); give copy\n$", capsys.readouterr().err
    )
    assert not (tmp_path / "new").exists()
