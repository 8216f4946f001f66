"""``mmms check-data``: all problems at once, as a table and as JSON; status 2 where training would stop."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmms_plugin.commands import main
from mmms_plugin.data.check import check_data
from mmms_plugin.data.coco_set import read_splits
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.errors import UserError
from mmms_plugin.processes import shell_line
from tests.data import small_sets
from tests.data.small_sets import picture

HEIGHT = 32  # px, the shortest side that mmdet's own configs train on


def coco_content(first: int = 0, count: int = 3) -> dict[str, Any]:
    return small_sets.coco_content(first, count, HEIGHT)


def write_coco(folder: Path, content: dict[str, Any], ann: str, images: str) -> Path:
    return small_sets.write_coco(folder, content, ann, images, HEIGHT)


@pytest.fixture
def folder(tmp_path):
    """Roboflow's layout."""
    for i, split in enumerate(("train", "valid")):
        write_coco(tmp_path / "set", coco_content(3 * i), f"{split}/_annotations.coco.json", split)
    return tmp_path / "set"


def test_a_sound_data_set(folder, tmp_path, capsys):
    report = tmp_path / "report.json"
    assert main(["check-data", str(folder), "--json", str(report)]) == 0
    printed = capsys.readouterr().out
    assert "train: 3 images, 6 objects, 6 masks, classes: 2" in printed
    assert "0 errors, 0 mended, 0 warnings: training would start" in printed
    content = json.loads(report.read_text(encoding="utf-8"))
    assert content["trains"] is True
    assert content["splits"]["val"]["images"] == 3
    assert content["findings"] == []


def test_all_problems_are_listed_at_once(folder, tmp_path, capsys):
    path = folder / "train/_annotations.coco.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["annotations"][0]["bbox"] = [1, 2, -3, 4]
    content["annotations"][1]["category_id"] = 9
    content["annotations"][2].pop("area")
    content["images"][2]["file_name"] = "[red]gone\x1b.jpg"
    path.write_text(json.dumps(content), encoding="utf-8")
    shutil.copy(folder / "train/p1.jpg", folder / "valid/p3.jpg")
    assert main(["check-data", str(folder), "--out", str(tmp_path / "report.json")]) == 2
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    found = {(finding["code"], finding["severity"]) for finding in report["findings"]}
    assert found == {
        ("box-negative", "error"), ("unknown-category", "error"), ("picture-missing", "error"), ("area", "mended"),
        ("picture-in-two-splits", "warning"), ("picture-not-listed", "warning"),
    }  # fmt: skip
    assert report["trains"] is False
    assert "3 errors, 1 mended, 2 warnings: training would stop" in printed
    assert "[red]gone" in printed
    assert "\x1b" not in printed
    (leak,) = (finding for finding in report["findings"] if finding["code"] == "picture-in-two-splits")
    assert leak["examples"] == ["train: p1.jpg = val: p3.jpg"]


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_the_table_and_the_report_tell_all(folder, tmp_path, capsys):
    """Errors of all splits first, three examples of each, in the order in which the file has them."""

    def spoil(content: dict) -> None:
        for annotation in content["annotations"][1:]:
            annotation["bbox"] = [1, 2, 3, -4]
        content["annotations"][0]["area"] = "[bold]"
        content["annotations"][0]["iscrowd"] = None

    edit(folder / "train/_annotations.coco.json", spoil)
    edit(folder / "valid/_annotations.coco.json", lambda content: content["annotations"][0].update(bbox=[]))
    edit(folder / "valid/_annotations.coco.json", lambda content: content["annotations"][1].update(bbox=[0, 0, -1, 2]))
    report = tmp_path / "folder/report.json"
    assert main(["check-data", str(folder), "--json", str(report)]) == 2
    shown = capsys.readouterr()
    lines = [line.strip() for line in shown.out.splitlines() if line.strip()]
    assert lines[:3] == [
        f"{folder}: COCO",
        "train: 3 images, 6 objects, 1 usable, 6 masks, classes: 2",
        "val: 3 images, 6 objects, 5 usable, 6 masks, classes: 2",
    ]
    text = " ".join(shown.out.split())
    places = [text.index(words) for words in (
        "error boxes with a negative width or height: 5 ",
        "annotation 2: [1, 2, 3, -4] annotation 3: [1, 2, 3, -4] annotation 4: [1, 2, 3, -4] and 2 more boxes are [x",
        "error boxes with a negative width or height: 1 ",
        "annotation 8: [0, 0, -1, 2] boxes are [x, y,",
        "mended annotations whose iscrowd is missing or not 0 or 1: 1 ",
        "annotation 1 taken as 0, or as 1 where it is true",
        "mended annotations without an area above 0: 1 ",
        "annotation 1: '[bold]' computed from the mask",
        "mended objects without bbox: 1 ",
    )]  # fmt: skip
    assert places == sorted(places)
    assert "annotation 5:" not in text
    assert lines[-2] == "2 errors, 3 mended, 0 warnings: training would stop"
    assert lines[-1] == f"written: {report}"
    assert re.fullmatch(r"6 pictures in \d+\.\d s\n", shown.err)
    content = json.loads(report.read_text(encoding="utf-8"))
    assert content["kind"] == "COCO"
    assert content["splits"]["train"] == {
        "annotations": str(folder / "train/_annotations.coco.json"), "pictures": str(folder / "train"), "images": 3,
        "format": "COCO",
        "objects": 6, "usable": 1, "classes": ["disc", "stick"], "masks": 6,
    }  # fmt: skip
    assert [(finding["severity"], finding["count"]) for finding in content["findings"]] == [
        ("error", 5), ("error", 1), ("mended", 1), ("mended", 1), ("mended", 1),
    ]  # fmt: skip
    assert len(content["findings"][0]["examples"]) == 5


@pytest.mark.needs(hasattr(os, "mkfifo"), reason="named pipes")
def test_named_pipes_folders_and_pictures_of_too_many_pixels_are_errors(folder, capsys):
    """A named pipe would be waited for; 40 x 30 px are allowed where the limit is 1,200."""
    for name in ("p0.jpg", "p1.jpg"):
        (folder / "train" / name).unlink()
    os.mkfifo(folder / "train/p0.jpg")
    (folder / "train/p1.jpg").mkdir()
    picture(9, (41, 30)).save(folder / "train/p2.jpg")
    assert main(["check-data", str(folder), "--decode", "--max-pixels", "1200"]) == 2
    printed = capsys.readouterr().out
    assert "p0.jpg: a named pipe, not a file" in printed
    assert "p1.jpg: a folder, not a file" in printed
    assert "pictures of more pixels than --max-pixels" in printed
    assert "p2.jpg: 41 x 30 px; --max-pixels allows 1,200 in all" in printed
    assert main(["check-data", str(folder), "--max-pixels", "0"]) == 2
    message = "--max-pixels 0: must be an integer from 1 to 1,073,741,824"
    assert capsys.readouterr().err == f"mmms check-data: error: {message}\n"


def codes(folder: Path | None, **options: Any) -> dict[str, list[str]]:
    return {finding.code: list(finding.examples) for finding in check_data(OwnData("x", folder, **options)).findings}


def test_equal_pictures_are_reported_once(folder):
    """In two splits, or twice in one; a file that is listed twice is another finding."""
    for name in ("train/p1.jpg", "valid/p3.jpg", "valid/p5.jpg"):
        shutil.copy(folder / "train/p0.jpg", folder / name)
    assert codes(folder) == {"picture-in-two-splits": ["train: p0.jpg = train: p1.jpg = val: p3.jpg"]}
    for i, name in enumerate(("p3.jpg", "p5.jpg")):
        picture(20 + i, (40, HEIGHT)).save(folder / "valid" / name)
    assert codes(folder) == {"picture-twice": ["train: p0.jpg = train: p1.jpg"]}
    (folder / "train/p1.jpg").unlink()
    edit(folder / "train/_annotations.coco.json", lambda content: content["images"][1].update(file_name="p0.jpg"))
    assert codes(folder) == {"file-name-twice": ["p0.jpg"]}


def test_pictures_that_no_split_lists(folder, tmp_path):
    """Beside those that are listed, in the same folders; what another split lists there counts as listed."""
    one = tmp_path / "one"
    for i, split in enumerate(("train", "val")):
        write_coco(one, coco_content(3 * i), f"{split}.json", "images")
    assert codes(one) == {}
    (one / "images/deep").mkdir()
    (one / "images/p0.jpg").rename(one / "images/deep/p0.jpg")
    for name in ("b.PNG", "deep/c.webp", "notes.txt", "other/d.jpg"):
        (one / "images" / name).parent.mkdir(exist_ok=True)
        (one / "images" / name).touch()
    edit(one / "train.json", lambda content: content["images"][0].update(file_name="deep/p0.jpg"))
    report = check_data(OwnData("x", one))
    listed = {finding.file: finding.examples for finding in report.findings}
    assert listed == {str(one / "train.json"): ("b.PNG", "deep/c.webp"), str(one / "val.json"): ("b.PNG",)}
    shutil.copy(folder / "train/p0.jpg", folder / "valid/p0.jpg")
    assert codes(folder)["picture-not-listed"] == ["p0.jpg"], "another folder's picture of the same name"
    edit(one / "train.json", lambda content: [image.update(file_name="") for image in content["images"]])
    assert set(codes(one)) == {"file-name", "picture-not-listed"}


@pytest.mark.parametrize("content", ["[", '{"images": [], "annotations": [], "categories": []}'])
def test_a_test_split_stops_no_training(content, folder):
    (folder / "test").mkdir()
    (folder / "test/_annotations.coco.json").write_text(content, encoding="utf-8")
    report = check_data(OwnData("x", folder))
    assert report.trains
    assert "warning" in {finding.severity for finding in report.findings} <= {"warning", "mended"}


def test_a_split_that_cannot_be_read_does_not_hide_the_other(folder):
    (folder / "train/_annotations.coco.json").write_text("[", encoding="utf-8")
    edit(folder / "valid/_annotations.coco.json", lambda content: content["categories"].reverse())
    report = check_data(OwnData("x", folder))
    (finding,) = report.findings
    assert (finding.code, finding.file, list(report.splits)) == (
        "unreadable-file", str(folder / "train/_annotations.coco.json"), ["val"],
    )  # fmt: skip
    assert not report.trains


def test_categories_are_compared_with_those_of_training(folder):
    for split in ("train", "valid"):
        edit(folder / split / "_annotations.coco.json", lambda content: content["categories"].reverse())
    assert codes(folder) == {}
    edit(folder / "valid/_annotations.coco.json", lambda content: content["categories"].reverse())
    assert codes(folder) == {"category-order": ["2 categories, 2 for training"]}
    shutil.rmtree(folder / "train")
    assert codes(folder) == {"no-train": []}


def test_a_data_set_of_boxes_alone_lacks_no_masks(folder):
    shutil.rmtree(folder / "valid")
    path = folder / "train/_annotations.coco.json"
    edit(path, lambda content: [annotation.pop("segmentation") for annotation in content["annotations"]])
    assert codes(folder) == {"no-val": []}
    assert [finding.file for finding in check_data(OwnData("x", folder)).findings] == [str(folder)]
    assert codes(None, train_ann=path) == {}
    edit(path, lambda content: content["annotations"][0].update(segmentation=[[4, 5, 14, 5, 14, 15]]))
    found = codes(folder)
    assert len(found["segmentation-missing"]) == 5
    report = check_data(OwnData("x", folder))
    assert report.splits["train"]["masks"] == 1
    assert "segmentation-missing" not in {
        finding.code for finding in check_data(OwnData("x", folder), masks=False).findings
    }


def test_damage_inside_of_pictures_is_found_with_decode(folder, tmp_path):
    for i, split in enumerate(("train", "val")):
        content = coco_content(i, 1)
        content["images"][0]["file_name"] = f"p{i}.png"
        write_coco(tmp_path / "png", content, f"{split}.json", "images")
    broken = tmp_path / "png/images/p0.png"
    content = bytearray(broken.read_bytes())
    content[len(content) // 2] ^= 0xFF
    broken.write_bytes(content)
    assert codes(tmp_path / "png") == {}
    assert main(["check-data", str(tmp_path / "png")]) == 0
    assert main(["check-data", str(tmp_path / "png"), "--decode"]) == 2
    masks = tmp_path / "seg/masks"
    masks.mkdir(parents=True)
    (tmp_path / "png/images").rename(tmp_path / "seg/images")
    for i in (0, 1):
        Image.fromarray(np.eye(HEIGHT, 40, dtype=np.uint8)).save(masks / f"p{i}.png")
    assert set(codes(tmp_path / "seg")) == {"no-val"}
    report = check_data(OwnData("x", tmp_path / "seg"), decode=True)
    assert {finding.code for finding in report.findings} > {"no-val"}


def test_one_annotation_file(folder, capsys):
    path = folder / "valid/_annotations.coco.json"
    assert main(["check-data", "--ann", str(path)]) == 0
    path.write_text("[1, 2", encoding="utf-8")
    assert main(["check-data", "--ann", str(path)]) == 2
    assert "annotation files that cannot be read" in capsys.readouterr().out


def test_what_is_missing_in_an_annotation_file_is_said_once(folder):
    """The row names the file already."""
    path = folder / "valid/_annotations.coco.json"
    path.write_text('{"images": [', encoding="utf-8")
    (example,) = codes(folder)["unreadable-file"]
    assert example.startswith("truncated JSON: the file ends after 12 characters")


@pytest.mark.parametrize(("missing", "share"), [("valid", ["--val-split", "0.2"]), ("train", []), ("", [])])
def test_check_data_and_training_agree_on_splits(missing, share, folder, tmp_path, capsys):
    """What check-data says of a split that is missing is what training then does."""

    def trains(**options: float) -> bool:
        try:
            read_splits(OwnData("--coco-dir", folder, tmp_path / "work", **options), masks=True)
        except UserError:
            return False
        return True

    if missing:
        shutil.rmtree(folder / missing)
    status = main(["check-data", str(folder)])
    printed = capsys.readouterr().out
    verdict = f"start with {' '.join(share)}" if share else "stop" if missing else "start"
    assert f": training would {verdict}\n" in printed
    assert (status == 0) is trains()
    command = shell_line(["mmms", "train", "CONFIG", "--coco-dir", str(folder), *share])
    assert (f"\ntrain with: {command}\n" in printed) is (missing != "train")
    assert trains(val_split=0.2 if missing else 0.0) is (missing != "train")


def test_the_layouts_that_are_read_are_listed(tmp_path, capsys):
    assert main(["check-data", str(tmp_path)]) == 2
    line = capsys.readouterr().err
    for layout in ("annotations/instances_{train,val}.json", "SegmentationClass/", "images/ and masks/", "<class>/"):
        assert layout in line


def test_boxes_alone(folder):
    path = folder / "train/_annotations.coco.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert main(["check-data", str(folder)]) == 2
    assert main(["check-data", str(folder), "--boxes"]) == 0


def test_a_folder_of_masks(shapes, tmp_path, capsys):
    shutil.copytree(shapes / "JPEGImages", tmp_path / "images")
    shutil.copytree(shapes / "SegmentationClass", tmp_path / "masks")
    shutil.copy(tmp_path / "images/train_000000.jpg", tmp_path / "images/twice.jpg")
    shutil.copy(tmp_path / "masks/train_000000.png", tmp_path / "masks/twice.png")
    assert main(["check-data", str(tmp_path)]) == 2
    printed = capsys.readouterr().out
    assert "train: 7 images, 7 masks" in printed
    assert "pictures with the same content" in printed
    report = check_data(OwnData("x", tmp_path))
    assert report.splits == {
        "train": {"images": 7, "masks": 7, "classes": ["background", *(f"class {i}" for i in range(1, 6))]}
    }
    found = {finding.code: finding for finding in report.findings}
    assert found["no-val"].file == found["picture-twice"].file == str(tmp_path)
    assert found["picture-twice"].examples == ("train: train_000000.jpg = train: twice.jpg",)
    (tmp_path / "masks/twice.png").unlink()
    assert check_data(OwnData("x", tmp_path)).splits["train"]["masks"] == 6
    assert {finding.code for finding in check_data(OwnData("x", shapes), segmentation=True).findings} == set()
    capsys.readouterr()
    assert main(["check-data", str(shapes), "--seg"]) == 0
    assert "train: 4 images, 4 masks, classes: 6\nval: 2 images, 2 masks, classes: 6" in capsys.readouterr().out
    assert "--val-split 0.2" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give DIR, the folder of a data set, or --ann FILE"),
        ([".", "--ann", "a.json"], "DIR and --ann: give one of them"),
        ([""], "DIR '': must not be empty"),
        (["nowhere"], "check-data nowhere: no such folder"),
        (["."], "neither annotations of objects, nor masks, nor folders of classes; found: nothing"),
        (["."], "or files named with --ann FILE"),
    ],
)
def test_wrong_use_is_one_line(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["check-data", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_a_set_that_trains_on_nothing_is_refused(folder, capsys):
    edit(folder / "train/_annotations.coco.json", lambda content: [a.update(iscrowd=1) for a in content["annotations"]])
    edit(folder / "valid/_annotations.coco.json", lambda content: content["annotations"][0].update(iscrowd=1))
    assert main(["check-data", str(folder)]) == 2
    printed = " ".join(capsys.readouterr().out.split())
    assert "train: 3 images, 6 objects, 0 usable, 6 masks, classes: 2 val: 3 images, 6 objects, 5 usable, 6" in printed
    assert "annotation files without a usable object: 1 " in printed
    assert "6 objects; crowds: 6 nothing to train on" in printed
    assert "objects that are crowds: 1 of 6 " in printed


def test_normalised_boxes_are_named(folder, capsys):
    box = {"bbox": [0.1, 0.2, 0.5, 0.25], "area": 0.125, "segmentation": []}
    for split in ("train", "valid"):
        edit(folder / split / "_annotations.coco.json", lambda content: [a.update(box) for a in content["annotations"]])
    assert main(["check-data", str(folder)]) == 2
    printed = " ".join(capsys.readouterr().out.split())
    assert "6 objects; with a side below 1 px: 6; are the boxes normalised?" in printed
    assert "files whose boxes lie within 0..1.5: 1" in printed


def test_pictures_that_mmdet_would_leave_out_are_noted(folder):
    """Of training only: a test leaves out none."""
    for i, split in enumerate(("train", "val")):
        small_sets.write_coco(folder.parent / "small", small_sets.coco_content(i, 1), f"{split}.json", "images")
    assert codes(folder.parent / "small") == {"picture-small": ["p0.jpg: 40 x 30"]}


def test_folders_of_classes(shapes, tmp_path, capsys):
    folder = tmp_path / "classes"
    for i, split in enumerate(("train", "valid")):
        for k, name in enumerate(("cat", "dog")):
            (folder / split / name).mkdir(parents=True)
            picture(2 * i + k).save(folder / split / name / "a.png")
    assert main(["check-data", str(folder)]) == 0
    printed = capsys.readouterr().out
    found = f"{folder}: a folder of pictures for each class\n"
    assert printed.startswith(
        f"{found}train: 2 images, classes: 2\nval: 2 images, classes: 2\n0 errors, 0 mended, 0 warn"
    )
    assert f"train with: mmms train CONFIG --image-dir {shell_line([str(folder)])}\n" in printed
    shutil.copy(folder / "train/cat/a.png", folder / "valid/dog/b.png")
    (folder / "train/dog/a.png").write_bytes(b"")
    (folder / "train/dog/._a.png").write_bytes(b"x")
    assert codes(folder) == {
        "picture-empty": ["dog/a.png"], "picture-in-two-splits": ["train: a.png = val: b.png"],
    }  # fmt: skip
    shutil.copytree(folder / "valid/cat", folder / "test/bird")
    assert main(["check-data", str(folder)]) == 2
    (folder / "train/dog/a.png").unlink()
    picture(5).save(folder / "train/dog/a.png")
    assert main(["check-data", str(folder)]) == 0, "training does not need the test split"
    assert "test splits that mmms test --split test cannot use: 1" in capsys.readouterr().out
    shutil.rmtree(folder / "train")
    shutil.rmtree(folder / "test")
    assert main(["check-data", str(folder / "valid")]) == 2
    printed = capsys.readouterr().out
    assert ": training would start with --val-split 0.2\n" in printed
    assert f"--image-dir {shell_line([str(folder / 'valid')])} --val-split 0.2\n" in printed
    assert check_data(OwnData("x", folder / "valid")).kind == "classification"
    shutil.rmtree(folder / "valid/cat")
    (folder / "valid/cat").mkdir()
    assert main(["check-data", str(folder / "valid")]) == 2
    assert "no pictures in valid/cat" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names", [["images/a.png", "data.yaml"], ["JPEGImages/a.jpg", "Annotations/a.xml"], ["images/a.png"]]
)
def test_folders_of_other_layouts_are_not_classes(names, tmp_path, capsys):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert main(["check-data", str(tmp_path)]) == 2
    assert "neither annotations of objects, nor masks, nor folders of classes; found: " in capsys.readouterr().err


def test_camvid_and_an_ignored_label(tmp_path, capsys):
    for i, split in enumerate(("train", "val")):
        for folder in (split, f"{split}annot"):
            (tmp_path / folder).mkdir()
        picture(i).save(tmp_path / split / "a.png")
        Image.fromarray(np.resize(np.array([0, 1, 11], np.uint8), (30, 40))).save(tmp_path / f"{split}annot/a.png")
    assert main(["check-data", str(tmp_path)]) == 0
    assert "train: 1 image, 1 mask, classes: 12" in capsys.readouterr().out
    assert main(["check-data", str(tmp_path), "--ignore-label", "11"]) == 0
    printed = capsys.readouterr().out
    assert "train: 1 image, 1 mask, classes: 2" in printed
    command = ["mmms", "train", "CONFIG", "--voc-dir", str(tmp_path), "--ignore-label", "11"]
    assert f"\ntrain with: {shell_line(command)}\n" in printed
    assert main(["check-data", str(tmp_path), "--ignore-label", "256"]) == 2
    assert "--ignore-label 256: must be an integer from 0 to 255" in capsys.readouterr().err
