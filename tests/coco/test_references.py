"""Predictions that name their images and classes: matched by name, and contradictions are reported."""

from __future__ import annotations

import copy
import json
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from mmms_plugin.coco.formats import Source
from mmms_plugin.coco.objects import GroundTruth
from mmms_plugin.coco.read import read_detections, read_ground_truth
from mmms_plugin.coco.references import ImageNames
from mmms_plugin.errors import UserError
from mmms_plugin.size_ap import size_ap
from mmms_plugin.size_ap.methods import read_files
from tests.coco.coco_files import GOOD, OBJECTS, make_annotations, with_all, with_first

IMAGE_IDS = {10: 3, 20: 4, 30: 1, 40: 2}  # of the ground truth, and others
CATEGORY_IDS = {1: 2, 3: 1, 90: 3}


@pytest.fixture
def truth(truth_file) -> GroundTruth:
    return read_ground_truth(truth_file, masks=True)[0]


def own_lists(**info: object) -> dict:
    """The predictions as `mmms predict` writes them: with images and categories of their own numbers."""
    annotations = [
        dict(r, id=i, image_id=IMAGE_IDS[r["image_id"]], category_id=CATEGORY_IDS[r["category_id"]], iscrowd=0)
        for i, r in enumerate(GOOD, 1)
    ]
    images = [dict(id=new, file_name=f"/shots/{old}.png", width=200, height=150) for old, new in IMAGE_IDS.items()]
    names = {category["id"]: category["name"] for category in make_annotations()["categories"]}
    categories = [dict(id=new, name=names[old]) for old, new in CATEGORY_IDS.items()]
    return dict(annotations=annotations, images=images, categories=categories, info=info)


def changed(**lists: list) -> dict:
    return dict(own_lists(), **lists)


def notes_of(file: Path, truth: GroundTruth, masks: bool = False) -> list[str]:
    return [note.partition(": ")[2] for note in read_detections(file, truth, masks=masks)[1]]


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("text", ["compact", "spaced", "nan"])
def test_a_file_with_its_own_images_and_classes_is_matched_by_names(files, truth, masks, text):
    content = own_lists(least_score=0)
    if text == "nan":
        content["info"]["x"] = float("nan")  # which the typed decoder refuses
    path = files("run.json", json.dumps(content, indent=1 if text == "spaced" else None))
    found, notes = read_detections(path, truth, masks=masks)
    listed, _ = read_detections(files("list.json", GOOD), truth, masks=masks)
    for name in ("image_id", "category_id", "boxes", "scores"):
        np.testing.assert_array_equal(getattr(found, name), getattr(listed, name))
    assert notes == ()
    assert (found.rles is None) != masks


def test_what_a_file_with_its_own_images_lacks_is_reported(files, truth):
    content = own_lists(least_score=0.3)
    content["annotations"] = [r for r in content["annotations"] if r["image_id"] < 4]
    content["images"] = [image for image in content["images"] if image["id"] < 4]
    content["images"][0]["width"] = 100
    content["categories"].append(dict(id=9, name="unused"))
    missing, size, score = notes_of(files("run.json", content), truth)
    assert size.startswith("images of another size than in the ground truth: 1 (/shots/10.png: 100 x 150, ground truth")
    assert missing == "1 of the ground truth's 4 images are not in it: their objects count as missed"
    assert score.startswith("it holds no predictions of a score below 0.3, which lowers AP: predict with --score 0")


def test_without_file_names_images_are_matched_by_id(files, truth):
    images = [dict(id=i) for i in (10, 20, 30, 40)]
    annotations = [r | dict(image_id=old["image_id"]) for r, old in zip(own_lists()["annotations"], GOOD, strict=True)]
    path = files("run.json", changed(images=images, annotations=annotations))
    assert read_detections(path, truth, masks=False)[0].image_id.tolist() == [r["image_id"] for r in GOOD]
    assert notes_of(path, truth) == ["images are matched by id, as one of the files has no file names"]


ANNOTATIONS, SHOTS, NAMES = (own_lists()[key] for key in ("annotations", "images", "categories"))
REFUSED = {
    "no scores": (dict(annotations=make_annotations()["annotations"]), "a COCO annotation file without scores; a COCO"),
    "one score missing": (dict(annotations=with_first(ANNOTATIONS, score=None)), "annotations[0]: no score"),
    "unknown images": (dict(images=[dict(image, file_name=f"x{image['id']}.png") for image in SHOTS]), "4 images that "
                       "the ground truth does not have (x3.png, "),
    "unknown own image": (dict(annotations=with_first(ANNOTATIONS, image_id=8)), "image ids that its images do not"),
    "unknown own class": (dict(annotations=with_first(ANNOTATIONS, category_id=8)), "category ids that its categories"),
    "unknown classes": (dict(categories=[dict(id=i, name=f"bee{i}") for i in (1, 2, 3)]), "predictions of 3 classes "
                        "that the ground truth does not have (bee1, bee2, bee3); it has cat, dog, cow"),
    "one image twice": (dict(images=with_first(SHOTS, file_name="m/20.png")), "images: m/20.png, /shots/20.png are "
                        "the same image of the ground truth"),
    "id twice": (dict(images=with_first(SHOTS, id=4)), "image id used more than once"),
    "not a list": (dict(images=3), "'images' is not a list of objects"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_own_lists_that_do_not_fit_are_refused(files, truth, name):
    path = files("run.json", changed(**REFUSED[name][0]))
    with pytest.raises(UserError) as error:
        read_detections(path, truth, masks=False)
    assert REFUSED[name][1] in str(error.value)


@pytest.mark.parametrize("masks", [False, True])
def test_images_and_classes_of_another_set_are_left_out(files, truth, masks):
    images = [*with_first(SHOTS, file_name="other.png"), dict(id=77, file_name="more.png")]
    path = files("run.json", changed(images=images, categories=with_first(NAMES, name="bee")))
    kept = [r for r in GOOD if r["image_id"] != 10 and r["category_id"] != 1]
    found, _ = read_detections(path, truth, masks=masks)
    assert found.boxes.tolist() == [r["bbox"] for r in kept]
    assert found.scores.tolist() == [r["score"] for r in kept]
    assert notes_of(path, truth) == [
        "1 of the ground truth's 4 images are not in it: their objects count as missed",
        "2 of its images are not in the ground truth (other.png, more.png): they are left out",
        "predictions of 1 class that the ground truth does not have (bee) are left out",
    ]


@pytest.mark.parametrize("lists", [{}, dict(images=[], categories=[])])
def test_an_empty_file_with_its_own_images_is_a_model_that_finds_nothing(files, truth, lists):
    assert "files without any predictions" in notes_of(files("run.json", changed(annotations=[], **lists)), truth)[-1]


def test_names_decide_where_they_contradict_ids_and_a_note_says_so(files, truth):
    names, classes = ({i: f"{i}.png" for i in IMAGE_IDS}, {1: "cat", 90: "dog", 3: "cow"})
    named = [r | dict(file_name=names[r["image_id"]], category_name=classes[r["category_id"]]) for r in GOOD]
    assert notes_of(files("run.json", named), truth) == []
    wrong = with_all(
        with_all(named, "image_id", {10: 20, 20: 30, 30: 40, 40: 10}.get), "category_id", {1: 3, 3: 90, 90: 1}.get
    )
    path = files("run.json", wrong)
    found, _ = read_detections(path, truth, masks=False)
    assert found.image_id.tolist() == [r["image_id"] for r in GOOD]
    assert found.category_id.tolist() == [r["category_id"] for r in GOOD]
    assert notes_of(path, truth) == [
        f"image_id and file_name contradict each other: {OBJECTS} of {OBJECTS} (prediction 1: image_id 20, but 10.png "
        "has 10); file_name is used",
        f"category_id and category_name contradict each other: {OBJECTS} of {OBJECTS} (prediction 1: category_id 3, "
        "but cat has 1); category_name is used",
    ]


def test_other_numbers_with_known_names_are_no_contradiction(files, truth):
    named = [r | dict(image_id=r["image_id"] + 1, file_name=f"x/{r['image_id']}.jpg") for r in GOOD]
    path = files("run.json", named)
    assert read_detections(path, truth, masks=False)[0].image_id.tolist() == [r["image_id"] for r in GOOD]
    assert notes_of(path, truth) == []


def test_names_that_the_ground_truth_does_not_have_are_reported(files, truth):
    named = [r | dict(file_name=f"other{r['image_id']}.png", category_name="bee") for r in GOOD]
    first, second = notes_of(files("run.json", named), truth)
    assert first.startswith("4 file names that the ground truth does not have (other10.png, ")
    assert first.endswith("image_id is used; are they predictions of another split?")
    assert second == "1 class name that the ground truth does not have (bee): category_id is used"


def test_class_names_as_category_ids(files, truth):
    classes = {1: "cat", 90: "dog", 3: "cow"}
    named = with_all(GOOD, "category_id", classes.get)
    path = files("run.json", named)
    assert read_detections(path, truth, masks=False)[0].category_id.tolist() == [r["category_id"] for r in GOOD]
    with pytest.raises(UserError, match=r"of 1 class that the ground truth does not have \(bee\)"):
        read_detections(files("run.json", with_first(named, category_id="bee")), truth, masks=False)


ODD = {  # beside sound names and ids
    "fraction beside names": (dict(category_id=1.5), "cat", "[1].category_id: 1.5; allowed is an integer"),
    "whole number beside names": (dict(category_id=3.0), "cat", ""),
    "image of a fraction": (dict(image_id=1.5), "cat", "[1].image_id: 1.5; allowed is an integer"),
    "list for a name": (dict(file_name=[1], category_name={}), "", ""),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_values_beside_names(files, truth, name):
    first, category, words = ODD[name]
    rest = dict(category_id=category) if category else dict(category_name="cat", file_name="10.png")
    results = [dict(GOOD[0], image_id="10.png") | rest, dict(GOOD[0], **first)]
    path = files("run.json", results if category else [dict(GOOD[0]) | rest, dict(GOOD[0], **first)])
    if words:
        with pytest.raises(UserError, match=re.escape(words)):
            read_detections(path, truth, masks=False)
    else:
        found, _ = read_detections(path, truth, masks=False)
        assert found.category_id.tolist() == [1, 3 if category else 1]


@pytest.mark.parametrize("key", ["image_id", "category_id"])
def test_ids_of_a_file_with_its_own_images_are_numbers(files, truth, key):
    path = files("run.json", changed(annotations=with_first(ANNOTATIONS, **{key: "x"})))
    with pytest.raises(UserError, match=rf"annotations\[0\]\.{key}: 'x'"):
        read_detections(path, truth, masks=False)


def test_an_image_is_found_by_the_longest_tail_of_its_name():
    names = ("a/1.jpg", "b/1.jpg", "img.0.png", "x.png", "y/x.png", "000012.jpg", "c\\7.jpg", "é.png", "", "/")
    images = ImageNames(names, np.arange(10))
    found = {
        "a/1.jpg": 0, "/root/b/1.png": 1, "1.jpg": None, "c/1.jpg": None, "img.0": 2, "img.0.jpg": 2, "img": None,
        "x.png": 3, "y\\x.png": 4, "000012": 5, "12": None, "c/7": 6, "d/7.jpg": 6, "e\u0301.png": 7, "": None,
    }  # fmt: skip
    assert {name: images.find(name) for name in found} == found
    assert images.numbered() == {12: 5, 7: 6}
    assert ImageNames(("1.png", "01.jpg"), np.arange(2)).numbered() == {}
    assert unicodedata.normalize("NFC", "e\u0301.png") == "é.png"


def test_very_many_folders_in_a_name_are_harmless():
    images = ImageNames(("a/" * 100_000 + "1.png",), np.arange(1))
    assert images.find("1.png") == 0
    assert images.find("b/" * 100_000 + "1.png") == 0


def test_two_files_of_one_image_are_refused(truth, tmp_path):
    for i, suffix in enumerate((".txt", ".xml")):
        folder = tmp_path / str(i)
        folder.mkdir()
        for name in ("10", "10.png"):
            text = "0 0.5 0.5 0.1 0.1 0.9" if suffix == ".txt" else "<annotation/>"
            (folder / f"{name}{suffix}").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"'10(.png)?' and '10(.png)?' are predictions of the same image$"):
            read_detections(folder, truth, masks=False)


@pytest.mark.parametrize("key", ["image_id", "category_id"])
def test_ids_as_texts_are_named_as_such(files, key):
    content = make_annotations()
    for image in content["images"]:
        image["file_name"] = f"shot{image['id']}.png"
    truth, _ = read_ground_truth(files("a.json", content), masks=False)
    path = files("run.json", [r | {key: str(r[key])} for r in GOOD])
    with pytest.raises(UserError, match=rf"\[0\].{key}: '\d+' is a text; write the number, without quotes$"):
        read_detections(path, truth, masks=False)


def test_class_numbers_of_yolo_are_named_by_a_file_among_them(truth, tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "10.txt").write_text("2 0.5 0.5 0.1 0.1 0.9", encoding="utf-8")
    (folder / "data.yaml").write_text("names: [cow, dog, cat]", encoding="utf-8")
    assert read_detections(folder, truth, masks=False)[0].category_id.tolist() == [1]
    (folder / "data.yaml").write_text("names: [cow, dog]", encoding="utf-8")
    with pytest.raises(UserError, match=r"from 0 to 1, the classes of .*data.yaml; do the numbers count from 1\?$"):
        read_detections(folder, truth, masks=False)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ("<filename>10.jpg</filename><size><width>200</width><height>150</height></size>", []),
        ("<filename>other.jpg</filename>", []),
        (
            "<filename>x/20.jpg</filename>",
            ["filename and the name of the XML file contradict each other: 1 of 1 (first: "],
        ),
        (
            "<size><width>640</width><height>640</height></size>",
            ["another size than in the ground truth: 1 (10: 640 x 640"],
        ),
    ],
)
def test_what_an_xml_file_says_about_its_image_is_compared(truth, tmp_path, about, words):
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    text = f"<annotation>{about}<object><name>cat</name><score>0.5</score>{box}</object></annotation>"
    (tmp_path / "found").mkdir()
    (tmp_path / "found/10.xml").write_text(text, encoding="utf-8")
    notes = notes_of(tmp_path / "found", truth)
    assert len(notes) == len(words)
    assert all(word in note for word, note in zip(words, notes, strict=True))


def yolo_folder(path: Path, numbers: dict[int, int], classes: str = "") -> Path:
    """The predictions in YOLO's form; ``numbers`` of the category ids."""
    path.mkdir()
    lines: dict[int, list[str]] = {}
    for r in GOOD:
        x, y, w, h = r["bbox"]
        shares = ((x + w / 2) / 200, (y + h / 2) / 150, w / 200, h / 150)
        lines.setdefault(r["image_id"], []).append(" ".join(map(str, (numbers[r["category_id"]], *shares, r["score"]))))
    for image, texts in lines.items():
        (path / f"{image}.txt").write_text("\n".join(texts), encoding="utf-8")
    if classes:
        (path / "classes.txt").write_text(classes, encoding="utf-8")
    return path


def test_classes_of_yolo_are_those_that_a_file_names(truth, tmp_path):
    """The order of ids is cat, cow, dog; that of the files, cow, dog, cat."""
    numbers, names = {3: 0, 90: 1, 1: 2}, "cow\ndog\ncat\nbee"
    (tmp_path / "names.txt").write_text(names, encoding="utf-8")
    given = Source(classes=tmp_path / "names.txt")
    for folder, source in (
        (yolo_folder(tmp_path / "own", numbers, names), Source()),
        (yolo_folder(tmp_path / "none", numbers), given),
        (yolo_folder(tmp_path / "both", numbers, "dog\ncow\ncat"), given),
    ):
        found, notes = read_detections(folder, truth, masks=False, source=source)
        assert sorted(found.category_id.tolist()) == sorted(r["category_id"] for r in GOOD)
        assert notes == ()
    with pytest.raises(UserError, match="class 0 is 'bee', which the ground truth does not have"):
        read_detections(yolo_folder(tmp_path / "bees", numbers, "bee\ndog\ncat"), truth, masks=False)


def test_names_of_classes_that_no_file_needs_are_refused(files, truth_file, tmp_path):
    run = files("run.json", GOOD)
    (tmp_path / "names.txt").write_text("cow\ndog\ncat", encoding="utf-8")
    given = Source(classes=tmp_path / "names.txt")
    with pytest.raises(UserError, match=r"--classes .*names.txt: COCO files name their classes themselves"):
        read_files(truth_file, [run], masks=False, source=given)
    folder = yolo_folder(tmp_path / "yolo", {3: 0, 90: 1, 1: 2})
    read_files(truth_file, [run, folder], masks=False, source=given)


def test_both_figures_are_given_where_pycocotools_drops_ids(files):
    content = make_annotations()
    for number, record in enumerate(content["annotations"]):
        record["id"] = number // 2 if number < 6 else number
    whole = copy.deepcopy(content)
    for number, record in enumerate(whole["annotations"], 1):
        record["id"] = number
    run = files("run.json", GOOD)
    results = [size_ap(files("a.json", c), run, sweep=False, errors=False) for c in (content, whole)]
    assert results[0].runs == results[1].runs
    note = next(note for note in results[0].notes if "pycocotools gives" in note)
    theirs = pycocotools_ap(files("a.json", content), run)
    assert note == f"run: AP 100.0 (× 100); pycocotools gives {100 * theirs:.1f}, because of the file's annotation ids"
    assert theirs < 0.99
    assert not results[1].notes


@pytest.mark.parametrize("value", ["a", None, 1.5])
def test_ids_that_pycocotools_cannot_use_have_no_second_figure(files, value):
    content = make_annotations()
    content["annotations"] = with_first(content["annotations"], id=value)
    notes = size_ap(files("a.json", content), files("run.json", GOOD), sweep=False, errors=False).notes
    assert not any("pycocotools gives" in note for note in notes)


def pycocotools_ap(truth: Path, run: Path) -> float:
    from tests.size_ap.size_ap_data import pycocotools_eval

    contents = (json.loads(path.read_text(encoding="utf-8")) for path in (truth, run))
    return float(pycocotools_eval(*contents, "bbox").stats[0])
