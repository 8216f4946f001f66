"""Data sets in the layouts of YOLO, Pascal VOC, labelme and LVIS are found and read as COCO's."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmms_plugin.commands import main
from mmms_plugin.data.coco_layouts import annotations_of
from mmms_plugin.data.coco_set import read_splits, write_mended
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.errors import UserError
from mmms_plugin.size_ap import size_ap
from tests.data.small_sets import coco_content, picture, write_coco

WIDTH, HEIGHT = 40, 30
BOX = [4, 6, 10, 12]  # x y width height of the object of every picture
NAMES = ["disc", "stick"]
YOLO_BOX = "1 0.225 0.4 0.25 0.4\n"
POLYGON = [4, 6, 14, 6, 14, 18, 4, 18]
YOLO_POLYGON = "1 " + " ".join(str(value / side) for value, side in zip(POLYGON, [40, 30] * 4, strict=True)) + "\n"
XML = """<annotation><filename>{name}</filename><size><width>40</width><height>30</height></size>
<object><name>stick</name><difficult>0</difficult>
<bndbox><xmin>5</xmin><ymin>7</ymin><xmax>14</xmax><ymax>18</ymax></bndbox></object></annotation>"""
LABELME = {"version": "5.4", "flags": {}, "imageData": None, "imageHeight": 30, "imageWidth": 40}
Files = dict[str, str]


def write(root: Path, files: Files) -> Path:
    """Text files, and pictures of 40 x 30 px where the name is a picture's."""
    for number, (name, text) in enumerate(files.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".jpg", ".png")):
            picture(number).save(path)
        else:
            path.write_text(text.format(name=path.with_suffix(".jpg").name), encoding="utf-8")
    return root


def pairs(pictures: str, labels: str, text: str, suffix: str) -> Files:
    """Two pictures and their labels in each split; folders with ``{}`` for the split."""
    files = {}
    for split in ("train", "valid"):
        for name in ("a", "b"):
            files[f"{pictures.format(split)}/{split}_{name}.jpg"] = ""
            files[f"{labels.format(split)}/{split}_{name}{suffix}"] = text
    return files


def shapes(*entries: dict[str, Any]) -> str:
    """labelme's file, with braces doubled for ``str.format``."""
    content = {**LABELME, "imagePath": "..\\elsewhere\\NAME", "shapes": list(entries)}
    return json.dumps(content).replace("{", "{{").replace("}", "}}").replace("NAME", "{name}")


RECTANGLE = shapes({"label": "stick", "points": [[14, 18], [4, 6]], "shape_type": "rectangle", "group_id": None})
LISTED = pairs("JPEGImages", "Annotations", XML, ".xml") | {
    "ImageSets/Main/train.txt": "train_a\ntrain_b\n", "ImageSets/Main/val.txt": "valid_a\nvalid_b\n",
    "ImageSets/Main/stick_train.txt": "train_a -1\n",
}  # fmt: skip
NAMED = "names: [disc, stick]\n"
LAYOUTS: dict[str, tuple[str, Files]] = {
    "Ultralytics": ("YOLO", pairs("images/{}", "labels/{}", YOLO_BOX, ".txt") | {
        "data.yaml": f"path: /content/datasets/x\ntrain: images/train\nval: images/valid\ntest:\nnc: 2\n{NAMED}"}),
    "Roboflow's YOLO": ("YOLO", pairs("{}/images", "{}/labels", YOLO_BOX, ".txt") | {
        "data.yaml": "train: ../train/images\nval: ../valid/images\nnames:\n  0: disc\n  1: stick\n"}),
    "lists": ("YOLO", pairs("images", "labels", YOLO_BOX, ".txt") | {
        "coco.yaml": f"train: [train.txt]\nval: val.txt\n{NAMED}",
        "train.txt": "./images/train_a.jpg\nimages/train_b.jpg", "val.txt": "images/valid_a.jpg\nimages/valid_b.jpg"}),
    "several folders": ("YOLO", {
        f"{part}/{kind}/{name}{suffix}": text 
        for kind, suffix, text in (("images", ".jpg", ""), ("labels", ".txt", YOLO_BOX))
        for part, name in (("x", "train_a"), ("y", "train_b"), ("v", "valid_a"), ("v", "valid_b"))
    } | {"data.yaml": f"train: [x/images, y/images]\nval: v/images\n{NAMED}"}),
    "labels without YAML": ("YOLO", pairs("images/{}", "labels/{}", YOLO_BOX, ".txt") | {
        "classes.txt": "disc\nstick\n"}),
    "texts beside pictures": ("YOLO", pairs("{}", "{}", YOLO_BOX, ".txt") | {"classes.txt": "disc\nstick\n"}),
    "names beside the labels": ("YOLO", pairs("{}", "{}", YOLO_BOX, ".txt") | {"train/classes.txt": "disc\nstick\n"}),
    "VOC's lists": ("Pascal VOC", LISTED),
    "VOC below": ("Pascal VOC", {f"VOCdevkit/VOC2012/{name}": text for name, text in LISTED.items()}),
    "Roboflow's VOC": ("Pascal VOC", pairs("{}", "{}", XML, ".xml") | {"README.txt": "exported"}),
    "images and annotations": ("Pascal VOC", pairs("images/{}", "annotations/{}", XML, ".xml")),
    "Oxford's pets": ("Pascal VOC", pairs("images/{}", "annotations/xmls/{}", XML, ".xml") | {
        "annotations/list.txt": "#Image CLASS-ID\ntrain_a 1 1 1", "annotations/trainval.txt": "train_a 1 1 1"}),
    "labelme": ("labelme", pairs("{}", "{}", RECTANGLE, ".json")),
    "labelme apart": ("labelme", pairs("{}/images", "{}/json", RECTANGLE, ".json")),
}  # fmt: skip


def own(folder: Path, **more: Any) -> OwnData:
    return OwnData("--data", folder, folder / "work", **more)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_found_and_read(layout, tmp_path):
    kind, files = LAYOUTS[layout]
    write(tmp_path, files)
    splits = read_splits(own(tmp_path), masks=False)
    assert list(splits) == ["train", "val"]
    for split, coco in splits.items():
        names = [Path(image["file_name"]).name for image in coco.images]
        assert names == [f"{'train' if split == 'train' else 'valid'}_{name}.jpg" for name in "ab"]
        assert [record["bbox"] for record in coco.content["annotations"]] == [BOX, BOX]
        assert coco.format == kind
        assert all(Path(coco.image_dir or "", image["file_name"]).is_file() for image in coco.images)
        names_of = {category["id"]: category["name"] for category in coco.content["categories"]}
        assert [names_of[record["category_id"]] for record in coco.objects] == ["stick", "stick"]
        assert {finding.code for finding in coco.findings} <= {"class-unused"}
    if kind == "YOLO":
        assert splits["train"].classes == tuple(NAMES)
    assert read_splits(own(tmp_path), masks=False).keys() == splits.keys()
    written = write_mended(splits, tmp_path / "work/annotations")
    assert json.loads(written["val"].read_text(encoding="utf-8"))["annotations"][0]["area"] == 120
    assert annotations_of(own(tmp_path)).keys() == {"train", "val"}, "the work folder inside the data set is left out"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_check_data_says_which_format_it_found(layout, tmp_path, capsys):
    kind, files = LAYOUTS[layout]
    write(tmp_path / "data", files)
    assert main(["check-data", str(tmp_path / "data"), "--json", str(tmp_path / "report.json")]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == f"{tmp_path / 'data'}: {kind}"
    assert f"mmms train CONFIG --data {tmp_path / 'data'}" in out
    splits = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["splits"]
    assert {split: (part["images"], part["usable"], part["format"]) for split, part in splits.items()} == {
        "train": (2, 2, kind), "val": (2, 2, kind),
    }  # fmt: skip


def test_a_yaml_file_is_taken_in_place_of_its_folder_and_pictures_of_the_same_name_are_told_apart(tmp_path):
    write(
        tmp_path, {f"{part}/images/a.jpg": "" for part in "xyz"} | {f"{part}/labels/a.txt": YOLO_BOX for part in "xy"}
    )
    write(tmp_path, {"one.yaml": f"train: [x/images, y/images, z/images]\n{NAMED}", "two.yaml": f"train: x\n{NAMED}"})
    with pytest.raises(UserError, match=r"2 YAML files describe a data set \(one.yaml, two.yaml\): give one of them"):
        read_splits(own(tmp_path, val_split=0.34), masks=False)
    chosen = own(tmp_path / "one.yaml", val_split=0.34)
    assert (chosen.folder, chosen.where) == (tmp_path, f"--data {tmp_path / 'one.yaml'}")
    splits = read_splits(chosen, masks=False)
    assert sorted(image["file_name"] for part in splits.values() for image in part.images) == [
        "x/images/a.jpg", "y/images/a.jpg", "z/images/a.jpg",
    ]  # fmt: skip
    assert sum(len(part.content["annotations"]) for part in splits.values()) == 2, "the third is background"


def test_classes_without_a_training_object_need_a_list_beside_the_labels_or_above(tmp_path):
    below = {f"VOCdevkit/VOC2012/{name}": text for name, text in LISTED.items()}
    below["VOCdevkit/VOC2012/Annotations/valid_a.xml"] = XML.replace("stick", "wheel")
    findings = read_splits(own(write(tmp_path, below)), masks=False)["val"].findings
    assert [(finding.code, finding.examples) for finding in findings] == [("unlisted-classes", ("wheel",))]
    write(tmp_path, {"VOCdevkit/VOC2012/classes.txt": "disc\nstick\nwheel\n"})
    splits = read_splits(own(tmp_path), masks=False)
    assert {coco.classes for coco in splits.values()} == {("disc", "stick", "wheel")}


def test_polygons_become_masks_and_difficult_objects_crowds(tmp_path):
    write(tmp_path / "yolo", pairs("{}/images", "{}/labels", YOLO_POLYGON + YOLO_POLYGON, ".txt"))
    coco = read_splits(own(tmp_path / "yolo"), masks=True)["train"]
    assert [record["segmentation"] for record in coco.content["annotations"]] == [[POLYGON]] * 4
    assert [record["area"] for record in coco.content["annotations"]] == [120] * 4
    assert {finding.code for finding in coco.findings} == {"class-unused", "object-twice"}
    write(tmp_path / "voc", pairs("{}", "{}", XML.replace(">0</diff", ">1</diff"), ".xml"))
    voc = read_splits(own(tmp_path / "voc"), masks=False)["train"]
    assert [record["iscrowd"] for record in voc.content["annotations"]] == [1, 1]
    assert [finding.code for finding in voc.findings] == ["difficult"]


def mask_png(mode: str = "L") -> str:
    drawn = Image.fromarray(np.array([[0, 255, 0], [0, 255, 255]], np.uint8)).convert(mode)
    drawn.save(file := io.BytesIO(), "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def test_lists_may_mix_absolute_and_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"images/a.jpg": "", "images/b.jpg": "", "labels/a.txt": YOLO_BOX, "labels/b.txt": YOLO_BOX})
    listed = f"{tmp_path / 'images/a.jpg'}\nimages/b.jpg"
    write(tmp_path, {"list.txt": listed, "data.yaml": f"val: list.txt\n{NAMED}"})
    coco = read_splits(OwnData("--data", Path("data.yaml"), tmp_path / "work", training=False), masks=False)["val"]
    assert [image["file_name"] for image in coco.images] == ["a.jpg", "b.jpg"]


def test_labelmes_shapes_are_joined_by_group(tmp_path):
    first = {"label": "disc", "points": [[0, 0], [4, 0], [4, 4]], "group_id": 7, "shape_type": "polygon"}
    second = {"label": "disc", "points": [[10, 10], [14, 10], [14, 14], [10, 14]], "group_id": 7}
    circle = {"label": "disc", "points": [[20, 15], [20, 18]], "shape_type": "circle", "group_id": None}
    mask = {"label": "stick", "points": [[5, 6], [7, 7]], "shape_type": "mask", "mask": mask_png()}
    write(tmp_path, pairs("{}", "{}", shapes(first, circle, mask, second), ".json"))
    coco = read_splits(own(tmp_path), masks=True)["train"]
    records = coco.content["annotations"][:3]
    assert [len(record["segmentation"]) for record in records[:2]] == [2, 1]
    assert [record["bbox"] for record in records] == [[0, 0, 14, 14], [17, 12, 6, 6], [6, 6, 2, 2]]
    assert [record["area"] for record in records[2:]] == [3], "the pixels of the mask"
    assert coco.classes == ("disc", "stick")


BAD_SHAPES: dict[str, tuple[dict[str, Any], str]] = {
    "line": ({"shape_type": "line", "points": [[1, 2], [3, 4]]}, "shape_type 'line': allowed are polygon, rectangle"),
    "two points": ({"points": [[1, 2], [3, 4]]}, r"points: a polygon must have at least 3 \[x, y\] in px"),
    "no number": ({"points": [[1, 2], [3, "4"], [5, 6]]}, r"points: a polygon must have at least 3"),
    "three corners": ({"shape_type": "rectangle", "points": [[1, 2]] * 3}, r"points: a rectangle must have 2 \[x, y\]"),
    "mask outside": ({"shape_type": "mask", "points": [[38, 2], [41, 4]], "mask": mask_png()}, "within the 40 x 30 px"),
    "in colour": ({"shape_type": "mask", "points": [[3, 2], [6, 4]], "mask": mask_png("RGB")}, "must be a grey "),
    "no mask": ({"shape_type": "mask", "points": [[3, 2], [6, 4]], "mask": "!"}, "must be a PNG picture in base64"),
    "no label": ({"label": " ", "points": []}, r"shapes\[0\].label: ' '; must be the name of a class"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_SHAPES)
def test_shapes_that_are_no_objects_are_refused_with_their_place(case, tmp_path):
    shape, message = BAD_SHAPES[case]
    write(tmp_path, pairs("{}", "{}", shapes({"label": "disc", **shape}), ".json"))
    with pytest.raises(UserError, match=rf"train_a.json: .*{message}") as caught:
        read_splits(own(tmp_path), masks=True)
    assert "\n" not in str(caught.value)


def test_lvis_is_read_as_coco_with_names_from_its_urls(tmp_path):
    content = coco_content()
    for image in content["images"]:
        name = image.pop("file_name")
        image |= dict(coco_url=f"http://host/val2017/{name}", neg_category_ids=[], not_exhaustive_category_ids=[])
        (tmp_path / "val2017").mkdir(exist_ok=True)
        picture(image["id"]).save(tmp_path / "val2017" / name)
    for record in content["annotations"]:
        del record["iscrowd"]
    (tmp_path / "lvis_v1_val.json").write_text(json.dumps(content), encoding="utf-8")
    coco = read_splits(own(tmp_path, training=False), masks=True)["val"]
    assert [image["file_name"] for image in coco.images] == [f"val2017/p{i}.jpg" for i in range(3)]
    assert {record["iscrowd"] for record in coco.content["annotations"]} == {0}
    assert [finding.code for finding in coco.findings] == ["file-name-url"]
    assert coco.format == "LVIS"


@pytest.mark.parametrize(("names", "ids"), [(["7", "012"], [12, 7]), (["7", "a"], [1, 2])])
def test_ids_are_those_that_results_on_the_labels_have(names, ids, tmp_path):
    """Results whose ids are the file's fit the labels too: numbers of files, and classes that count from 1."""
    write(tmp_path, {f"images/{name}.jpg": "" for name in names} | {f"labels/{name}.txt": YOLO_BOX for name in names})
    (tmp_path / "classes.txt").write_text("disc\nstick\n", encoding="utf-8")
    coco = read_splits(own(tmp_path, training=False, split="train"), masks=False)["train"]
    assert [image["id"] for image in coco.images] == ids
    assert [(category["id"], category["name"]) for category in coco.content["categories"]] == [
        (1, "disc"),
        (2, "stick"),
    ]
    results = [
        dict(image_id=record["image_id"], category_id=record["category_id"], bbox=record["bbox"], score=0.5)
        for record in coco.content["annotations"]
    ]
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    if ids == [1, 2]:
        with pytest.raises(UserError, match="give as --ann the COCO file that the numbers are from"):
            size_ap(tmp_path / "labels", tmp_path / "results.json", sweep=False)
        return
    assert size_ap(tmp_path / "labels", tmp_path / "results.json", sweep=False).runs[0].bins[0].ap == 1


def test_broken_pictures_are_findings_not_the_end(tmp_path, capsys):
    write(tmp_path, LAYOUTS["Ultralytics"][1])
    (tmp_path / "images/train/train_a.jpg").write_bytes(b"no picture")
    assert main(["check-data", str(tmp_path)]) == 2
    out = " ".join(capsys.readouterr().out.split())
    assert "pictures that cannot be read: 1" in out
    assert "train: 2 images, 2 objects" in out


def both(folder: Path) -> None:
    write(folder, pairs("images/{}", "labels/{}", YOLO_BOX, ".txt") | pairs("images/{}", "xml/{}", XML, ".xml"))


def two_years(folder: Path) -> None:
    write(folder, {f"VOC{year}/{name}": text for year in (2007, 2012) for name, text in LISTED.items()})


def bad_line(folder: Path) -> None:
    write(folder, pairs("images/{}", "labels/{}", "0 .5 .5 .1 .1\n1 .5 .5 .1\n", ".txt") | {"classes.txt": "a\nb\n"})


def test_pictures_elsewhere_are_named_but_not_beside_a_yaml_file(tmp_path):
    files = pairs("pictures", "Annotations", XML, ".xml")
    write(tmp_path / "a", {name: text for name, text in files.items() if name.endswith(".xml")})
    write(tmp_path / "b", {name: text for name, text in files.items() if name.endswith(".jpg")})
    splits = read_splits(own(tmp_path / "a", img_dir=tmp_path / "b", val_split=0.5), masks=False)
    assert {coco.image_dir for coco in splits.values()} == {tmp_path / "b"}
    assert sum(coco.pictures[0].size == (WIDTH, HEIGHT) for coco in splits.values()) == 2
    write(tmp_path / "c", LAYOUTS["Ultralytics"][1])
    with pytest.raises(UserError, match=r"--img-dir .*b: .*data.yaml says where the pictures are"):
        read_splits(own(tmp_path / "c", img_dir=tmp_path / "b"), masks=False)


def other_classes(text: str, suffix: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        write(folder, pairs("{}", "{}", text, suffix) | {"classes.txt": "disc\n"})

    make.__name__ = suffix
    return make


def with_yaml(text: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        write(folder, pairs("images/{}", "labels/{}", YOLO_BOX, ".txt") | {"data.yaml": text})

    make.__name__ = text.split("\n")[0]
    return make


REFUSED: dict[Callable[[Path], Any], str] = {
    both: r"YOLO's labels \(labels/train/\) and Pascal VOC's labels \(xml/train/\): which are the annotations\?",
    two_years: r"2 folders may hold the labels for train \(VOC2007/Annotations/, VOC2012/Annotations/\): give the ",
    bad_line: r"train_a.txt, line 2: 4 numbers; expected are class x y width height .*\(1 more lines like this\)",
    other_classes(XML, ".xml"): r"train_a.xml, line 2: class 'stick': allowed are those of --data .*classes.txt",
    other_classes(RECTANGLE, ".json"): r"shapes\[0\]: label 'stick': allowed are those of --data .*classes.txt",
    with_yaml(f"nc: 3\ntrain: images/train\nval: images/valid\n{NAMED}"): "nc '3': must be 2, the number of names",
    with_yaml(f"kpt_shape: [17, 3]\ntrain: images/train\nval: images/valid\n{NAMED}"): "these labels are keypoints",
    with_yaml(f"train: pictures/train\nval: images/valid\n{NAMED}"): r"train 'pictures/train': no folder or .txt list",
    with_yaml(f"train:\nval:\n{NAMED}"): "it names no pictures; expected are train, val or test",
    with_yaml(f"val: images/valid\n{NAMED}"): r"no annotations for training; found: val \(.*data.yaml \(val\)\)",
}  # fmt: skip


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_what_is_ambiguous_or_wrong_is_said_in_one_line(make, tmp_path):
    make(tmp_path)
    with pytest.raises(UserError, match=REFUSED[make]) as caught:
        read_splits(own(tmp_path), masks=False)
    assert "\n" not in str(caught.value)


def test_an_unknown_layout_is_answered_with_what_was_looked_for_and_seen(tmp_path, capsys):
    write(tmp_path, {"notes/readme.md": "", "a.csv": ""})
    assert main(["check-data", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "found: notes/, a.csv" in err
    for layout in ("instances_{train,val}.json", "data.yaml", "(Pascal VOC)", "(labelme)", "masks/", "train/<class>/"):
        assert layout in err


def test_coco_annotations_come_first_and_other_options_stay_as_they_are(tmp_path):
    write(tmp_path, LAYOUTS["Ultralytics"][1])
    for split in ("train", "val"):
        write_coco(tmp_path, coco_content(), f"annotations/instances_{split}.json", "images")
    assert read_splits(own(tmp_path), masks=True)["train"].format == "COCO"
    assert read_splits(own(tmp_path / "data.yaml"), masks=False)["train"].format == "YOLO"
    with pytest.raises(UserError, match=r"--coco-dir .*data.yaml: no such folder"):
        OwnData("--coco-dir", tmp_path / "data.yaml")
