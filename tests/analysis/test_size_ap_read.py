"""Reading COCO files: bad ones are refused in one line, odd ones read and told, good ones read without a word."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO

from mmms_plugin.analysis.size_ap.reading import typed_json
from mmms_plugin.analysis.size_ap.reading.read import read_detections, read_ground_truth
from mmms_plugin.errors import UserError

WIDTH, HEIGHT, OBJECTS = 200, 150, 40


def square_rle(x: int, y: int, width: int, height: int) -> dict:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    return {"size": [HEIGHT, WIDTH], "counts": rle.encode(mask)["counts"].decode()}


def make_annotations() -> dict:
    """Four pictures, ids of categories with gaps as COCO's, and all three spellings of masks."""
    rng, annotations = np.random.default_rng(0), []
    for i in range(OBJECTS):
        width, height = (int(v) for v in rng.integers(8, 60, 2))
        x, y = int(rng.integers(0, WIDTH - width)), int(rng.integers(0, HEIGHT - height))
        polygon = [[x, y, x + width, y, x + width, y + height, x, y + height]]
        compressed = square_rle(x, y, width, height)
        runs = [x * HEIGHT + y, *[height, HEIGHT - height] * (width - 1), height]
        uncompressed = {"size": [HEIGHT, WIDTH], "counts": [*runs, HEIGHT * WIDTH - sum(runs)]}
        one = dict(id=i + 1, image_id=10 * (i % 4 + 1), category_id=(1, 3, 90)[i % 3], bbox=[x, y, width, height])
        masks = (polygon, compressed, uncompressed)
        annotations.append(dict(one, area=width * height, iscrowd=0, segmentation=masks[i % 3]))
    return {
        "images": [dict(id=i, width=WIDTH, height=HEIGHT, file_name=f"{i}.png") for i in (40, 10, 20, 30)],
        "annotations": annotations,
        "categories": [dict(id=1, name="cat"), dict(id=90, name="dog"), dict(id=3, name="cow")],
    }


def make_predictions(annotations: dict) -> list[dict]:
    """The ground truth itself with falling scores; masks compressed."""
    return [
        dict(
            image_id=a["image_id"],
            category_id=a["category_id"],
            bbox=[float(v) for v in a["bbox"]],
            score=1 - i / 100,
            segmentation=square_rle(*a["bbox"]),
        )
        for i, a in enumerate(annotations["annotations"])
    ]


@pytest.fixture
def files(tmp_path):
    """A function that writes any content and gives its path."""

    def write(name: str, content: object) -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


@pytest.fixture
def truth_file(files) -> Path:
    return files("truth.json", make_annotations())


def with_first(records: list[dict], **changes: object) -> list[dict]:
    """The records with other values in the first one; None takes a value away."""
    changed = copy.deepcopy(records)
    for key, value in changes.items():
        changed[0][key] = value
        if value is None:
            del changed[0][key]
    return changed


def with_all(records: list[dict], key: str, change) -> list[dict]:
    return [dict(record, **{key: change(record[key])}) for record in records]


@pytest.mark.parametrize("masks", [False, True])
def test_good_files_are_read_without_a_word_as_pycocotools_reads_them(files, truth_file, masks):
    content = make_annotations()
    truth, notes = read_ground_truth(truth_file, masks=masks)
    found, more = read_detections(files("run.json", make_predictions(content)), truth, masks=masks)
    assert notes == more == ()
    assert truth.image_ids.tolist() == [40, 10, 20, 30]
    assert truth.category_names == ("cat", "dog", "cow")
    assert found.name == "run"
    for column in ("image_id", "category_id"):
        wanted = [a[column] for a in content["annotations"]]
        assert getattr(truth, column).tolist() == getattr(found, column).tolist() == wanted
    np.testing.assert_array_equal(truth.boxes, [a["bbox"] for a in content["annotations"]])
    np.testing.assert_array_equal(found.boxes, truth.boxes)
    if masks:
        oracle = COCO(str(truth_file))
        assert all(
            (rle.decode(mask) == oracle.annToMask(a)).all()
            for mask, a in zip(truth.rles, content["annotations"], strict=True)
        )
        np.testing.assert_array_equal(found.areas("mask", "segm"), found.areas("box", "bbox"))
    else:
        assert truth.rles is None
        assert found.rles is None


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("piece", [200, 1 << 16])
def test_the_typed_decoder_reads_what_the_plain_one_reads(files, monkeypatch, masks, indent, piece):
    monkeypatch.setattr(typed_json, "PIECE", piece)
    content = make_annotations()
    content["annotations"][0]["note"] = "a } , { b"  # looks like a place to cut the file
    for one in content["images"][:2]:
        del one["width"]
    results = make_predictions(content)
    if masks:
        del results[3]["bbox"]
    results[5]["caption"] = '}, {"'
    truth_file = files("truth.json", "\ufeff" + json.dumps(content, indent=indent))
    run_file = files("run.json", " \n" + json.dumps(results, indent=indent))
    assert typed_json.quick_results(run_file, masks) is not None
    quick = [read_ground_truth(truth_file, masks=False)]
    quick.append(read_detections(run_file, quick[0][0], masks=False))
    if masks:
        quick.append(read_detections(run_file, read_ground_truth(truth_file, masks=False)[0], masks=True))
    monkeypatch.setattr("mmms_plugin.analysis.size_ap.reading.read.quick_annotations", lambda *_: None)
    monkeypatch.setattr("mmms_plugin.analysis.size_ap.reading.read.quick_results", lambda *_: None)
    plain = [read_ground_truth(truth_file, masks=False)]
    plain.append(read_detections(run_file, plain[0][0], masks=False))
    if masks:
        plain.append(read_detections(run_file, plain[0][0], masks=True))
    for (one, notes), (other, more) in zip(quick, plain, strict=True):
        assert notes == more
        for field in dataclasses.fields(one):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def test_a_good_file_takes_the_quick_way(files, truth_file):
    assert typed_json.quick_annotations(truth_file, True) is not None
    assert typed_json.quick_results(files("run.json", make_predictions(make_annotations())), True) is not None
    assert len(typed_json.quick_results(files("none.json", "[ ]"), False)) == 0


@pytest.mark.parametrize("largest", [2**53 - 1, 2**53 + 1, 2**63 - 1])  # from 2**53 on floats stand for several ids
def test_unpacked_numbers_are_those_of_the_file_to_the_last_bit(files, largest):
    rng = np.random.default_rng(0)
    numbers = rng.random((5_000, 5)) * 10.0 ** rng.integers(-9, 9, (5_000, 5))  # several pieces
    ids = [largest, *rng.integers(0, 2**40, len(numbers) - 1).tolist()]
    records = [
        {"score": score, "bbox": box, "category_id": i % 90, "image_id": one}
        for i, (one, (score, *box)) in enumerate(zip(ids, numbers.tolist(), strict=True))
    ]
    found = typed_json.quick_results(files("run.json", records), False)
    assert found.image_id.dtype == found.category_id.dtype == np.int64
    assert found.image_id.tolist() == ids
    assert found.category_id.tolist() == [i % 90 for i in range(len(ids))]
    np.testing.assert_array_equal(np.column_stack((found.score, found.boxes)), numbers)
    assert found.has_box.all()
    assert found.segmentations is None


@pytest.mark.parametrize("crowd", [0, 1, True, None])
def test_unpacked_annotations_are_those_of_the_file(files, crowd):
    content = make_annotations()
    content["annotations"][3]["iscrowd"] = crowd
    _, _, found = typed_json.quick_annotations(files("truth.json", content), False)
    for name in ("id", "image_id", "category_id", "area"):
        assert getattr(found, name).tolist() == [a[name] for a in content["annotations"]]
    assert found.boxes.tolist() == [a["bbox"] for a in content["annotations"]]
    assert np.flatnonzero(found.iscrowd).tolist() == ([3] if crowd else [])
    assert np.flatnonzero(~found.has_iscrowd).tolist() == ([3] if crowd is None else [])


LOG = '{"lr": 0.001, "loss": 1.5, "epoch": 1, "iter": 50}\n{"lr": 0.001, "loss": 1.2, "epoch": 1, "iter": 100}\n'
METRICS = {"coco/bbox_mAP": 0.3, "coco/bbox_mAP_s": 0.1}
SCORED = dict(image_id=10, category_id=1, bbox=[1, 2, 3, 4], score=0.5)
WRONG_KINDS = {
    "": "the file is empty",
    "not json at all": "not JSON (line 1, column 1",
    json.dumps(make_annotations())[:-300]: "truncated JSON: the file ends after",
    json.dumps([SCORED] * 3)[:-60]: "truncated JSON",
    json.dumps([SCORED])[:-1]: "truncated JSON",
    LOG: "this is a training log of several JSON values, one a line",
    json.dumps(dict(lr=0.1, loss=2.0, step=3)): "this is a training log",
    json.dumps(METRICS): "this is a file of metrics",
    json.dumps({}): "an empty JSON object",
    json.dumps({"a": 1, "b": 2}): "a JSON object with the keys a, b",
    json.dumps("text"): "a single JSON str",
    f"[{'9' * 5000}]": "an integer of thousands of digits",
    json.dumps([1, 2]): "a list of ints",
    json.dumps([{"x": 1}]): "a list of objects without image_id and category_id",
    json.dumps({"images": [], "categories": []}): "an annotation file without annotations",
}


@pytest.mark.parametrize(("content", "message"), WRONG_KINDS.items(), ids=range(len(WRONG_KINDS)))
def test_another_kind_of_file_is_named_and_the_right_one_asked_for(files, truth_file, content, message):
    path = files("x.json", content)
    truth, _ = read_ground_truth(truth_file, masks=False)
    refused(f"--ann {path}", message, lambda: read_ground_truth(path, masks=False), "annotation file is wanted")
    refused(f"--pred {path}", message, lambda: read_detections(path, truth, masks=False), "result file is wanted")


def test_files_that_are_absent_or_swapped_are_named(files, truth_file, tmp_path):
    truth, _ = read_ground_truth(truth_file, masks=False)
    run = files("run.json", make_predictions(make_annotations()))
    absent, binary = tmp_path / "no.json", tmp_path / "results.pkl"
    binary.write_bytes(b"\x80\x04\x95\xff\xfe")
    refused("--pred", "no such file", lambda: read_detections(absent, truth, masks=False))
    refused("--pred", "this folder holds neither .txt", lambda: read_detections(tmp_path, truth, masks=False))
    refused("--pred", "not a text file in UTF-8 (a pickle", lambda: read_detections(binary, truth, masks=False))
    refused("--ann", "this is a COCO result file", lambda: read_ground_truth(run, masks=False))
    refused("--pred", "this is a COCO annotation file", lambda: read_detections(truth_file, truth, masks=False))
    bare = files("bare.json", make_annotations()["annotations"])
    refused("--pred", "a list of annotations (no scores)", lambda: read_detections(bare, truth, masks=False))


GOOD = make_predictions(make_annotations())
BAD_PREDICTIONS = {
    "unknown image": (with_first(GOOD, image_id=7), "1 of 40 are of image ids that the annotation file does not have"),
    "unknown category": (with_first(GOOD, category_id=2), "1 of 40 are of category ids"),
    "0-based": (with_all(GOOD, "category_id", lambda c: {1: 0, 90: 1, 3: 2}[c]), "look like 0-based labels 0..2"),
    "contiguous": (with_all(GOOD, "category_id", lambda c: {1: 1, 90: 2, 3: 3}[c]), "class numbers 1..3"),
    "text id": (with_first(GOOD, image_id="no.png"), "1 images that the ground truth does not have (no.png)"),
    "fraction id": (with_first(GOOD, category_id=1.5), "prediction 0: category_id 1.5"),
    "no score": (with_first(GOOD, score=None), "prediction 0: no score (1 of 40 lack it)"),
    "NaN score": (with_first(GOOD, score=float("nan")), "prediction 0: score nan"),
    "infinite score": (with_first(GOOD, score=float("inf")), "prediction 0: score inf"),
    "text score": (with_first(GOOD, score="high"), "prediction 0: score high"),
    "text of a number": (with_first(GOOD, score="0.5"), "prediction 0: score 0.5 (1 of 40 are wrong)"),
    "list id": (with_all(GOOD, "image_id", lambda i: [i]), "prediction 0: image_id [10]"),
    "huge id": (with_first(GOOD, image_id=2**64 - 1), "prediction 0: image_id 18446744073709551615"),
    "no box": (with_first(GOOD, bbox=None, segmentation=None), "prediction 0: neither bbox nor segmentation"),
    "text box": (with_first(GOOD, bbox=["1", "2", "3", "4"]), "prediction 0: bbox ['1', '2', '3', '4']"),
    "short box": (with_first(GOOD, bbox=[1, 2, 3]), "prediction 0: bbox [1, 2, 3]"),
    "NaN box": (with_first(GOOD, bbox=[1, 2, 3, float("nan")]), "prediction 0: bbox [1, 2, 3, nan]"),
    "negative box": (with_first(GOOD, bbox=[9, 9, -3, 4]), "bbox [9, 9, -3, 4] has a negative width or height"),
    "not an object": ([*GOOD, 3], "item 40 is no object"),
}


@pytest.mark.parametrize(("content", "message"), BAD_PREDICTIONS.values(), ids=BAD_PREDICTIONS)
def test_predictions_that_cannot_be_evaluated_are_one_line(files, truth_file, content, message):
    truth, _ = read_ground_truth(truth_file, masks=False)
    path = files("run.json", content)
    refused(f"--pred {path}", message, lambda: read_detections(path, truth, masks=False))


BAD_MASKS = {
    "none": (None, "prediction 0: no segmentation"),
    "other size": ({"size": [WIDTH, HEIGHT], "counts": "abc"}, "(width and height swapped?)"),
    "no counts": ({"size": [HEIGHT, WIDTH]}, "must be polygons or an RLE"),
    "damaged": ({"size": [HEIGHT, WIDTH], "counts": "08"}, f"do not sum to {HEIGHT} * {WIDTH}"),
    "bad sum": ({"size": [HEIGHT, WIDTH], "counts": [5, 5]}, f"sum to {HEIGHT} * {WIDTH}"),
    "two points": ([[1, 2, 3, 4]], "lists of at least 3 x, y pairs"),
    "text": ([["a"] * 6], "not numbers"),
    "NaN": ([[1, 2, float("nan"), 4, 5, 6]], "must be lists of x, y"),
    "far away": ([[1, 2, 1e12, 4, 5, 6]], "within ±1,000,000 px"),
    "nested": ([[[1, 2], [3, 2], [3, 4], [1, 4], [1, 3], [1, 2]]], "must be lists of x, y"),
}


@pytest.mark.parametrize(("segmentation", "message"), BAD_MASKS.values(), ids=BAD_MASKS)
def test_masks_that_cannot_be_used_are_one_line_and_matter_only_for_masks(files, truth_file, segmentation, message):
    truth, _ = read_ground_truth(truth_file, masks=True)
    path = files("run.json", with_first(GOOD, segmentation=segmentation))
    assert len(read_detections(path, truth, masks=False)[0]) == OBJECTS
    refused(f"--pred {path}", message, lambda: read_detections(path, truth, masks=True))


def test_xyxy_boxes_are_suspected_and_correct_ones_are_not(files, truth_file):
    truth, _ = read_ground_truth(truth_file, masks=False)

    def told(change) -> str:
        return " ".join(read_detections(files("run.json", with_all(GOOD, "bbox", change)), truth, masks=False)[1])

    assert "look like [x1, y1, x2, y2]" in told(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])
    assert told(lambda b: [b[0] - 2, b[1] - 2, b[2] + 4, b[3] + 4]) == ""  # not clipped to the picture
    assert told(lambda b: [0, 0, WIDTH, HEIGHT]) == ""
    assert told(lambda b: [0.5, 0.5, WIDTH / 3, HEIGHT / 2]) == ""
    assert "are they normalised?" in told(lambda b: [b[0] / WIDTH, b[1] / HEIGHT, b[2] / WIDTH, b[3] / HEIGHT])


def test_odd_predictions_are_read_and_told(files, truth_file):
    truth, _ = read_ground_truth(truth_file, masks=False)
    found, notes = read_detections(files("none.json", []), truth, masks=True)
    assert (len(found), found.boxes.shape, found.rles) == (0, (0, 4), ())
    assert "no predictions at all" in notes[0]
    odd = with_first(with_all(GOOD, "score", lambda s: 100 * s), bbox=[5, 5, 0, 4])
    _, notes = read_detections(files("odd.json", odd), truth, masks=False)
    assert any("scores are outside 0..1 (61 to 100)" in note for note in notes)
    assert any("1 of 40 predictions have a box of zero width or height" in note for note in notes)
    bare = [{k: v for k, v in one.items() if k != "bbox"} for one in GOOD]
    found, _ = read_detections(files("masks.json", bare), truth, masks=True)
    np.testing.assert_array_equal(found.boxes, truth.boxes)
    found, notes = read_detections(files("masks.json", bare), truth, masks=False)
    np.testing.assert_array_equal(found.boxes, truth.boxes)
    assert "40 of 40 predictions have no bbox; taken around their masks" in notes[0]


def test_what_annotations_lack_is_filled_in_and_told(files):
    content = make_annotations()
    for one in content["annotations"]:
        del one["area"], one["iscrowd"]
    del content["annotations"][0]["segmentation"]
    del content["annotations"][1]["bbox"]
    content["annotations"][2]["id"] = content["annotations"][3]["id"]
    truth, notes = read_ground_truth(files("a.json", content), masks=False)
    np.testing.assert_array_equal(truth.annotated_area, truth.boxes[:, 2] * truth.boxes[:, 3])
    assert not truth.iscrowd.any()
    told = "\n".join(notes)
    for part in (
        "40 of 40 annotations have no area; computed 39 from the mask, 1 from box width x height",
        "40 of 40 annotations have no iscrowd; taken as 0",
        "1 of 40 annotations have no bbox; taken around their masks",
        "1 annotation ids are used more than once (4)",
    ):
        assert part in told


BAD_ANNOTATIONS = {
    "image twice": (lambda c: c["images"].append(c["images"][0]), "1 image ids are used more than once (40)"),
    "category twice": (lambda c: c["categories"].append(c["categories"][1]), "1 category ids are used more than once"),
    "no image": (lambda c: c["images"].clear(), "no images"),
    "unknown image": (lambda c: c["annotations"][0].update(image_id=5), "1 of 40 are of image ids"),
    "unknown category": (lambda c: c["annotations"][0].update(category_id=5), "1 of 40 are of category ids"),
    "no box, no mask": (
        lambda c: c["annotations"][3].update(bbox=[], segmentation=[]),
        "annotation 3: neither bbox nor segmentation",
    ),
    "not a list": (lambda c: c.update(annotations={}), "'annotations' is not a list of objects"),
    "no id": (lambda c: c["annotations"][2].pop("id"), "annotation 2: no id"),
}


@pytest.mark.parametrize(("change", "message"), BAD_ANNOTATIONS.values(), ids=BAD_ANNOTATIONS)
def test_annotations_that_cannot_be_evaluated_are_one_line(files, change, message):
    content = make_annotations()
    change(content)
    path = files("a.json", content)
    refused(f"--ann {path}", message, lambda: read_ground_truth(path, masks=False))


def refused(start: str, message: str, call, *more: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    text = str(caught.value)
    assert text.startswith(start)
    assert "\n" not in text
    for part in (message, *more):
        assert part in text
