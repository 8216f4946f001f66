"""Formats other than COCO's: the same figures from the same boxes, LVIS's rules, and clear errors for bad files."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_plugin.coco.formats import Source
from mmms_plugin.coco.read import read_detections, read_ground_truth
from mmms_plugin.commands import main
from mmms_plugin.errors import UserError
from mmms_plugin.size_ap import size_ap
from mmms_plugin.size_ap.methods import Seeds, parse_group, read_files
from mmms_plugin.size_ap.object_sizes import describe_objects
from tests.size_ap.size_ap_data import random_coco

WIDTH, HEIGHT = 1280, 960  # some of the boxes are as large
NAMES = ["ant", "b<e>e", "cow"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same boxes, of whole pixels, as COCO, YOLO, VOC, and predictions in all formats."""
    root = tmp_path_factory.mktemp("formats")
    coco, results = random_coco(7, images=6, classes=3, crowd=0, detections=20)
    order = sorted(c["id"] for c in coco["categories"])
    for category in coco["categories"]:
        category["name"] = NAMES[order.index(category["id"])]
    stems = {image["id"]: f"{image['id']:06d}" if i % 2 else f"img.{i}" for i, image in enumerate(coco["images"])}
    for image in coco["images"]:
        image |= dict(file_name=f"{stems[image['id']]}.png", width=WIDTH, height=HEIGHT)
    for item in (*coco["annotations"], *results):
        x, y, w, h = (round(v) for v in item["bbox"])
        item["bbox"] = [x, y, max(w, 1), max(h, 1)]
        item["area"] = item["bbox"][2] * item["bbox"][3]
    for folder in ("images/val", "labels/val", "Annotations", "yolo", "voc", "labelme"):
        (root / folder).mkdir(parents=True)
    for stem in stems.values():
        Image.new("L", (WIDTH, HEIGHT)).save(root / f"images/val/{stem}.png")
    truth = {stem: [a for a in coco["annotations"] if stems[a["image_id"]] == stem] for stem in stems.values()}
    found = {stem: [r for r in results if stems[r["image_id"]] == stem] for stem in stems.values()}
    for stem in stems.values():
        (root / f"labels/val/{stem}.txt").write_text(yolo(truth[stem], order), encoding="utf-8")
        (root / f"labelme/{stem}.json").write_text(labelme(truth[stem], order, stem), encoding="utf-8")
        (root / f"yolo/{stem}.txt").write_text(yolo(found[stem], order), encoding="utf-8")
        (root / f"Annotations/{stem}.xml").write_text(voc(truth[stem], order), encoding="utf-8")
        (root / f"voc/{stem}.xml").write_text(voc(found[stem], order), encoding="utf-8")
    names = "\n".join(f"  {i}: '{name}'" for i, name in enumerate(NAMES))
    (root / "data.yaml").write_text(f"path: .\nval: images/val\nnames:\n{names}\n", encoding="utf-8")
    (root / "list.yaml").write_text(f"val: [val.txt]\nnames: {json.dumps(NAMES)}\n", encoding="utf-8")
    (root / "val.txt").write_text("\n".join(f"./images/val/{stem}.png" for stem in stems.values()), encoding="utf-8")
    (root / "coco.json").write_text(json.dumps(coco), encoding="utf-8")
    (root / "results.json").write_text(json.dumps(results), encoding="utf-8")
    for first, name in ((0, "from0"), (1, "from1")):
        named = [
            r | dict(image_id=by_ultralytics(stems[r["image_id"]]), category_id=order.index(r["category_id"]) + first)
            for r in results
        ]
        (root / f"{name}.json").write_text(json.dumps(named), encoding="utf-8")
    named = [r | dict(image_id=by_ultralytics(stems[r["image_id"]])) for r in results]
    (root / "named.json").write_text(json.dumps(named), encoding="utf-8")
    return root


def by_ultralytics(stem: str) -> int | str:
    return int(stem) if stem.isnumeric() else stem


def yolo(items: list[dict], order: list[int]) -> str:
    lines = []
    for item in items:
        x, y, w, h = item["bbox"]
        shares = ((x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT)
        score = [item["score"]] if "score" in item else []
        lines.append(" ".join(map(repr, [order.index(item["category_id"]), *shares, *score])))
    return "\n".join(lines)


def voc(items: list[dict], order: list[int]) -> str:
    objects = []
    for item in items:
        x, y, w, h = item["bbox"]
        name = NAMES[order.index(item["category_id"])].replace("<", "&lt;")
        score = f"<score>{item['score']!r}</score>" if "score" in item else "<difficult>0</difficult>"
        box = f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
        objects.append(f"<object><name>{name}</name>{score}<bndbox>{box}</bndbox></object>")
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    return f"<annotation><filename>x.png</filename>{size}\n" + "\n".join(objects) + "</annotation>"


def labelme(items: list[dict], order: list[int], stem: str) -> str:
    shapes = []
    for item in items:
        x, y, w, h = item["bbox"]
        name = NAMES[order.index(item["category_id"])]
        shapes.append(dict(label=name, points=[[x + w, y], [x, y + h]], shape_type="rectangle", group_id=None))
    return json.dumps(dict(shapes=shapes, imagePath=f"{stem}.png", imageWidth=WIDTH, imageHeight=HEIGHT))


def figures(root: Path, ann: str, pred: str, **options) -> list:
    results = size_ap(root / ann, root / pred, bins="a=0:16,b=16:40,c=40:inf", sweep=False, **options)
    names = results.runs[0].classes.category_names
    order = np.argsort(names)
    rows = [results.runs[0].classes.ap[i] for i in order]
    return [np.array(rows, float), [(b.ap, b.ar, b.ground_truths, b.detections) for b in results.runs[0].bins]]


@pytest.mark.parametrize(
    ("ann", "pred"),
    [
        ("labels/val", "yolo"), ("data.yaml", "yolo"), ("list.yaml", "yolo"), ("Annotations", "voc"),
        ("coco.json", "yolo"), ("coco.json", "voc"), ("labels/val", "voc"), ("Annotations", "yolo"),
        ("labelme", "from0.json"), ("labelme", "yolo"), ("labelme", "voc"),
        ("coco.json", "named.json"), ("labels/val", "from0.json"), ("labels/val", "from1.json"),
        ("Annotations", "from0.json"), ("Annotations", "from1.json"), ("coco.json", "results.json"),
    ],
)  # fmt: skip
def test_every_format_gives_the_same_figures(data, ann, pred):
    wanted, found = figures(data, "coco.json", "results.json"), figures(data, ann, pred)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-9)
    np.testing.assert_allclose(np.array(found[1], float), np.array(wanted[1], float), rtol=1e-9)


@pytest.mark.parametrize(
    ("ann", "source"),
    [
        ("labels/val", "box width x height, or the pixels of the polygon where there is one"),
        ("Annotations", "box width x height"), ("coco.json", "its annotation's 'area' field"),
    ],
)  # fmt: skip
def test_the_sizes_of_objects_are_from_what_the_format_has(data, ann, source):
    results = size_ap(data / ann, data / "results.json" if ann == "coco.json" else data / "yolo", sweep=False)
    assert results.area_rule.startswith(f"area 'annotation': ground truth by {source}, detections by ")
    truth, _ = read_ground_truth(data / ann, masks=False)
    rule = describe_objects(truth, results.bins).area_rule
    assert rule.startswith(
        "square root of the annotation's 'area' field" if ann == "coco.json" else "square root of box"
    )


def test_what_may_be_meant_by_a_folder_around_it_is_named(tmp_path):
    """A data set's folder, as training takes it, with annotation files, or with labels beside images."""
    for files, inside in (
        (["annotations/instances_val.json", "images/a.jpg", ".x/b.json"], "annotations/instances_val.json; give that"),
        (
            ["data.yaml", "labels/val/a.txt", "labels/train/b.txt", "images/val/a.jpg"],
            "data.yaml, labels/train/, labels/val/; give one of them",
        ),
        (["Annotations/a.xml", "JPEGImages/a.jpg"], "Annotations/; give that"),
    ):
        root = tmp_path / inside[:4]
        for name in files:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        with pytest.raises(UserError, match=f"nor labelme's .json files; inside: {inside}$"):
            read_ground_truth(root, masks=False)


ORDER = "numbers of classes are taken in this order: ant, b<e>e, cow"
NOTHING = "files without any predictions: 1; counted as a model that finds nothing"
UNDERSTOOD = {
    ("coco.json", "yolo"): (ORDER,),
    ("coco.json", "voc"): (),
    ("coco.json", "named.json"): (),
    ("labels/val", "yolo"): (),
    ("labels/val", "from0.json"): (),
    ("labels/val", "from1.json"): ("category ids are taken to count from 1, as no id 0 is used",),
    ("Annotations", "from1.json"): (ORDER,),
    ("Annotations", "from0.json"): (ORDER, "category ids are taken to count from 0, as an id 0 is used"),
    ("labels/val", "none.json"): (NOTHING,),
    ("coco.json", "none.json"): (NOTHING,),
    ("Annotations", "none"): (ORDER, NOTHING),
}  # fmt: skip


@pytest.mark.parametrize(("ann", "pred"), UNDERSTOOD)
def test_how_numbers_of_classes_were_understood_is_reported(data, ann, pred):
    (data / "none.json").write_text("[]", encoding="utf-8")
    (data / "none").mkdir(exist_ok=True)
    truth, notes = read_ground_truth(data / ann, masks=False, source=Source(classes=data / "data.yaml"))
    _, more = read_detections(data / pred, truth, masks=False)
    assert notes == ()
    told = [note.partition(": ")[2] for note in more]
    assert told == list(UNDERSTOOD[ann, pred])
    assert truth.format == {"coco.json": "coco", "labels/val": "yolo", "Annotations": "voc"}[ann]


def test_the_data_yaml_of_a_roboflow_export(data, tmp_path):
    """It lies beside the folders that it names as if it lay in one of them."""
    shutil.copytree(data / "images/val", tmp_path / "valid/images")
    shutil.copytree(data / "labels/val", tmp_path / "valid/labels")
    (tmp_path / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\nnames: [a, b, c]", encoding="utf-8"
    )
    truth, notes = read_ground_truth(tmp_path / "data.yaml", masks=False)
    plain, _ = read_ground_truth(data / "data.yaml", masks=False)
    np.testing.assert_array_equal(truth.boxes, plain.boxes)
    assert (truth.category_names, notes) == (("a", "b", "c"), ())


def test_polygons_and_masks_of_yolo(data, tmp_path):
    for folder, score in (("labels", ""), ("found", " 0.5")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "img.0.txt").write_text(f"1 0.25 0.25 0.75 0.25 0.5 0.75{score}", encoding="utf-8")
    options = dict(images=data / "images/val", classes=data / "data.yaml", iou_type="segm")
    result = size_ap(tmp_path / "labels", tmp_path / "found", **options)
    assert not any("area" in note for note in result.notes)  # YOLO's files state none
    assert result.runs[0].bins[0].ap == pytest.approx(1)
    assert result.runs[0].bins[0].ground_truths == 1


def box_of(corners: str, name: str = "cat") -> str:
    return f"<a><object><name>{name}</name><bndbox>{corners}</bndbox></object></a>"


TRUTH_FAULTS = {
    ("a.txt", "0 0.5 0.5 0.1\n"): "a.txt, line 1: 4 numbers; expected are class x y width height",
    ("a.txt", "\n0 0.5 0.5 x 0.1\n"): "a.txt, line 2: '0 0.5 0.5 x 0.1' are not numbers",
    ("a.txt", "0 50 20 10 10"): "a.txt, line 1: 50 is not a share of the image (0 to 1); are these pixels?",
    ("a.txt", "0.5 .5 .5 .1 .1"): "a.txt, line 1: class 0.5: must be an integer from 0 to 9999",
    ("a.txt", "0 .5 .5 -.1 .1\n0 .5 .5 -.1 .1"): "line 1: negative width or height; expected are class x y width",
    ("a.txt", "0 nan .5 .1 .1"): "are not numbers",
    ("a.txt", ".5 .5 .1 .1 .9 2"): "; is 2, at the end, the class?",
    ("b.txt", ""): "b.txt: no image of that name in",
    ("a.txt", ""): "no categories; there is nothing to evaluate",
    ("a.xml", "<annotation>\n<object>"): "a.xml, line 2: not XML (no element found)",
    ("a.xml", "<annotation><object>\n<name>cat</name></object></annotation>"): "bndbox/xmin '': must be a number",
    ("a.xml", "<a><object>\n<name>cat</name><bndbox><xmin>9</xmin><ymin>1</ymin><xmax>2</xmax><ymax>3</ymax></bndbox>"
     "</object></a>"): "a.xml, line 1: box 9 1 2 3: min is above max",
    ("a.xml", '<!DOCTYPE a [<!ENTITY b "b">]><a>&b;</a>'): "a.xml, line 1: a document type is declared; labels need",

    ("a.xml", "\n<!DOCTYPE a [<!ATTLIST object b CDATA 'c'>]><a/>"): "a.xml, line 2: a document type is declared",
    ("../a.yaml", "val: [\n"): "a.yaml, line 2: not YAML",
    ("../a.yaml", "val: nowhere"): "a.yaml: val 'nowhere': no folder or .txt list of images in",
    ("../a.yaml", "val: images"): "and all others are missing",
    ("../a.yaml", "- 1"): "not a data set's YAML file",
    ("../a.yaml", "\x01"): "a.yaml: not YAML",
    ("../a.yaml", "val: [images, 5]"): "a.yaml: val '5': no folder or .txt list of images in",
    ("../a.yaml", "val: [images, [5]]"): "a.yaml: val ['5']: no folder or .txt list of images in",
    ("../a.yaml", f"val: {'x' * 300}"): f"a.yaml: val '{'x' * 30} ... {'x' * 30}': no folder or .txt list of images in",
    ("../a.yaml", f"val: {'x' * 300}.txt"): "x.txt': no folder or .txt list of images in",
    ("../a.yaml", r'val: "\0"'): r"a.yaml: val '\x00': no folder or .txt list of images in",
    ("../a.yaml", "path: [a]\nval: images"): "a.yaml: path ['a']: must be a folder",
    ("../a.yaml", "path: /\nval: ."): "a.yaml: val '.': must be a folder of images, not a whole disk",
    ("../a.yaml", "{}"): "a.yaml: val None: no folder or .txt list of images in",
    ("a.txt", "0 .1 .1 .1 .1 .1 .1 .1"): "a.txt, line 1: 8 numbers; expected are class x y width height as shares of "
    "the image, or class and a polygon",
    ("a.txt", "0 .1 .1 .1 .1 .1"): "a.txt, line 1: 6 numbers; expected are",
    ("a.txt", "0 .5 .5 .1 -4.25"): "a.txt, line 1: -4.25 is not a share of the image",
    ("a.txt", "0 .5 .5 .1 -.1"): "a.txt, line 1: negative width or height",
    ("a.txt", "-1 .5 .5 .1 .1"): "a.txt, line 1: class -1: must be an integer from 0 to 9999",
    ("a.txt", "10000 .5 .5 .1 .1"): "a.txt, line 1: class 10000: must be an integer from 0 to 9999; for more,",
    ("a.txt", "x\n" * 3): "a.txt, line 1: 'x' are not numbers; expected are class x y width height as shares of the "
    "image, or class and a polygon (2 more lines like this)",
    ("a.txt", "0" * 59 + " xy"): f"a.txt, line 1: '{'0' * 30} ... {'0' * 27} xy' are not numbers",
    ("a.txt", " " * (2**22 + 1)): "a.txt: 4,194,305 bytes; allowed are 4,194,304 in such a file",
    ("a.txt", "x\n" * 999): "(998 more lines like this)",
    ("a.txt", "x\n" * 5000): "(at least 999 more lines like this)",
    ("a.xml", "<a>" + "<object/>" * 5000 + "</a>"): "an object without name (at least 999 more lines like this)",
    ("a.txt", b"\xff"): "a.txt: not a text file in UTF-8",
    ("a.xml", "<a><object>\n\n</object></a>"): "a.xml, line 1: an object without name",
    ("a.xml", box_of("<xmin>1</xmin><ymin>1</ymin>\n<xmax>inf</xmax><ymax>2</ymax>")): "a.xml, line 2: bndbox/xmax "
    "'inf': must be a number",
    ("a.xml", box_of("<xmin>1</xmin><ymin>9</ymin><xmax>2</xmax><ymax>8</ymax>")): "box 1 9 2 8: min is above max",
    ("a.xml", box_of("<xmin>1</xmin><ymin>1</ymin><xmax>1e308</xmax><ymax>2</ymax>")): "bndbox/xmax '1e308': must be a "
    "number within ±1e+09 px",
    ("a.xml", '<?xml version="1.0" encoding="klingon"?><a/>'): "a.xml: encoding 'klingon': cannot be read; save the "
    "file as UTF-8",
    ("a.xml", "<?xml version='1.0' encoding='hex'?><a/>"): "a.xml: encoding 'hex': cannot be read",
    ("a.xml", '<?xml version="1.0" encoding="unicode_escape"?><a/>'): "encoding 'unicode_escape': cannot be read",
    ("a.xml", '<?xml version="1.0" encoding="utf-16"?><a/>'): "a.xml: encoding 'utf-16': cannot be read",
    ("a.xml", '<?xml version="1.0" encoding="iso-8859-99"?><a/>'): "a.xml: not a text in iso-8859-99; save the file as",
    ("a.xml", b'<?xml version="1.0" encoding="utf8"?><a>\xff</a>'): "not a text in utf8; save the file as UTF-8",
    ("a.xml", b"\xff\xfe<"): "a.xml: not a text in utf-16; save the file as UTF-8",
    ("a.xml", "<a>" * 21): "a.xml, line 1: elements are nested too deep",
    ("a.xml", box_of("<xmin>1</xmin>", name="dog") + "<"): "a.xml, line 1: not XML",
    ("a.csv", ""): "this folder holds neither .txt files (YOLO) nor .xml files (Pascal VOC)",
}  # fmt: skip


@pytest.mark.parametrize(("file", "text"), TRUTH_FAULTS, ids=range(len(TRUTH_FAULTS)))
def test_a_bad_label_is_named_by_file_and_line(file, text, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    Image.new("L", (20, 10)).save(tmp_path / "images/a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    ann = tmp_path / "a.yaml" if file.endswith("yaml") else tmp_path / "labels"
    assert main(["size-ap", "--ann", str(ann)]) == 2
    error = capsys.readouterr().err
    assert TRUTH_FAULTS[file, text] in " ".join(error.split()), error
    assert error.count("\n") == 1


RESULT_FAULTS = {
    ("img.0.txt", "0 .5 .5 .1 .1"): "img.0.txt, line 1: 5 numbers; expected are class x y width height confidence as "
    "shares of the image, or class and a polygon; is the confidence missing (save_conf=True)?",
    ("img.0.txt", "1 .5 .5 .1 .1 .9\n3 .5 .5 .1 .1 .9"): "img.0.txt, line 2: class 3: must be an integer "
    "from 0 to 2, as in the ground truth",
    ("other.txt", ""): "1 image that the ground truth does not have (other)",
    ("img.0.txt", "0 .1 .1 .1 .1 .1 .1"): "7 numbers; expected are class x y width height confidence as shares of the "
    "image, or class and a polygon; is the confidence missing",
    ("img.0.txt", "0 .5 .5 .9"): "4 numbers; expected are class x y width height confidence as shares of the image, or "
    "class and a polygon$",
    ("img.0.txt", "3 .5 .5 .1 .1 .9"): "class 3: must be an integer from 0 to 2",
    ("other.xml", "<a/>"): "1 image that the ground truth does not have (other)",
    ("img.0.xml", "<a><object><name>cow</name><score>high</score><confidence>1</confidence><bndbox><xmin>1</xmin>"
     "<ymin>1</ymin><xmax>2</xmax><ymax>3</ymax></bndbox></object></a>"): "line 1: score 'high': must be a number",
    ("a.json", '[{"image_id": 77, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]'): "a.json: image_id holds "
    "numbers (77) that are in no file name of the ground truth (",
    ("img.0.xml", "<a><object>\n<name>dog</name></object></a>"): "class 'dog': allowed are the ground truth's",
    ("img.0.xml", "<a><object>\n<name>cow</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>3</ymax>"
     "</bndbox></object></a>"): "img.0.xml, line 1: score '': must be a number",
    ("a.json", '[{"image_id": "other", "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]'): "does not have (other)",
}  # fmt: skip


@pytest.mark.parametrize(("file", "text"), RESULT_FAULTS)
def test_a_bad_prediction_is_named_by_file_and_line(file, text, data, tmp_path):
    (tmp_path / "found").mkdir()
    path = tmp_path / "found" / file
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        size_ap(data / "labels/val", path if file.endswith(".json") else path.parent)
    assert RESULT_FAULTS[file, text] in f"{error.value}$"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(format="tfrecord"), "--format tfrecord: allowed are auto, coco, lvis, yolo, voc"),
        (dict(images="nowhere"), "--images nowhere: no such folder"),
        (dict(classes="nowhere"), "--classes nowhere: no such file"),
        (dict(pred_format="tfrecord"), "--pred-format tfrecord: allowed are auto, coco, lvis, yolo, voc"),
        (dict(format="lvis"), "images[0].neg_category_ids: must be a list of category ids"),
    ],
)
def test_wrong_options(options, words, data):
    with pytest.raises(UserError, match=re.escape(words)):
        size_ap(data / "coco.json", data / "results.json", **options)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A folder with one picture of 20 x 10 px in ``images/``, and ``labels/`` beside it."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.new("L", (20, 10)).save(tmp_path / "images/a.png")
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


LINES = {  # of YOLO: what is just within the limits, and the box in px
    "\n0 .5 .5 .5 .5\n\n": [[5, 2.5, 10, 5]],
    "0 4 .5 0 0": [[80, 5, 0, 0]],
    "1 -4 .5 .5 .5": [[-85, 2.5, 10, 5]],
    "2 .25 .1 .75 .1 .5 .4": [[5, 1, 10, 3]],
    "2 .25 .1 .75 .1 .5 .4 .3 .9": [[5, 1, 10, 8]],
    " " * 2**22: [],
}


@pytest.mark.parametrize(("text", "boxes"), LINES.items(), ids=range(len(LINES)))
def test_lines_of_yolo_just_within_the_limits(picture, text, boxes):
    write(picture / "labels/a.txt", text)
    (picture / "classes.txt").write_text("x\ny\nz", encoding="utf-8")
    truth, _ = read_ground_truth(picture / "labels", masks=False)
    np.testing.assert_allclose(truth.boxes, np.reshape(boxes, (-1, 4)))
    assert truth.image_sizes.tolist() == [[20, 10]]
    assert truth.ids.tolist() == list(range(1, len(boxes) + 1))


ENCODED = {  # of XML: what is declared, and the encoding of the bytes
    "utf8": "utf-8", "UTF-8": "utf-8-sig", "GBK": "gbk", "gb2312": "gb2312", "Shift_JIS": "shift_jis",
    "utf-16": "utf-16",
}  # fmt: skip


@pytest.mark.parametrize(("declared", "encoding"), ENCODED.items())
def test_xml_in_the_encodings_that_label_tools_write(picture, declared, encoding):
    cat = box_of("<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>", "猫")
    text = f'<?xml version="1.0" encoding="{declared}"?>{cat}'
    (picture / "labels/a.xml").write_bytes(text.encode(encoding))
    truth, _ = read_ground_truth(picture / "labels", masks=False, source=Source(pictures=picture / "images"))
    assert truth.category_names == ("猫",)


@pytest.mark.needs(hasattr(os, "mkfifo"), reason="named pipes")
@pytest.mark.parametrize("name", ["a.txt", "a.xml"])
def test_a_pipe_among_the_labels_is_not_waited_for(picture, name):
    os.mkfifo(picture / "labels" / name)
    with pytest.raises(UserError, match=f"{re.escape(name)}: a named pipe, not a file"):
        read_ground_truth(picture / "labels", masks=False)


NAMED = {  # file with names of classes, its text, and the names; None is an error
    "labels/classes.txt": ("ant\n\n  bee \n", ["ant", "bee"]),
    "classes.txt": ("ant\nbee", ["ant", "bee"]),
    "data.yaml": ("names: {1: bee, 0: ant}", ["ant", "bee"]),
    "../data.yaml": ("names: [1, 2, 3]", ["1", "2", "3"]),
    "elsewhere.txt": ("ant\nbee", ["0", "1"]),
    "given.YML": ("names: [ant, bee]", ["ant", "bee"]),
    "given.txt": ("ant", "a.txt, line 1: class 1: must be an integer from 0 to 0, the classes of {}"),
    "given.yaml": ("names: {0: ant, 2: bee}", "{}: 'names' must be a list, or a mapping from 0, 1, ... to names"),
    "given2.yaml": ("names: ant", "{}: 'names' must be a list, or a mapping from 0, 1, ... to names"),
    "given3.txt": ("\n", "{}: 0 class names; allowed are 1 to 65,536"),
}


@pytest.mark.parametrize("file", NAMED)
def test_where_names_of_classes_are_found(tmp_path, file):
    (tmp_path / "set/images").mkdir(parents=True)
    Image.new("L", (20, 10)).save(tmp_path / "set/images/a.png")
    write(tmp_path / "set/labels/a.txt", "1 .5 .5 .5 .5")
    path = write(tmp_path / "set" / file, NAMED[file][0])
    source = Source(classes=path if file.startswith("given") else None)
    if isinstance(names := NAMED[file][1], str):
        with pytest.raises(UserError) as error:
            read_ground_truth(tmp_path / "set/labels", masks=False, source=source)
        assert names.format(path) in str(error.value)
    else:
        truth, _ = read_ground_truth(tmp_path / "set/labels", masks=False, source=source)
        assert list(truth.category_names) == names
        assert truth.category_ids.tolist() == list(range(len(names)))


def test_labels_of_the_nearest_folder_belong_to_the_images_beside_it(tmp_path):
    """``labels`` in the path becomes ``images``, the last one of several; else the folder's neighbour counts."""
    deep = tmp_path / "labels/set/images/val/more"
    deep.mkdir(parents=True)
    Image.new("L", (20, 10)).save(deep / "a.jpeg")
    labels = write(tmp_path / "labels/set/labels/val/more/a.txt", "0 .5 .5 1 1").parent.parent
    assert read_ground_truth(labels, masks=False, source=Source(truth="yolo"))[0].file_names == ("more/a.jpeg",)
    plain = write(tmp_path / "other/text/a.txt", "0 .5 .5 1 1").parent
    with pytest.raises(UserError, match=r"whose sizes are needed, are not in .*: name their folder with --images DIR"):
        read_ground_truth(plain, masks=False, source=Source(truth="yolo"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: the folder is empty"):
        read_ground_truth(tmp_path / "empty", masks=False, source=Source(truth="yolo"))
    (tmp_path / "other/images").mkdir()
    Image.new("L", (20, 10)).save(tmp_path / "other/images/a.PNG")
    assert read_ground_truth(plain, masks=False)[0].boxes.tolist() == [[0, 0, 20, 10]]
    Image.new("L", (20, 10)).save(tmp_path / "other/images/a.jpg")
    with pytest.raises(UserError, match=r"a.jpg: .*a.PNG has the same name; names must be unique"):
        read_ground_truth(plain, masks=False)


@pytest.mark.parametrize(("turn", "size"), [(1, [20, 10]), (4, [20, 10]), (5, [10, 20]), (6, [10, 20]), (8, [10, 20])])
def test_sizes_are_those_of_pictures_as_they_are_shown(picture, turn, size):
    image = Image.new("L", (20, 10))
    exif = image.getexif()
    exif[274] = turn
    (picture / "images/a.png").unlink()
    image.save(picture / "images/a.jpg", exif=exif)
    write(picture / "labels/a.txt", "0 .5 .5 1 1")
    truth, _ = read_ground_truth(picture / "labels", masks=False)
    assert truth.image_sizes.tolist() == [size]
    (picture / "images/a.jpg").unlink()
    image.save(picture / "images/a.tif", exif=exif)  # Pillow turns TIFF files already when it opens them
    truth, _ = read_ground_truth(picture / "labels", masks=False)
    assert truth.image_sizes.tolist() == [size]
    (picture / "images/a.tif").unlink()
    (picture / "images/a.jpg").write_bytes(b"none")
    with pytest.raises(UserError, match=r"--ann .*a.jpg: not a picture that can be read"):
        read_ground_truth(picture / "labels", masks=False)


def test_a_folder_of_predictions_may_be_empty_and_images_need_sizes(picture, data):
    truth, _ = read_ground_truth(data / "coco.json", masks=False)
    found, notes = read_detections(picture / "labels", truth, masks=False)
    assert len(found) == 0
    assert "without any predictions" in notes[-1]
    path = write(picture / "labels/img.0.txt", "0 .5 .5 1 1 1")
    for side in (0, 1):
        sizes = truth.image_sizes.copy()
        sizes[:, side] = 0
        with pytest.raises(UserError) as error:
            read_detections(path.parent, dataclasses.replace(truth, image_sizes=sizes), masks=False)
        assert str(error.value) == f"--pred {path}: the ground truth has no size of that image, which shares need"


KINDS = {  # what 'auto' takes a path for
    "a/b/labels.TXT": "yolo",
    "VOC/ImageSets/Main/val.txt": "voc",
    "x.yml": "yolo",
    "x.yaml": "yolo",
    "x.json": "coco",
    "x.xml": "voc",
}


@pytest.mark.parametrize("name", KINDS)
def test_formats_are_judged_by_names(tmp_path, name):
    (tmp_path / "VOC/Annotations").mkdir(parents=True)
    path = write(tmp_path / name, "")
    words = {"coco": "the file is empty", "voc": "", "yolo": "not a data set's YAML file"}[KINDS[name]]
    words = {"x.xml": "x.xml: one file; name the folder of the .xml files"}.get(name, words)
    words = words or "no images; there is nothing to evaluate"
    with pytest.raises(UserError) as error:
        read_ground_truth(path, masks=False)
    assert words in str(error.value)


def voc_object(name: str = "cow", left: float = 1, top: float = 1, right: float = 9, bottom: float = 5, more: str = ""):
    corners = f"<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
    return f"<object><name>{name}</name><bndbox>{corners}</bndbox>{more}</object>"


def voc_size(width: float, height: float) -> str:
    return f"<size><width>{width}</width><height>{height}</height></size>"


def test_a_list_of_image_sets_names_files(tmp_path, picture):
    """Sizes are the file's, where it has none the picture's, and unknown where there is no picture either."""
    folder = tmp_path / "Annotations"
    part = "<part><name>head</name><bndbox><xmin>3</xmin></bndbox></part>"
    write(folder / "a.xml", f"<a><filename>x.png</filename>{voc_size(0, 10)}{voc_object(more=part)}</a>")
    write(folder / "b.xml", f"<a>{voc_size(2**31, 10)}{voc_object('ant', 3, 4, 3, 4)}</a>")
    write(folder / "c.xml", f"<a>{voc_size(1, 2**31 - 1)}{voc_object(more='<difficult>1</difficult>')}</a>")
    write(folder / "d.xml", f"<a>{voc_size(30, 1)}" + "<b>" * 19 + "</b>" * 19 + "</a>")
    lists = write(tmp_path / "ImageSets/Main/val.txt", "a\nb 1\n\nsub/c  -1\nd\n")
    truth, notes = read_ground_truth(lists, masks=False, source=Source(pictures=picture / "images"))
    assert truth.image_sizes.tolist() == [[20, 10], [0, 0], [1, 2**31 - 1], [30, 1]]
    assert truth.file_names == ("a.png", "b", "c", "d")
    assert truth.category_names == ("ant", "cow")
    assert truth.boxes.tolist() == [[0, 0, 9, 5], [2, 3, 1, 1], [0, 0, 9, 5]]
    assert (truth.image_id.tolist(), truth.category_id.tolist()) == ([1, 2, 3], [2, 1, 2])
    assert truth.iscrowd.tolist() == [False, False, True]
    assert truth.annotated_area.tolist() == [45, 1, 45]
    assert "marked difficult: 1 (annotation 3); detections of them are neither right nor wrong" in notes[0]
    assert read_ground_truth(lists, masks=False)[0].image_sizes[0].tolist() == [0, 0]
    named = Source(classes=write(tmp_path / "names.txt", "cow\nant\nbee"))
    assert read_ground_truth(folder, masks=False, source=named)[0].category_id.tolist() == [1, 2, 1]
    named = Source(classes=write(tmp_path / "names.txt", "cow"))
    with pytest.raises(UserError, match=r"b.xml, line 1: class 'ant': allowed are those of --classes"):
        read_ground_truth(folder, masks=False, source=named)
    write(lists, "a\ne\nf")
    with pytest.raises(UserError, match=r"val.txt: no file .*e.xml \(2 of 3 are missing\)"):
        read_ground_truth(lists, masks=False)


def test_scores_of_voc_under_either_name(tmp_path):
    truth_folder = write(tmp_path / "truth/a.xml", f"<a>{voc_object()}{voc_object('ant')}</a>").parent
    truth, _ = read_ground_truth(truth_folder, masks=False)
    objects = [voc_object("cow", more="<confidence>0.25</confidence><difficult>1</difficult>")]
    objects.append(voc_object("ant", 2, 3, 7, 5, more="<score>0.5</score><confidence>1</confidence>"))
    folder = write(tmp_path / "found/a.xml", f"<a>{''.join(objects)}</a>").parent
    found, _ = read_detections(folder, truth, masks=False)
    assert found.scores.tolist() == [0.25, 0.5]
    assert found.category_id.tolist() == [2, 1]
    assert found.boxes.tolist() == [[0, 0, 9, 5], [1, 2, 6, 3]]


def test_images_with_the_same_name_in_two_folders_are_not_guessed(data):
    truth, _ = read_ground_truth(data / "coco.json", masks=False)
    names = list(truth.file_names)
    names[0] = f"other/{Path(names[1]).stem}.jpg"
    twice = dataclasses.replace(truth, file_names=tuple(names))
    with pytest.raises(UserError, match="2 images that the ground truth does not have"):
        read_detections(data / "yolo", twice, masks=False)


def test_difficult_objects_are_left_out(tmp_path):
    for folder, more in (("Annotations", "<difficult>1</difficult>"), ("found", "<score>1</score>")):
        (tmp_path / folder).mkdir()
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        (tmp_path / folder / "a.xml").write_text(
            f"<a><object><name>cow</name>{more}{box}</object></a>", encoding="utf-8"
        )
    result = size_ap(tmp_path / "Annotations", tmp_path / "found")
    assert result.runs[0].bins[0].ap is None
    assert "objects that are marked difficult: 1" in "".join(result.notes)


def federated_data(seed: int, path: Path) -> tuple[dict, list[dict]]:
    """A small LVIS data set with all of its rules at work, and more than 300 detections in an image."""
    rng = np.random.default_rng(seed)
    coco, results = random_coco(seed, images=8, classes=6, crowd=0, detections=120)
    ids = [c["id"] for c in coco["categories"]]
    for category, frequency in zip(coco["categories"], "rrccff", strict=True):
        category["frequency"] = frequency
    for image in coco["images"]:
        present = {a["category_id"] for a in coco["annotations"] if a["image_id"] == image["id"]}
        image["neg_category_ids"] = [i for i in ids if i not in present and rng.random() < 0.4]
        image["not_exhaustive_category_ids"] = [i for i in ids if i in present and rng.random() < 0.4]
        image["coco_url"] = f"http://images/{image['id']}.jpg"
    first = coco["images"][0]["id"]
    results += [r | dict(image_id=first, score=r["score"] * 0.9) for r in results]
    for annotation in coco["annotations"]:
        del annotation["iscrowd"], annotation["ignore"]
    coco["images"][1]["not_exhaustive_category_ids"].append(10**6)  # a class of another part of the data set
    (path / "lvis.json").write_text(json.dumps(coco), encoding="utf-8")
    (path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return coco, results


def without_rules(coco: dict, results: list[dict]) -> list[dict]:
    """The detections that the rules leave, by their own words, one after another."""
    kept, seen = [], {image["id"]: 0 for image in coco["images"]}
    asked = {(a["image_id"], a["category_id"]) for a in coco["annotations"]}
    asked |= {(image["id"], c) for image in coco["images"] for c in image["neg_category_ids"]}
    for i in sorted(range(len(results)), key=lambda i: -results[i]["score"]):
        seen[results[i]["image_id"]] += 1
        if seen[results[i]["image_id"]] <= 300 and (results[i]["image_id"], results[i]["category_id"]) in asked:
            kept.append(i)
    return [results[i] for i in sorted(kept)]


def test_lvis_rules(tmp_path):
    """Equal to COCO's evaluation of what the rules leave, where every class is exhaustive, and better where not."""
    coco, results = federated_data(5, tmp_path)
    found = size_ap(tmp_path / "lvis.json", tmp_path / "results.json")
    (tmp_path / "left.json").write_text(json.dumps(without_rules(coco, results)), encoding="utf-8")
    strict = size_ap(tmp_path / "lvis.json", tmp_path / "left.json", format="coco", max_dets=300)
    assert found.max_dets == 300
    assert len(results) > 1.2 * len(without_rules(coco, results))
    for image in coco["images"]:
        image["not_exhaustive_category_ids"] = []
    (tmp_path / "exhaustive.json").write_text(json.dumps(coco), encoding="utf-8")
    exhaustive = size_ap(tmp_path / "exhaustive.json", tmp_path / "results.json")
    assert exhaustive.runs[0].bins == strict.runs[0].bins
    assert found.runs[0].bins[0].ap > exhaustive.runs[0].bins[0].ap
    assert not any("iscrowd" in note for note in found.notes)


def test_equals_lvis_api(tmp_path):
    """Figures that lvis-api 0.5.3 gave for these files, made by ``federated_data(5)``."""
    federated_data(5, tmp_path)
    found = size_ap(tmp_path / "lvis.json", tmp_path / "results.json").runs[0].stats
    record = json.loads((Path(__file__).parent / "lvis_api.json").read_text(encoding="utf-8"))
    assert {name: found[name] for name in record} == pytest.approx(record, abs=1e-12)


def federated_file(path: Path, **changes: object) -> Path:
    """Two images, three classes, two triangles; image 6 lists other classes than image 5."""
    triangle = dict(iscrowd=0, area=50, bbox=[10, 10, 10, 10], segmentation=[[10, 10, 20, 10, 10, 20]])
    lists = (dict(neg_category_ids=[2], not_exhaustive_category_ids=[1, 2**63 - 1]),
             dict(neg_category_ids=[1], not_exhaustive_category_ids=[]))  # fmt: skip
    content = dict(
        images=[dict(id=i, width=64, height=48) | more for i, more in zip((5, 6), lists, strict=True)],
        categories=[dict(id=i, name=str(i), frequency=f) for i, f in ((1, "r"), (2, "c"), (3, "f"))],
        annotations=[dict(triangle, id=1, image_id=5, category_id=1), dict(triangle, id=2, image_id=6, category_id=3)],
    )
    for key, (i, values) in changes.items():
        content[key][i] |= values
    return write(path / "lvis.json", json.dumps(content))


def test_lvis_rules_one_by_one(tmp_path):
    truth, notes = read_ground_truth(federated_file(tmp_path), masks=True)
    assert (truth.format, notes) == ("lvis", ())
    rows = [(5, 3, 9), (5, 1, 1), (5, 2, 2), (6, 2, 8), (6, 1, 3), (6, 3, 4), (5, 1, 5)]  # image, class, width
    results = [
        dict(image_id=image, category_id=category, score=0.5, segmentation=[[0, 0, width, 0, width, 8, 0, 8]])
        for image, category, width in rows
    ]
    file = write(tmp_path / "run.json", json.dumps(results))
    found, _ = read_detections(file, truth, masks=True)
    kept = list(zip(found.image_id.tolist(), found.category_id.tolist(), found.boxes[:, 2].tolist(), strict=True))
    assert kept == [(5, 1, 1), (5, 2, 2), (6, 1, 3), (6, 3, 4), (5, 1, 5)]
    assert found.areas("mask", "segm").tolist() == [8, 16, 24, 32, 40]
    assert found.excused.tolist() == [True, False, False, False, True]
    empty, _ = read_detections(write(tmp_path / "none.json", "[]"), truth, masks=False)
    assert (len(empty), empty.excused.tolist()) == (0, [])


def test_of_an_image_of_lvis_the_best_300_count_those_of_other_classes_too(tmp_path):
    truth, _ = read_ground_truth(federated_file(tmp_path), masks=False)
    results = [dict(image_id=5, category_id=1, bbox=[0, 0, 1 + i, 5], score=0.5) for i in range(300)]  # ties
    results += [dict(image_id=6, category_id=3, bbox=[0, 0, 1, 5], score=0.1)]
    for unasked, count in ((0, 300), (1, 299)):
        more = [dict(image_id=5, category_id=3, bbox=[0, 0, 1, 5], score=0.9)] * unasked
        found, _ = read_detections(write(tmp_path / "a.json", json.dumps(results + more)), truth, masks=False)
        assert found.boxes[:, 2].tolist() == [*range(1, count + 1), 1]
    more = [dict(image_id=5, category_id=1, bbox=[0, 0, 999, 5], score=0.5)]
    found, _ = read_detections(write(tmp_path / "a.json", json.dumps(results + more)), truth, masks=False)
    assert found.boxes[:, 2].tolist() == [*range(1, 301), 1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(images=(1, dict(neg_category_ids="1"))), "images[1].neg_category_ids: must be a list of category ids"),
        (
            dict(images=(1, dict(neg_category_ids=[1, True]))),
            "images[1].neg_category_ids: must be a list of category ids",
        ),
        (dict(images=(1, dict(not_exhaustive_category_ids=[2**63]))), "images[1].not_exhaustive_category_ids: must be"),
        (
            dict(images=(1, dict(not_exhaustive_category_ids=[1.5, 1]))),
            "images[1].not_exhaustive_category_ids: must be",
        ),
        (dict(categories=(1, dict(frequency="x"))), "categories[1].frequency: 'x'; allowed are r, c, f"),
        (dict(categories=(1, dict(frequency=["r"]))), "categories[1].frequency: ['r']; allowed are r, c, f"),
    ],
)
def test_lists_of_lvis_that_cannot_be_used(tmp_path, changes, words):
    with pytest.raises(UserError, match=re.escape(words)):
        read_ground_truth(federated_file(tmp_path, **changes), masks=False)


def test_a_file_with_one_of_the_lists_is_cocos(tmp_path):
    path = federated_file(tmp_path, images=(0, dict(not_exhaustive_category_ids=None)))
    truth, _ = read_ground_truth(path, masks=False)
    assert (truth.format, truth.federated) == ("coco", None)


def test_runs_and_methods_have_names_of_their_own(data, tmp_path):
    for name in ("a/run.json", "b/run.json"):
        write(tmp_path / name, (data / "results.json").read_text(encoding="utf-8"))
    a, b = tmp_path / "a/run.json", tmp_path / "b/run.json"

    def named(preds, **options) -> list[str]:
        results = size_ap(data / "coco.json", preds, sweep=False, errors=False, **options)
        return [run.name for run in results.runs]

    assert named([a, data / "results.json"]) == ["run", "results"]
    assert named([a, b]) == ["a/run", "b/run"]
    assert named([a, b], names=["x", "y"]) == ["x", "y"]
    assert parse_group(" ps = a.json, b.json") == Seeds("ps", ("a.json", "b.json"))
    truth, methods, notes = read_files(data / "coco.json", [a, Seeds("two", (str(a), str(b)))], ["one"], masks=False)
    assert [(m.name, [run.name for run in m.runs]) for m in methods] == [("one", ["one"]), ("two", ["a/run", "b/run"])]
    assert len(truth.image_ids) == 6
    assert notes == ()
    for text in ("=a.json", "ps", "ps=a.json,,b.json", " =a.json"):
        with pytest.raises(UserError, match="must be NAME=FILE,FILE"):
            parse_group(text)
    with pytest.raises(UserError, match="a file is given twice"):
        parse_group("ps=a.json,a.json")
    for names, words in (
        (["x"], "--names x: must be one for each --pred .2."),
        (["x", "x"], "--names x x: must be different names"),
    ):
        with pytest.raises(UserError, match=words):
            named([a, b], names=names)
    with pytest.raises(UserError, match="two methods are called 'one'; each needs its own name"):
        read_files(data / "coco.json", [a, Seeds("one", (str(a), str(b)))], ["one"], masks=False)


@pytest.mark.slow
def test_loads_no_host_and_no_torch(data, tmp_path):
    arguments = ["size-ap", "--ann", str(data / "labels/val"), "--pred", str(data / "yolo"), "--out", str(tmp_path)]
    code = f"""
import sys
from mmms_plugin.commands import main
assert main({arguments!r}) == 0
heavy = {{"torch", "mmengine", "mmcv", "mmdet", "mmseg", "mmpretrain", "pandas"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
