"""Other formats than COCO's: the same figures from the same boxes, LVIS's rules, and clear words about bad files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_plugin.analysis.size_ap import size_ap
from mmms_plugin.cli import main
from mmms_plugin.errors import UserError
from tests.analysis.size_ap_data import random_coco

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
    for folder in ("images/val", "labels/val", "Annotations", "yolo", "voc"):
        (root / folder).mkdir(parents=True)
    for stem in stems.values():
        Image.new("L", (WIDTH, HEIGHT)).save(root / f"images/val/{stem}.png")
    truth = {stem: [a for a in coco["annotations"] if stems[a["image_id"]] == stem] for stem in stems.values()}
    found = {stem: [r for r in results if stems[r["image_id"]] == stem] for stem in stems.values()}
    for stem in stems.values():
        (root / f"labels/val/{stem}.txt").write_text(yolo(truth[stem], order), encoding="utf-8")
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
        ("coco.json", "named.json"), ("labels/val", "from0.json"), ("labels/val", "from1.json"),
        ("Annotations", "from0.json"), ("Annotations", "from1.json"), ("coco.json", "results.json"),
    ],
)  # fmt: skip
def test_every_format_gives_the_same_figures(data, ann, pred):
    wanted, found = figures(data, "coco.json", "results.json"), figures(data, ann, pred)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-9)
    np.testing.assert_allclose(np.array(found[1], float), np.array(wanted[1], float), rtol=1e-9)


def test_polygons_and_masks_of_yolo(data, tmp_path):
    for folder, score in (("labels", ""), ("found", " 0.5")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "img.0.txt").write_text(f"1 0.25 0.25 0.75 0.25 0.5 0.75{score}", encoding="utf-8")
    options = dict(images=data / "images/val", classes=data / "data.yaml", iou_type="segm")
    result = size_ap(tmp_path / "labels", tmp_path / "found", **options)
    assert result.runs[0].bins[0].ap == pytest.approx(1)
    assert result.runs[0].bins[0].ground_truths == 1


TRUTH_FAULTS = {
    ("a.txt", "0 0.5 0.5 0.1\n"): "a.txt, line 1: 4 numbers; wanted are class x y width height",
    ("a.txt", "\n0 0.5 0.5 x 0.1\n"): "a.txt, line 2: '0 0.5 0.5 x 0.1' are not numbers",
    ("a.txt", "0 50 20 10 10"): "a.txt, line 1: 50 is no share of the image (0 to 1); are these pixels?",
    ("a.txt", "0.5 .5 .5 .1 .1"): "a.txt, line 1: class 0.5: must be a whole number from 0 to 999999",
    ("a.txt", "0 .5 .5 -.1 .1\n0 .5 .5 -.1 .1"): "line 1: negative width or height (1 more lines like this)",
    ("a.txt", "0 nan .5 .1 .1"): "are not numbers",
    ("b.txt", ""): "b.txt: no image of that name in",
    ("a.xml", "<annotation>\n<object>"): "a.xml, line 2: not XML (no element found)",
    ("a.xml", "<annotation><object>\n<name>cat</name></object></annotation>"): "bndbox/xmin '': must be a number",
    ("a.xml", "<a><object>\n<name>cat</name><bndbox><xmin>9</xmin><ymin>1</ymin><xmax>2</xmax><ymax>3</ymax></bndbox>"
     "</object></a>"): "a.xml, line 1: box 9 1 2 3: min is above max",
    ("a.xml", '<!DOCTYPE a [<!ENTITY b "b">]><a>&b;</a>'): "a.xml, line 1: an entity is declared",
    ("../a.yaml", "val: [\n"): "a.yaml, line 2: not YAML",
    ("../a.yaml", "val: nowhere"): "a.yaml: val 'nowhere': no folder or .txt list of images in",
    ("../a.yaml", "val: images"): "and all others are missing",
    ("../a.yaml", "- 1"): "not a data set's YAML file",
    ("a.csv", ""): "this folder holds neither .txt files (YOLO) nor .xml files (Pascal VOC)",
}  # fmt: skip


@pytest.mark.parametrize(("file", "text"), TRUTH_FAULTS)
def test_a_bad_label_is_named_by_file_and_line(file, text, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    Image.new("L", (20, 10)).save(tmp_path / "images/a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / file).write_text(text, encoding="utf-8")
    ann = tmp_path / "a.yaml" if file.endswith("yaml") else tmp_path / "labels"
    assert main(["size-ap", "--ann", str(ann)]) == 2
    error = capsys.readouterr().err
    assert TRUTH_FAULTS[file, text] in " ".join(error.split()), error
    assert error.count("\n") == 1


RESULT_FAULTS = {
    ("img.0.txt", "0 .5 .5 .1 .1"): "img.0.txt, line 1: 5 numbers; wanted are class x y width height confidence as "
    "shares of the image, or class and a polygon; is the confidence missing (save_conf=True)?",
    ("img.0.txt", "1 .5 .5 .1 .1 .9\n3 .5 .5 .1 .1 .9"): "img.0.txt, line 2: class 3: must be a whole number "
    "from 0 to 2",
    ("other.txt", ""): "1 images that the ground truth does not have (other)",
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
    assert RESULT_FAULTS[file, text] in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(format="tfrecord"), "--format tfrecord: allowed are auto, coco, lvis, yolo, voc"),
        (dict(images="nowhere"), "--images nowhere: no such folder"),
        (dict(classes="nowhere"), "--classes nowhere: no such file"),
        (dict(format="lvis"), "neg_category_ids must be a list of category ids"),
    ],
)
def test_wrong_options(options, words, data):
    with pytest.raises(UserError, match=words):
        size_ap(data / "coco.json", data / "results.json", **options)


def test_difficult_objects_are_left_out(tmp_path):
    for folder, more in (("Annotations", "<difficult>1</difficult>"), ("found", "<score>1</score>")):
        (tmp_path / folder).mkdir()
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        (tmp_path / folder / "a.xml").write_text(
            f"<a><object><name>cow</name>{more}{box}</object></a>", encoding="utf-8"
        )
    result = size_ap(tmp_path / "Annotations", tmp_path / "found")
    assert result.runs[0].bins[0].ap is None
    assert "1 objects are marked difficult" in "".join(result.notes)


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


@pytest.mark.slow
def test_loads_no_host_and_no_torch(data, tmp_path):
    arguments = ["size-ap", "--ann", str(data / "labels/val"), "--pred", str(data / "yolo"), "--out", str(tmp_path)]
    code = f"""
import sys
from mmms_plugin.cli import main
assert main({arguments!r}) == 0
heavy = {{"torch", "mmengine", "mmcv", "mmdet", "mmseg", "mmpretrain", "pandas"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
