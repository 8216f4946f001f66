"""Reading COCO files: what cannot be evaluated is refused in one line that names place and value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmms_plugin.coco.json_files import load_annotations
from mmms_plugin.coco.read import read_detections, read_ground_truth
from mmms_plugin.errors import UserError
from tests.coco.coco_files import (
    GOOD,
    HEIGHT,
    NAN,
    OBJECTS,
    SCORED,
    WIDTH,
    make_annotations,
    make_predictions,
    refused,
    with_all,
    with_first,
    with_some,
    without,
)

LOG = '{"lr": 0.001, "loss": 1.5, "epoch": 1, "iter": 50}\n{"lr": 0.001, "loss": 1.2, "epoch": 1, "iter": 100}\n'


METRICS = {"coco/bbox_mAP": 0.3, "coco/bbox_mAP_s": 0.1}


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
    json.dumps({"categories": []}): "an annotation file without images and annotations",
    json.dumps(dict(make_annotations(), annotations=[{"segments_info": []}])): "a COCO panoptic annotation file",
    json.dumps([{"segments_info": [], "image_id": 1}]): "a COCO panoptic result file",
    json.dumps([{"image_id": 1}]): "a list of objects without category_id",
    json.dumps(dict(image_id=1, category_id=1)): "a single object, not a list",
    json.dumps(dict(image_id=1, bbox=[])): "a JSON object with the keys image_id, bbox",
    json.dumps(dict(category_id=1)): "a JSON object with the key category_id",
    json.dumps([{"loss": 1.5}]): "this is a training log",
    json.dumps(dict(pictures=[], classes=["cat"])): "this is a classifier's predictions, without boxes",
    json.dumps({"loss": 1.5}): "this is a training log",
    json.dumps(dict(lr=0.1, time=2.0)): "this is a training log",
    json.dumps(dict(lr=0.1)): "a JSON object with the key lr",
    json.dumps({"AR@100": 0.3}): "this is a file of metrics",
    json.dumps(dict.fromkeys(("k" * 21, "b", "c", "d", "e"), 1)): f"a JSON object with the keys {'k' * 20}, b, c, d;",
    "[1]\n[2]\n": "this is several JSON values, one a line",
    "[abcdefg": "truncated JSON: the file ends after 8 characters",
    "[abcdefgh": "not JSON (line 1, column 2",
    "[1, x]\n": "not JSON (line 1, column 5",
    '[{"name": "a text that never ends': "truncated JSON",
    '"a text that never ends': "not JSON (line 1, column 1",
    "[" * 100_000: "nested too deep for JSON",
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
    refused("--ann", "no such file", lambda: read_ground_truth("\0.json", masks=False))
    (tmp_path / "a.json").mkdir()
    refused("--ann", "a.json: a folder, not a file; a COCO", lambda: load_annotations(tmp_path / "a.json"))
    if Path("/dev/zero").is_char_device():
        refused("--ann", "/dev/zero: a device, not a file; a COCO", lambda: read_ground_truth("/dev/zero", masks=False))
    refused("--pred", "this folder holds neither .txt", lambda: read_detections(tmp_path, truth, masks=False))
    (tmp_path / "found").mkdir()
    (tmp_path / "found/predictions.json").write_text("[]", encoding="utf-8")
    found = lambda: read_detections(tmp_path / "found", truth, masks=False)  # noqa: E731
    refused("--pred", "; inside: predictions.json; give that", found)
    (tmp_path / "yolo/images").mkdir(parents=True)
    (tmp_path / "yolo/data.yaml").write_text("val: images", encoding="utf-8")
    refused("--ann", "; inside: data.yaml; give that", lambda: read_ground_truth(tmp_path / "yolo", masks=False))
    refused("--pred", "not a text file in UTF-8 (a pickle", lambda: read_detections(binary, truth, masks=False))
    refused("--ann", "this is a COCO result file", lambda: read_ground_truth(run, masks=False))
    refused("--pred", "this is a COCO annotation file", lambda: read_detections(truth_file, truth, masks=False))
    bare = files("bare.json", make_annotations()["annotations"])
    refused("--pred", "a list of annotations (no scores)", lambda: read_detections(bare, truth, masks=False))


BAD_PREDICTIONS = {
    "unknown image": (with_first(GOOD, image_id=7), "1 of 40 are of image ids that the annotation file does not have"),
    "unknown category": (with_first(GOOD, category_id=2), "1 of 40 are of category ids"),
    "0-based": (with_all(GOOD, "category_id", lambda c: {1: 0, 90: 1, 3: 2}[c]), "look like 0-based labels 0..2"),
    "contiguous": (with_all(GOOD, "category_id", lambda c: {1: 1, 90: 2, 3: 3}[c]), "class numbers 1..3"),
    "text id": (with_first(GOOD, image_id="no.png"), "1 image that the ground truth does not have (no.png)"),
    "fraction id": (with_first(GOOD, category_id=1.5), ": [0].category_id: 1.5; allowed is an integer"),
    "no score": (with_first(GOOD, score=None), ": [0]: no score; it must be a finite number"),
    "NaN score": (with_first(GOOD, score=float("nan")), ": [0].score: nan; allowed is a finite number"),
    "infinite score": (with_first(GOOD, score=float("inf")), ": [0].score: inf"),
    "text score": (with_first(GOOD, score="high"), ": [0].score: 'high'"),
    "text of a number": (with_first(GOOD, score="0.5"), ": [0].score: '0.5'; allowed is a finite number"),
    "list id": (with_all(GOOD, "image_id", lambda i: [i]), ": [0].image_id: [10]"),
    "huge id": (with_first(GOOD, image_id=2**64 - 1), ": [0].image_id: 18446744073709551615"),
    "no box": (with_first(GOOD, bbox=None, segmentation=None), ": [0]: neither bbox nor segmentation"),
    "text box": (with_first(GOOD, bbox=["1", "2", "3", "4"]), ": [0].bbox[0]: '1'; allowed is a number within ±1e+09"),
    "short box": (with_first(GOOD, bbox=[1, 2, 3]), ": [0].bbox: [1, 2, 3]; allowed is [x, y, width, height]"),
    "NaN box": (with_first(GOOD, bbox=[1, 2, 3, float("nan")]), ": [0].bbox[3]: nan"),
    "negative box": (with_first(GOOD, bbox=[9, 9, -3, 4]), ": [0].bbox[2]: -3.0; allowed is a width and a height"),
    "not an object": ([*GOOD, 3], ": [40]: 3; allowed is an object"),
    "5 unknown": (
        with_some(GOOD, range(5), image_id=[*"abcde"]),
        "5 images that the ground truth does not have (a, b, c, d, e)",
    ),
    "6 unknown": (
        with_some(GOOD, range(6), image_id=[*"abcdef"]),
        "6 images that the ground truth does not have (a, b, c, d, e, ...)",
    ),
    "two numbers": (with_some(GOOD, (3, 5), image_id=[8, 7]), "2 of 40 are of image ids that the annotation file does "
                    "not have (2 ids: 7, 8); is the annotation file that of another split?"),
    "two without scores": (without(GOOD, (3, 5), "score"), ": [3]: no score; it must be a f"),
    "two texts": (with_some(GOOD, (3, 5), score=["y" * 70] * 2), f": [3].score: '{'y' * 30} ... {'y' * 30}'; allowed"),
    "two null ids": (
        with_some(GOOD, (3, 5), category_id=[None] * 2),
        ": [3].category_id: None; allowed is an integer",
    ),
    "two bare": (without(GOOD, (3, 5), "bbox", "segmentation"), ": [3]: neither bbox nor segmentation (2 of 40"),
    "two negative": (
        with_some(GOOD, (3, 5), bbox=[[9, 9, 3, -4]] * 2),
        ": [3].bbox[3]: -4.0; allowed is a width and a height of at least 0",
    ),
    "two short boxes": (with_some(GOOD, (3, 5), bbox=[[1, 2, 3]] * 2), ": [3].bbox: [1, 2, 3]"),
    "corners": (with_all(GOOD, "bbox", lambda b: [*b, 1]), ": [0].bbox: [75.0, 29.0, 52.0, 41.0, 1]; allowed"),
    "text as a box": (with_first(GOOD, bbox="text"), ": [0].bbox: 'text'; allowed is [x"),
    "nested scores": (with_all(GOOD, "score", lambda s: [s]), ": [0].score: [1.0]; allowed"),
    "no image": (without(GOOD, (3,), "image_id"), ": [3]: no image_id; it must be an integer"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), BAD_PREDICTIONS.values(), ids=BAD_PREDICTIONS)
def test_predictions_that_cannot_be_evaluated_are_one_line(files, truth_file, content, message):
    truth, _ = read_ground_truth(truth_file, masks=False)
    path = files("run.json", content)
    refused(f"--pred {path}", message, lambda: read_detections(path, truth, masks=False))


# A field, a value just inside its limits, one just outside, and what then is said of it.
BOX_LIMIT = "allowed is a number within ±1e+09 px"


ANNOTATION_LIMITS = {
    "right": ("bbox", [1e9, 2, 3, 4], [1e9 + 1, 2, 3, 4], f"annotations[0].bbox[0]: 1000000001.0; {BOX_LIMIT}"),
    "left": ("bbox", [-1e9, 2, 3, 4], [-1e9 - 1, 2, 3, 4], f"annotations[0].bbox[0]: -1000000001.0; {BOX_LIMIT}"),
    "flat": ("bbox", [1, 2, 0, 0], [1, 2, 0, -0.25], "annotations[0].bbox[3]: -0.25; allowed is a width and a height"),
    "width": ("bbox", [1, 2, 1e9, 1e9], [1, 2, 1e9 + 1, 1], f"annotations[0].bbox[2]: 1000000001.0; {BOX_LIMIT}"),
}


RESULT_LIMITS = {
    "score": ("score", 9e299, 2e300, ": [0].score: 2e+300; allowed is a finite number"),
    "low score": ("score", -9e299, -2e300, ": [0].score: -2e+300"),
    "right": ("bbox", [1e9, 2, 3, 4], [1e9 + 1, 2, 3, 4], f": [0].bbox[0]: 1000000001.0; {BOX_LIMIT}"),
    "top": ("bbox", [1, -1e9, 3, 4], [1, -1e9 - 1, 3, 4], f": [0].bbox[1]: -1000000001.0; {BOX_LIMIT}"),
    "flat": ("bbox", [1, 2, 0, 0], [1, 2, -0.25, 0], ": [0].bbox[2]: -0.25; allowed is a width and a height"),
}


@pytest.mark.parametrize("quick", [True, False], ids=["quick", "slow"])
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize(("key", "inside", "outside", "message"), ANNOTATION_LIMITS.values(), ids=ANNOTATION_LIMITS)
def test_the_exact_limits_of_annotations(files, key, inside, outside, message, masks, quick):
    content = make_annotations()
    if not quick:
        content["info"] = NAN  # the typed decoder reads no NaN
    content["annotations"][0][key] = inside
    truth, _ = read_ground_truth(files("inside.json", content), masks=masks)
    assert truth.boxes[0].tolist() == inside
    content["annotations"][0][key] = outside
    path = files("outside.json", content)
    refused(f"--ann {path}", message, lambda: read_ground_truth(path, masks=masks))


@pytest.mark.parametrize("quick", [True, False], ids=["quick", "slow"])
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize(("key", "inside", "outside", "message"), RESULT_LIMITS.values(), ids=RESULT_LIMITS)
def test_the_exact_limits_of_predictions(files, truth_file, key, inside, outside, message, masks, quick):
    truth, _ = read_ground_truth(truth_file, masks=False)
    results = GOOD if quick else with_some(GOOD, (7,), note=[NAN])  # the typed decoder reads no NaN
    found, _ = read_detections(files("in.json", with_first(results, **{key: inside})), truth, masks=masks)
    assert getattr(found, {"bbox": "boxes", "score": "scores"}[key])[0].tolist() == inside
    path = files("outside.json", with_first(results, **{key: outside}))
    refused(f"--pred {path}", message, lambda: read_detections(path, truth, masks=masks))


BAD_MASKS = {
    "none": (None, ": [0]: no segmentation (polygons or RLE), which masks need; for boxes, give --iou-type bbox"),
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


@pytest.mark.parametrize(
    ("known", "used", "hint"),
    [
        ((1, 3, 90), (0, 2), "; they look like 0-based labels 0..2: write the annotation file's own ids (1, 3, 90)"),
        ((5,), (0,), "; they look like labels from 0: write the annotation file's own ids (5)"),
        ((1, 3, 90), (0, 3), "; it has 3: 1, 3, 90"),
        ((1, 3, 90), (-1, 2), "; it has 3: 1, 3, 90"),
        ((1, 3, 90), (1, 2), "; they look like class numbers 1..3: write the annotation file's own ids (1, 3, 90)"),
        ((90, 4, 9), (2, 3), "; they look like class numbers 1..3: write the annotation file's own ids (4, 9, 90)"),
        ((1, 3, 90), (1, 4), "; it has 3: 1, 3, 90"),
        ((0, 1, 3), (1, 2), "; it has 3: 0, 1, 3"),
        ((1, 2, 3), (1, 4), "; it has 3: 1, 2, 3"),
    ],
)
def test_a_hint_of_what_unknown_classes_are(files, known, used, hint):
    content = dict(make_annotations(), annotations=[], categories=[dict(id=i, name=str(i)) for i in known])
    truth, _ = read_ground_truth(files("truth.json", content), masks=False)
    path = files("run.json", [dict(SCORED, category_id=i) for i in used])
    with pytest.raises(UserError) as error:
        read_detections(path, truth, masks=False)
    assert str(error.value).endswith(f"){hint}")


BAD_ANNOTATIONS = {
    "image twice": (lambda c: c["images"].append(c["images"][0]), "1 image id used more than once (40)"),
    "category twice": (lambda c: c["categories"].append(c["categories"][1]), "1 category id used more than once"),
    "no image": (lambda c: c["images"].clear(), "no images"),
    "unknown image": (lambda c: c["annotations"][0].update(image_id=5), "1 of 40 are of image ids"),
    "unknown category": (lambda c: c["annotations"][0].update(category_id=5), "1 of 40 are of category ids"),
    "no box, no mask": (
        lambda c: c["annotations"][3].update(bbox=[], segmentation=[]),
        "annotations[3]: neither bbox nor segmentation",
    ),
    "not a list": (lambda c: c.update(annotations={}), "'annotations' is not a list of objects"),
    "no image_id": (
        lambda c: c["annotations"][2].pop("image_id"), "annotations[2]: no image_id; it must be an integer"
    ),
    "no category": (lambda c: c.update(categories=[], annotations=[{}]), "no categories; there is nothing to evaluate"),
    "object of objects": (lambda c: c.update(annotations={"a": 1}), "'annotations' is not a list of objects"),
    "first is a number": (lambda c: c["annotations"].insert(0, 3), "'annotations' is not a list of objects"),
    "last is a number": (lambda c: c["images"].append(3), "'images' is not a list of objects"),
    "text": (lambda c: c.update(categories="cat"), "'categories' is not a list of objects"),
    "image without id": (lambda c: c["images"][1].pop("id"), "images[1]: no id; it must be an integer"),
    "category of text": (lambda c: c["categories"][1].update(id="a"), "categories[1].id: 'a'; allowed is an integer"),
    "third number of a box": (
        lambda c: c["annotations"][3].update(bbox=[1, 2, "x", 4]), "annotations[3].bbox[2]: 'x'; allowed is a number"
    ),
    "true for a number": (lambda c: c["annotations"][3].update(category_id=True), "annotations[3].category_id: True"),
    "id beyond 64 bits": (
        lambda c: c["images"][3].update(id=2**63), "images[3].id: 9223372036854775808; allowed is an integer"
    ),
    "damaged mask": (
        lambda c: c["annotations"][3].update(segmentation=[[1, 2]], area=None), "annotations[3].segmentation polygons"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD_ANNOTATIONS.values(), ids=BAD_ANNOTATIONS)
def test_annotations_that_cannot_be_evaluated_are_one_line(files, change, message):
    content = make_annotations()
    change(content)
    path = files("a.json", content)
    refused(f"--ann {path}", message, lambda: read_ground_truth(path, masks=False))
