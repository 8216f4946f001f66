"""The data set on disk: same bytes each time, readable by what its users read it with, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmms_plugin.commands import main
from mmms_plugin.datasets import CLASSES, ShapeSettings, ShapesWritten, draw_picture, write_shapes
from mmms_plugin.errors import UserError

TRAIN, VAL, SIZE = 32, 32, 192


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> ShapesWritten:
    return write_shapes(tmp_path_factory.mktemp("shapes") / "data", TRAIN, VAL, SIZE, crowds=True)


def _hashes(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _coco(root: Path, split: str) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(root / "annotations" / f"instances_{split}.json"))


def _evaluate(truth: COCO, results: list[dict], kind: str) -> np.ndarray:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    first = write_shapes(tmp_path / "a", 6, 3, 64, seed=5)
    second = write_shapes(tmp_path / "b", 6, 3, 64, seed=5)
    assert _hashes(first.root) == _hashes(second.root)
    other = write_shapes(tmp_path / "c", 6, 3, 64, seed=6)
    name = "images/train_000000.png"
    assert _hashes(first.root)[name] != _hashes(other.root)[name]


def test_tiny_sets_have_objects_and_larger_ones_begin_alike(tmp_path: Path) -> None:
    tiny = write_shapes(tmp_path / "tiny", train=4, val=2, size=64)
    assert sum(tiny.objects["train"].values()) >= 8
    assert sum(tiny.objects["val"].values()) >= 3
    more = write_shapes(tmp_path / "more", train=5, val=2, size=64)
    kept = {k: v for k, v in _hashes(tiny.root).items() if k.startswith(("images", "JPEGImages", "SegmentationClass"))}
    assert kept.items() <= _hashes(more.root).items()


def test_no_picture_is_in_both_splits(written: ShapesWritten) -> None:
    pixels = {path.name: Image.open(path).tobytes() for path in (written.root / "images").iterdir()}
    assert len(pixels) == TRAIN + VAL
    assert len(set(pixels.values())) == TRAIN + VAL
    train, val = (_coco(written.root, split) for split in ("train", "val"))
    assert not set(train.imgs) & set(val.imgs)
    assert not set(train.anns) & set(val.anns)


def test_every_coco_size_is_there_and_counted(written: ShapesWritten) -> None:
    plain = write_shapes(written.root.parent / "plain", TRAIN, VAL, SIZE, formats="coco")
    for split in ("train", "val"):
        areas = [annotation["area"] for annotation in _coco(plain.root, split).anns.values()]
        small, large = sum(a < 32**2 for a in areas), sum(a >= 96**2 for a in areas)
        assert plain.objects[split] == {"small": small, "medium": len(areas) - small - large, "large": large}
        assert small >= 60, small
        assert large >= 6, large
        assert len(areas) - small - large >= 20
    sides = [max(a["bbox"][2:]) for a in _coco(plain.root, "train").anns.values()]
    assert min(sides) <= 12
    assert max(sides) >= 145


def test_coco_annotations_are_exact(written: ShapesWritten) -> None:
    for split in ("train", "val"):
        coco = _coco(written.root, split)
        assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
        for image in coco.imgs.values():
            masks = []
            for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
                mask = coco.annToMask(annotation)
                rows, columns = np.nonzero(mask)
                box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
                assert annotation["bbox"] == box
                assert annotation["area"] == mask.sum() > 0
                masks.append(mask)
            assert np.sum([np.zeros((SIZE, SIZE), int), *masks], axis=0).max() <= 1  # disjoint
            with Image.open(written.root / "images" / image["file_name"]) as opened:
                assert opened.size == (image["width"], image["height"])
                assert opened.mode == "RGB"


def test_masks_lie_on_the_objects_of_the_picture_files(written: ShapesWritten) -> None:
    """Objects are darker and more saturated than the pale ground: the colour spread inside a mask is larger."""
    coco, index = _coco(written.root, "train"), 0
    image = np.asarray(Image.open(written.root / "images" / f"train_{index:06d}.png"))
    np.testing.assert_array_equal(image, draw_picture(0, "train", index, SIZE).image)
    foreground = np.any([coco.annToMask(a) for a in coco.loadAnns(coco.getAnnIds(imgIds=index + 1))], axis=0)
    spread = np.ptp(image.astype(int), axis=2)
    assert np.mean((spread > 55) == foreground) > 0.97


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_truth_given_back_as_detections_scores_one(written: ShapesWritten, kind: str) -> None:
    truth = _coco(written.root, "val")
    results = [
        {key: annotation[key] for key in ("image_id", "category_id", "bbox", "segmentation")} | {"score": 0.9}
        for annotation in truth.anns.values()
        if not annotation["iscrowd"]
    ]
    if kind == "bbox":
        for result in results:
            del result["segmentation"]
    stats = _evaluate(truth, results, kind)
    np.testing.assert_allclose(stats[:6], 1.0)


@pytest.mark.parametrize("crowds", [False, True])
def test_annotations_and_lists_state_what_was_drawn(tmp_path: Path, crowds: bool) -> None:
    """Ids, classes and crowds, recounted from the pictures: in crowded ones the first object's class is one region."""
    root = write_shapes(tmp_path / "data", 6, 5, 64, formats="coco", crowds=crowds).root
    for split, count, first in (("train", 6, 1), ("val", 5, 1_000_001)):
        content = json.loads((root / f"annotations/instances_{split}.json").read_text(encoding="utf-8"))
        assert content["info"] == {"description": "generated multi-scale shapes", "version": "1", "split": split}
        assert content["categories"] == [
            {"id": i, "name": name, "supercategory": "shape"} for i, name in enumerate(CLASSES, start=1)
        ]
        assert content["images"] == [
            {"id": first + i, "file_name": f"{split}_{i:06d}.png", "width": 64, "height": 64} for i in range(count)
        ]
        seen = []
        for index in range(count):
            picture = draw_picture(0, split, index, 64)
            areas = np.bincount(picture.ids.ravel(), minlength=len(picture.labels) + 1)[1:].tolist()
            objects = [(label + 1, area, 0) for label, area in zip(picture.labels, areas, strict=True)]
            if crowds and picture.scene == "crowded":
                first_label = objects[0][0]
                alike = [area for label, area, _ in objects if label == first_label]
                others = [entry for entry in objects if entry[0] != first_label]
                objects = [(first_label, sum(alike), int(len(alike) > 1)), *others]
            seen += [((first + index) * 100 + k, first + index, *entry) for k, entry in enumerate(objects)]
        keys = ("id", "image_id", "category_id", "area", "iscrowd")
        assert [tuple(entry[key] for key in keys) for entry in content["annotations"]] == seen


def test_crops_are_squares_with_a_margin_inside_of_the_picture(written: ShapesWritten) -> None:
    """A quarter more than the longer side, 16 px at least, with the object in the middle unless at the border."""
    cut = 0
    for index in range(8):
        picture = draw_picture(0, "train", index, SIZE)
        for number, label in enumerate(picture.labels):
            rows, columns = np.nonzero(picture.ids == number + 1)
            extents = [(int(at.min()), int(at.max()) + 1) for at in (rows, columns)]
            longest = max(end - start for start, end in extents)
            side = min(max(16, math.ceil(1.25 * longest)), SIZE)
            starts = [start + (end - start) // 2 - side // 2 for start, end in extents]
            top, left = (min(max(0, start), SIZE - side) for start in starts)
            cut += [top, left] != starts
            path = written.root / "train" / CLASSES[label] / f"train_{index:06d}_{number:02d}.png"
            expected = picture.image[top : top + side, left : left + side]
            np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)
    assert cut


@pytest.mark.parametrize(("count", "columns"), [(2, 2), (6, 4), (17, 4)])
def test_the_preview_shows_pictures_beside_their_masks(tmp_path: Path, count: int, columns: int) -> None:
    """Of the first 16, four in a row: objects in their class's colour with a white outline, the rest pale."""
    root = write_shapes(tmp_path / "data", count - 1, 1, 32, formats="coco").root
    sheet = np.asarray(Image.open(root / "preview.png")).astype(int)
    drawn = [("train", i) for i in range(count - 1)] + [("val", 0)]
    shown = min(count, 16)
    rows = math.ceil(shown / columns)
    assert sheet.shape == (rows * 38 + 6, columns * 70 + 6, 3)
    colours = np.array([(128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)])  # VOC's
    free = np.ones(sheet.shape[:2], bool)
    for k, (split, index) in enumerate(drawn[:shown]):
        picture = draw_picture(0, split, index, 32)
        top, left = 6 + 38 * (k // columns), 6 + 70 * (k % columns)
        free[top : top + 32, left : left + 64] = False
        np.testing.assert_array_equal(sheet[top : top + 32, left : left + 32], picture.image)
        overlay = sheet[top : top + 32, left + 32 : left + 64]
        ids, grey = picture.ids.astype(int), picture.image.mean(2)
        outline = np.zeros((32, 32), bool)
        outline[1:] |= ids[1:] != ids[:-1]
        outline[:, 1:] |= ids[:, 1:] != ids[:, :-1]
        for y, x in np.ndindex(32, 32):
            if outline[y, x]:
                expected = np.full(3, 255)
            elif ids[y, x]:
                expected = 0.25 * grey[y, x] + 0.75 * colours[picture.labels[ids[y, x] - 1]]
            else:
                expected = np.full(3, 0.5 * grey[y, x] + 120)
            assert np.abs(overlay[y, x] - expected).max() <= 1
    assert (sheet[free] == 255).all()


def test_the_note_counts_what_was_written(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    made = write_shapes(tmp_path / "data", 3, 2, 64, 4, ["imagefolder", "coco"], progress=lambda *at: calls.append(at))
    assert calls == [(i, 5) for i in range(1, 6)]
    note = json.loads((made.root / "shapes.json").read_text(encoding="utf-8"))
    assert note["settings"] == {
        "train": 3, "val": 2, "size": 64, "seed": 4, "formats": ["coco", "imagefolder"], "crowds": False,
        "large": False, "small": False, "colours": False, "version": 1,
    }  # fmt: skip
    assert note["classes"] == list(CLASSES)
    assert note["objects"] == made.objects
    assert note["files"] == sum(path.is_file() for path in made.root.rglob("*"))
    assert made.settings.formats == ("coco", "imagefolder")
    again = write_shapes(tmp_path / "data", 3, 2, 64, 4, ("coco", "imagefolder"), progress=lambda *at: calls.append(at))
    assert again.objects == made.objects
    assert len(calls) == 5, "nothing is drawn again"
    (made.root / "notes.txt").touch()
    assert write_shapes(tmp_path / "data", 3, 2, 64, 4, ("coco", "imagefolder")).reused, "a file more is the user's"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, ""),
        ({"large": None, "small": None, "colours": None}, ""),  # of before there were these
        ({"crowds": None}, "is not empty and not a shapes data set; name a new or an empty folder"),
        ({"version": 2}, r"with other settings \(version 2, not 1\); name another folder"),
        ({"train": 2, "large": True}, r"\(train 2, not 1, large True, not False\)"),
    ],
)
def test_a_data_set_is_used_again_by_what_its_note_says(tmp_path: Path, change: dict, message: str) -> None:
    path = write_shapes(tmp_path / "data", 1, 1, 32, formats="coco").root / "shapes.json"
    note = json.loads(path.read_text(encoding="utf-8"))
    note["settings"] = {k: v for k, v in {**note["settings"], **change}.items() if v is not None}
    path.write_text(json.dumps(note), encoding="utf-8")
    if message:
        with pytest.raises(UserError, match=message):
            write_shapes(tmp_path / "data", 1, 1, 32, formats="coco")
    else:
        assert write_shapes(tmp_path / "data", 1, 1, 32, formats="coco").reused


def test_the_largest_and_smallest_settings_are_allowed() -> None:
    ShapeSettings(train=100_000, val=100_000, size=2048, seed=2**32 - 1)
    assert ShapeSettings(train=0, val=1, size=32, seed=0, formats=("voc", "coco")).formats == ("coco", "voc")
    ShapeSettings(train=1, val=0)


def test_crowds_change_annotations_only(written: ShapesWritten) -> None:
    plain = write_shapes(written.root.parent / "plain", TRAIN, VAL, SIZE, formats="coco")
    with_crowds, without = _coco(written.root, "train"), _coco(plain.root, "train")
    crowds = [a for a in with_crowds.anns.values() if a["iscrowd"]]
    assert crowds
    assert not any(a["iscrowd"] for a in without.anns.values())
    assert sum(a["area"] for a in with_crowds.anns.values()) == sum(a["area"] for a in without.anns.values())
    first, second = _hashes(written.root), _hashes(plain.root)
    assert all(first[name] == second[name] for name in second if name.startswith("images"))


def test_voc_labels_are_the_coco_masks_apart_from_void(written: ShapesWritten) -> None:
    folder = written.root / "SegmentationClass"
    for split in ("train", "val"):
        coco = _coco(written.root, split)
        names = (written.root / "ImageSets" / "Segmentation" / f"{split}.txt").read_text(encoding="utf-8").split()
        assert [f"{name}.png" for name in names] == [image["file_name"] for image in coco.imgs.values()]
        for name, image in zip(names, coco.imgs.values(), strict=True):
            expected = np.zeros((SIZE, SIZE), np.uint8)
            for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
                expected[coco.annToMask(annotation) > 0] = annotation["category_id"]
            with Image.open(folder / f"{name}.png") as opened:
                assert opened.mode == "P"
                assert opened.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
                labels = np.asarray(opened)
            void = labels == 255
            np.testing.assert_array_equal(labels[~void], expected[~void])
            assert void.mean() < 0.15
            photo = np.asarray(Image.open(written.root / "JPEGImages" / f"{name}.jpg")).astype(int)
            original = np.asarray(Image.open(written.root / "images" / f"{name}.png")).astype(int)
            assert np.abs(photo - original).mean() < 3.0


def test_crops_show_their_object(written: ShapesWritten) -> None:
    for split, total in (("train", TRAIN), ("val", VAL)):
        assert sorted(folder.name for folder in (written.root / split).iterdir()) == sorted(CLASSES)
        count = sum(len(draw_picture(0, split, index, SIZE).labels) for index in range(total))
        assert len(list((written.root / split).glob("*/*.png"))) == count
    picture = draw_picture(0, "train", 2, SIZE)  # a single large shape
    (path,) = (written.root / "train").glob("*/train_000002_*.png")
    assert path.parent.name == CLASSES[picture.labels[0]]
    crop = np.asarray(Image.open(path))
    rows, columns = np.nonzero(picture.ids == 1)
    inside = picture.image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    windows = np.lib.stride_tricks.sliding_window_view(crop, inside.shape)[:, :, 0]
    assert (windows == inside).all(axis=(2, 3, 4)).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": -1}, "train=-1: must be an integer from 0 to 100000"),
        ({"train": 100_001}, "train=100001: must be an integer from 0 to 100000"),
        ({"train": True}, "train=True"),
        ({"val": -1}, "val=-1: must be an integer from 0 to 100000"),
        ({"val": 100_001}, "val=100001"),
        ({"train": 0, "val": 0}, "train=0, val=0"),
        ({"size": 2049}, "size=2049: must be an integer from 32 to 2048"),
        ({"seed": -1}, "seed=-1"),
        ({"formats": ("coco", "yolo")}, "formats="),
        ({"size": 31}, "size=31"),
        ({"size": 64.0}, "size=64.0"),
        ({"seed": 2**32}, "seed=4294967296"),
        ({"formats": "yolo"}, "formats=.*allowed are coco, voc, imagefolder or 'all'"),
        ({"formats": ()}, "formats="),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_shapes(tmp_path / "data", **options)
    assert not list(tmp_path.iterdir())


def test_formats_choose_what_is_written(tmp_path: Path) -> None:
    always = {"shapes.json", "preview.png"}
    views = {
        "coco": {"annotations", "images"},
        "voc": {"JPEGImages", "SegmentationClass", "ImageSets", "labels.txt"},
        "imagefolder": {"train", "val"},
    }
    for name, entries in views.items():
        root = write_shapes(tmp_path / name, 1, 1, 64, formats=name).root
        assert {path.name for path in root.iterdir()} == always | entries


def test_a_data_set_of_the_same_settings_is_left_alone(tmp_path: Path) -> None:
    root = write_shapes(tmp_path / "data", 2, 1, 64).root
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    again = write_shapes(root, 2, 1, 64)
    assert again.reused
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    with pytest.raises(UserError, match="seed 0, not 1"):
        write_shapes(root, 2, 1, 64, seed=1)
    (root / "images" / "train_000001.png").unlink()
    with pytest.raises(UserError, match="files missing"):
        write_shapes(root, 2, 1, 64)


def test_an_empty_folder_is_taken_and_parents_are_made(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert not write_shapes(tmp_path / "empty", 1, 1, 64).reused
    assert write_shapes(tmp_path / "deep" / "down", 1, 1, 64).root.is_dir()


def test_what_is_in_the_way_stays_and_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="is not a folder"):
        write_shapes(tmp_path / "file", 1, 1, 64)
    with pytest.raises(UserError, match="cannot write"):
        write_shapes(tmp_path / "file" / "below", 1, 1, 64)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="current folder"):
        write_shapes(".", 1, 1, 64)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("kept", ["", "[]", '{"settings": 3}'])
def test_a_strange_settings_file_is_not_a_data_set(tmp_path: Path, kept: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "shapes.json").write_text(kept, encoding="utf-8")
    with pytest.raises(UserError, match="not a shapes data set"):
        write_shapes(tmp_path / "data", 1, 1, 64)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, stop: type[BaseException]) -> None:
    def interrupt(done: int, total: int) -> None:
        assert total == 6
        if done == 3:
            raise stop

    with pytest.raises(stop):
        write_shapes(tmp_path / "data", 4, 2, 64, progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_a_folder_planted_under_a_name_that_could_be_guessed_is_in_no_ones_way(tmp_path: Path) -> None:
    planted = tmp_path / f".data.{os.getpid()}.part"
    planted.mkdir()
    root = write_shapes(tmp_path / "data", 1, 1, 64, formats="coco").root
    assert sorted(tmp_path.iterdir()) == [planted, root]
    assert root.stat().st_mode == planted.stat().st_mode


def test_command_writes_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "data")
    options = ["--train", "3", "--val", "2", "--size", "64", "--format", "coco"]
    assert main(["make-shapes", out, *options]) == 0
    assert "written" in capsys.readouterr().out
    settings = json.loads((tmp_path / "data" / "shapes.json").read_text(encoding="utf-8"))["settings"]
    assert (settings["train"], settings["val"], settings["size"], settings["formats"]) == (3, 2, 64, ["coco"])
    assert main(["make-shapes", out, *options]) == 0
    assert "exists already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [([], "is not empty"), (["--size", "8"], "--size=8"), (["--train", "x"], "invalid int"), (["--format", "y"], "y")],
)
def test_command_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert main(["make-shapes", str(tmp_path), *options]) == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert complaint.count(os.linesep) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
