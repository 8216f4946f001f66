"""Reading COCO files: bad ones are refused in one line, odd ones are read with a note, good ones without."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO

from mmms_plugin.coco import json_files
from mmms_plugin.coco.read import read_detections, read_ground_truth
from mmms_plugin.coco.records import read_annotations, read_results
from mmms_plugin.coco.rules import RULES
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


NAN = float("nan")


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


def with_some(records: list[dict], at, **columns: list) -> list[dict]:
    """The records with other values at some places."""
    changed = copy.deepcopy(records)
    for key, values in columns.items():
        for place, value in zip(at, values, strict=True):
            changed[place][key] = value
    return changed


def without(records: list[dict], at, *keys: str) -> list[dict]:
    changed = copy.deepcopy(records)
    for place in at:
        for key in keys:
            del changed[place][key]
    return changed


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
def test_files_are_read_alike_in_pieces_and_as_a_whole(files, monkeypatch, masks, indent, piece):
    monkeypatch.setattr(json_files, "PIECE", piece)
    content = make_annotations()
    content["annotations"][0]["note"] = "a } , { b"  # looks like a place to cut the file
    for image in content["images"][: 0 if masks else 2]:
        del image["width"]
    results = make_predictions(content)
    if masks:
        del results[3]["bbox"]
    results[5]["caption"] = '}, {"'
    truth_file = files("truth.json", "\ufeff" + json.dumps(content, indent=indent))
    run_file = files("run.json", " \n" + json.dumps(results, indent=indent))

    def read() -> list:
        truth = read_ground_truth(truth_file, masks=masks)
        return [
            truth,
            read_detections(run_file, truth[0], masks=False),
            read_detections(run_file, truth[0], masks=masks),
        ]

    in_pieces = read()
    monkeypatch.setattr("mmms_plugin.coco.records.pieces", lambda file: [b"not JSON"])
    for (part, notes), (whole, more) in zip(in_pieces, read(), strict=True):
        assert notes == more
        for field in dataclasses.fields(part):
            np.testing.assert_array_equal(getattr(part, field.name), getattr(whole, field.name))


@pytest.mark.parametrize("largest", [2**53 - 1, 2**53 + 1, 2**63 - 1])  # from 2**53 on floats stand for several ids
def test_numbers_are_those_of_the_file_to_the_last_bit(files, largest):
    rng = np.random.default_rng(0)
    numbers = rng.random((5_000, 5)) * 10.0 ** rng.integers(-9, 9, (5_000, 5))  # several pieces
    ids = [largest, *rng.integers(0, 2**40, len(numbers) - 1).tolist()]
    records = [
        {"score": score, "bbox": box, "category_id": i % 90, "image_id": one}
        for i, (one, (score, *box)) in enumerate(zip(ids, numbers.tolist(), strict=True))
    ]
    found = read_results(files("run.json", records), "--pred", False)
    assert found.image_id.dtype == found.category_id.dtype == np.int64
    assert found.image_id.tolist() == ids
    assert found.category_id.tolist() == [i % 90 for i in range(len(ids))]
    np.testing.assert_array_equal(np.column_stack((found.score, found.boxes)), numbers)
    assert found.has_box.all()
    assert found.segmentations is None


@pytest.mark.parametrize("crowd", [0, 1, True, None])
def test_annotations_are_those_of_the_file(files, crowd):
    content = make_annotations()
    content["annotations"][3]["iscrowd"] = crowd
    _, _, found = read_annotations(files("truth.json", content), "--ann", False)
    for name in ("id", "image_id", "category_id", "area"):
        assert getattr(found, name).tolist() == [a[name] for a in content["annotations"]]
    assert found.boxes.tolist() == [a["bbox"] for a in content["annotations"]]
    assert np.flatnonzero(found.iscrowd).tolist() == ([3] if crowd else [])
    assert np.flatnonzero(~found.has_iscrowd).tolist() == ([3] if crowd is None or crowd is True else [])


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("largest", [2**53 + 1, 2**63 - 1])
def test_ids_keep_their_last_digit_beside_others_that_are_spelled_as_fractions(files, largest, slow):
    content = make_annotations()
    content["annotations"][0]["id"] = largest
    content["annotations"][1]["id"] = 2.0
    if slow:
        content["info"] = NAN
    truth, _ = read_ground_truth(files("truth.json", content), masks=False)
    assert truth.ids.tolist() == [largest, *range(2, OBJECTS + 1)]


def annotated(key: str, *values: object) -> dict:
    content = make_annotations()
    return dict(content, annotations=with_some(content["annotations"], range(len(values)), **{key: values}))


PLAIN = make_predictions(make_annotations())
READ = {  # how often the decoder is made: again only for the masks that absent boxes and areas are taken from
    "truth": (make_annotations(), False, 1),
    "truth with masks": (make_annotations(), True, 1),
    "large ids": (annotated("id", 2**53, 2**63), False, 1),
    "crowds": (annotated("iscrowd", 0, 1, None, True, 1.0), False, 1),
    "ids as fractions": (annotated("image_id", 10.0, 20.0), False, 1),
    "no area": (annotated("area", None), False, 2),
    "no area, with masks": (annotated("area", None), True, 1),
    "results": (PLAIN, False, 1),
    "results with masks": (PLAIN, True, 1),
    "results without boxes": ([{k: v for k, v in r.items() if k != "bbox"} for r in PLAIN], False, 2),
    "results without boxes, with masks": ([{k: v for k, v in r.items() if k != "bbox"} for r in PLAIN], True, 1),
    "names": (with_all(PLAIN, "image_id", lambda i: f"{i}.png"), False, 1),
}


@pytest.mark.parametrize(("content", "masks", "times"), READ.values(), ids=READ)
def test_reading_takes_the_typed_way(files, truth_file, monkeypatch, content, masks, times):
    """Plain JSON is many times slower, and makes an object of every number."""
    truth, _ = read_ground_truth(truth_file, masks=False)
    made, path, decoder = [], files("x.json", content), msgspec.json.Decoder
    monkeypatch.setattr(json_files, "decode_json", lambda *_: pytest.fail("read as plain JSON"))
    monkeypatch.setattr(msgspec.json, "Decoder", lambda kind: made.append(kind) or decoder(kind))
    if isinstance(content, dict):
        read_ground_truth(path, masks=masks)
    else:
        read_detections(path, truth, masks=masks)
    assert len(made) == times


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("slow", [False, True])
def test_images_are_also_known_by_their_files(files, slow, masks):
    content = make_annotations()
    for image in content["images"]:
        image["file_name"] = f"set/{image['id'] // 10:012d}.jpg"
    content["images"][0]["file_name"] = "none.jpg"
    truth, _ = read_ground_truth(files("truth.json", content), masks=False)
    assert truth.file_names == ("none.jpg", *(f"set/{i:012d}.jpg" for i in (1, 2, 3)))
    wanted = [r["image_id"] for r in GOOD]
    results = with_some(GOOD, (7,), note=[NAN]) if slow else GOOD
    for name in (lambda i: f"{i // 10:012d}", lambda i: f"elsewhere/{i // 10:012d}.png", lambda i: i // 10):
        ids = [name(r["image_id"]) if r["image_id"] != 40 else "none" for r in results]
        found, notes = read_detections(
            files("run.json", with_some(results, range(OBJECTS), image_id=ids)), truth, masks=masks
        )
        assert (found.image_id.tolist(), notes) == (wanted, ())
    swapped = dict(content, images=[dict(i, file_name=f"{50 - i['id']}.jpg") for i in content["images"]])
    other, _ = read_ground_truth(files("swapped.json", swapped), masks=False)
    assert read_detections(files("run.json", results), other, masks=masks)[0].image_id.tolist() == wanted
    numbers = [r for r in with_all(results, "image_id", lambda i: i // 10) if r["image_id"] != 4]
    found, notes = read_detections(files("numbers.json", numbers), truth, masks=masks)
    assert found.image_id.tolist() == [i for i in wanted if i != 40]
    path = files("both.json", with_some(numbers, (0,), image_id=[9]))
    refused(f"--pred {path}", "30 of 30 are of image ids", lambda: read_detections(path, truth, masks=masks))


def test_halves_of_surrogate_pairs_are_read(files):
    """Python's json writes and reads them; nothing else does."""
    content = make_annotations()
    content["annotations"][0]["\ud800"] = "\ud800"
    content["categories"][0]["name"] = "\ud800"
    truth, _ = read_ground_truth(files("truth.json", content), masks=False)
    assert truth.category_names[0] == "\\ud800"
    path = files("run.json", [dict(SCORED, image_id="\ud800")])
    refused(f"--pred {path}", "does not have (\\ud800)", lambda: read_detections(path, truth, masks=False))


def test_names_of_images_and_classes(files):
    content = make_annotations()
    content["images"] = [dict(id=i, coco_url=f"http://host/a/{i}.jpg") for i in (40, 10, 20, 30)]
    content["images"][0]["file_name"] = "own.png"
    del content["categories"][0]["name"]
    content["categories"][1]["name"] = "n" * 301
    truth, _ = read_ground_truth(files("truth.json", content), masks=False)
    assert truth.file_names == ("own.png", "10.jpg", "20.jpg", "30.jpg")
    assert truth.category_names == ("1", "n" * 300, "cow")
    del content["images"][2]["coco_url"]
    assert read_ground_truth(files("truth.json", content), masks=False)[0].file_names == ()


@pytest.mark.parametrize("slow", [False, True])
def test_sizes_of_images_that_make_no_sense_are_unknown(files, slow):
    content, given = make_annotations(), ((0.5, 1), (1.9, 2**31 - 1), (2**31, 640.0), (-3, None))
    for image, (width, height) in zip(content["images"], given, strict=True):
        image |= dict(width=width, height=height)
    content["images"][3]["height"] = "480"
    if slow:
        content["info"] = NAN
    truth, _ = read_ground_truth(files("truth.json", content), masks=False)
    assert truth.image_sizes.tolist() == [[0, 1], [0, 2**31 - 1], [0, 640], [0, 0]]


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
    json.dumps({"categories": []}): "an annotation file without images and annotations",
    json.dumps(dict(make_annotations(), annotations=[{"segments_info": []}])): "a COCO panoptic annotation file",
    json.dumps([{"segments_info": [], "image_id": 1}]): "a COCO panoptic result file",
    json.dumps([{"image_id": 1}]): "a list of objects without category_id",
    json.dumps(dict(image_id=1, category_id=1)): "a single object, not a list",
    json.dumps(dict(image_id=1, bbox=[])): "a JSON object with the keys image_id, bbox",
    json.dumps(dict(category_id=1)): "a JSON object with the keys category_id",
    json.dumps([{"loss": 1.5}]): "this is a training log",
    json.dumps({"loss": 1.5}): "this is a training log",
    json.dumps(dict(lr=0.1, time=2.0)): "this is a training log",
    json.dumps(dict(lr=0.1)): "a JSON object with the keys lr",
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
    "two texts": (with_some(GOOD, (3, 5), score=["y" * 70] * 2), f": [3].score: '{'y' * 59}; allowed"),
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
    "none": (None, ": [0]: no segmentation"),
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


def test_masks_whose_numbers_are_spelled_as_fractions(files, truth_file):
    """As JavaScript and MATLAB write them."""
    truth, _ = read_ground_truth(truth_file, masks=True)
    runs = [3, 4, HEIGHT * WIDTH - 7]
    size = [float(HEIGHT), float(WIDTH)]
    text = rle.frPyObjects({"size": [HEIGHT, WIDTH], "counts": runs}, HEIGHT, WIDTH)["counts"].decode()
    masks = [[float(run) for run in runs], text]
    results = [dict(SCORED, segmentation={"size": size, "counts": counts}) for counts in masks]
    results += [dict(SCORED, segmentation=[[0.0, 3, 1, 3, 1, 7, 0, 7]])]
    found, _ = read_detections(files("run.json", results), truth, masks=True)
    assert [rle.decode(mask).ravel("F").nonzero()[0].tolist() for mask in found.rles] == [[3, 4, 5, 6]] * 3


NORMALISED, XYXY = "lie within 0..1.5: are they normalised?", "look like [x1, y1, x2, y2]"
FLAT = "boxes of zero width or height"
LEAVES, FITS, UNORDERED = [60, 60, 90, 90], [10, 10, 30, 30], [50, 50, 10, 10]
SUSPECTS = {  # boxes in pictures of 100 x 100 px, and what is suspected
    "normalised": ([[0.5, 0.5, 0.5, 1.5]] * 5, NORMALISED),
    "four": ([[0.5, 0.5, 0.5, 1.5]] * 4, ""),
    "pixels": ([[0.5, 0.5, 0.5, 1.5]] * 4 + [[0.5, 0.5, 0.5, 1.75]], ""),
    "points": ([[0.5, 0.5, 0, 0]] * 5, f"{FLAT}: 5 (prediction 1; prediction 2; prediction 3 and 2 more)"),
    "one flat": ([[9, 9, 0, 5], [9, 9, 5, 0], FITS], f"{FLAT}: 2 (prediction 1; prediction 2)"),
    "15 % leave": (
        [LEAVES] * 3 + [FITS] * 17,
        "15% leave their picture as [x, y, width, height]; as [x1, y1, x2, y2] 100% are valid",
    ),
    "10 % leave": ([LEAVES] * 2 + [FITS] * 18, ""),
    "97 % in order": (
        [LEAVES] * 97 + [UNORDERED] * 3,
        "97% leave their picture as [x, y, width, height]; as [x1, y1, x2, y2] 97% are valid",
    ),
    "96 % in order": ([LEAVES] * 96 + [UNORDERED] * 4, ""),
    "five": ([LEAVES] * 5, XYXY),
    "four that leave": ([LEAVES] * 4, ""),
    "slack": ([[52, 52, 52, 52]] * 5, ""),
    "beyond the slack": ([[53, 53, 53, 53]] * 5, XYXY),
    "to the right": ([[53, 1, 53, 2]] * 5, XYXY),
    "below": ([[1, 53, 2, 53]] * 5, XYXY),
    "wide": ([[53, 53, 104, 104]] * 5, XYXY),
    "too wide": ([[53, 53, 104, 105]] * 5, ""),
    "only right of the corner": ([[53, 53, 60, 52]] * 5, ""),
    "one of very many": ([LEAVES] + [FITS] * 19_999, ""),
}


@pytest.mark.parametrize(("boxes", "suspected"), SUSPECTS.values(), ids=SUSPECTS)
def test_boxes_that_look_like_a_mistake_are_suspected(files, boxes, suspected):
    content = dict(make_annotations(), images=[dict(id=1, width=100, height=100)], annotations=[])
    truth, _ = read_ground_truth(files("truth.json", content), masks=False)
    results = [dict(image_id=1, category_id=1, bbox=box, score=0.5) for box in boxes]
    told = read_detections(files("run.json", results), truth, masks=False)[1]
    assert len(told) == bool(suspected)
    assert suspected in "".join(told)


def test_without_sizes_of_images_their_boxes_tell_how_large_they_are(files):
    content = dict(make_annotations(), images=[dict(id=1)], annotations=[])
    truth, _ = read_ground_truth(files("truth.json", content), masks=False)
    for boxes, suspected in (([LEAVES] * 5, True), ([[50, 50, 51, 51]] * 5, True), ([LEAVES, UNORDERED] * 5, False)):
        results = [dict(image_id=1, category_id=1, bbox=box, score=0.5) for box in boxes]
        told = read_detections(files("run.json", results), truth, masks=False)[1]
        assert any(XYXY in note for note in told) == suspected


def test_whole_pictures_and_boxes_that_are_not_clipped_are_not_suspected(files, truth_file):
    truth, _ = read_ground_truth(truth_file, masks=False)

    def told(change) -> str:
        return " ".join(read_detections(files("run.json", with_all(GOOD, "bbox", change)), truth, masks=False)[1])

    assert XYXY in told(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])
    assert told(lambda b: [b[0] - 2, b[1] - 2, b[2] + 4, b[3] + 4]) == ""  # not clipped to the picture
    assert told(lambda b: [0, 0, WIDTH, HEIGHT]) == ""
    assert told(lambda b: [0.5, 0.5, WIDTH / 3, HEIGHT / 2]) == ""
    assert NORMALISED in told(lambda b: [b[0] / WIDTH, b[1] / HEIGHT, b[2] / WIDTH, b[3] / HEIGHT])


@pytest.mark.parametrize(
    ("known", "used", "hint"),
    [
        ((1, 3, 90), (0, 2), "; they look like 0-based labels 0..2: write the annotation file's own ids (1, 3, 90)"),
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


@pytest.mark.parametrize(
    ("scores", "outside"),
    [
        ((0, 1, 0.5), ""),
        ((-0.25, 0.5), "1 (prediction 1: -0.25)"),
        ((0.5, 1.25, 2, 0), "2 (prediction 2: 1.25; prediction 3: 2)"),
    ],
)
def test_scores_that_are_not_shares_are_reported(files, truth_file, scores, outside):
    truth, _ = read_ground_truth(truth_file, masks=False)
    _, notes = read_detections(files("run.json", [dict(SCORED, score=s) for s in scores]), truth, masks=False)
    assert notes == ((f"run.json: scores outside 0..1: {outside}; AP uses only their order",) if outside else ())


def test_odd_predictions_are_read_and_reported(files, truth_file):
    truth, _ = read_ground_truth(truth_file, masks=False)
    found, notes = read_detections(files("none.json", []), truth, masks=True)
    assert (len(found), found.boxes.shape, found.rles) == (0, (0, 4), ())
    assert "files without any predictions" in notes[0]
    odd = with_first(with_all(GOOD, "score", lambda s: 100 * s), bbox=[5, 5, 0, 4])
    _, notes = read_detections(files("odd.json", odd), truth, masks=False)
    assert any("scores outside 0..1: 40 (prediction 1: 100; prediction 2: 99;" in note for note in notes)
    assert any(f"{FLAT}: 1 (prediction 1)" in note for note in notes)
    bare = [{k: v for k, v in one.items() if k != "bbox"} for one in GOOD]
    found, _ = read_detections(files("masks.json", bare), truth, masks=True)
    np.testing.assert_array_equal(found.boxes, truth.boxes)
    found, notes = read_detections(files("masks.json", bare), truth, masks=False)
    np.testing.assert_array_equal(found.boxes, truth.boxes)
    assert (
        "objects without bbox: 40 (prediction 1; prediction 2; prediction 3 and 37 more); taken around the masks"
        in notes[0]
    )


def test_what_annotations_lack_is_filled_in_and_reported(files):
    content = make_annotations()
    for one in content["annotations"]:
        del one["area"], one["iscrowd"]
    del content["annotations"][0]["segmentation"]
    del content["annotations"][1]["bbox"]
    content["annotations"][2]["id"] = content["annotations"][3]["id"]
    truth, notes = read_ground_truth(files("a.json", content), masks=False)
    np.testing.assert_array_equal(truth.annotated_area, truth.boxes[:, 2] * truth.boxes[:, 3])
    assert not truth.iscrowd.any()
    assert truth.ids.tolist() == list(range(1, OBJECTS + 1))
    first = "annotation 1; annotation 2; annotation"
    ids = "annotations without an integer id above 0 of their own: 2 (annotation number 3: 4; annotation number 4: 4)"
    assert [note.partition(": ")[2] for note in notes] == [
        f"{ids}; {RULES['annotation-id'].advice}",
        f"annotations whose iscrowd is missing or not 0 or 1: 40 ({first} 4 and 37 more); {RULES['iscrowd'].advice}",
        "objects without bbox: 1 (annotation 2); taken around the masks",
        f"annotations without an area above 0: 40 ({first} 4 and 37 more); {RULES['area'].advice}",
    ]


TRIANGLE = [[20, 30, 60, 30, 20, 70]]


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("lacks", [(0, 1), (0, 2), (1,)])
def test_absent_areas_are_those_of_the_masks_and_boxes(files, masks, lacks):
    content = make_annotations()
    record = dict(content["annotations"][0], bbox=[20, 30, 40, 40], area=1, segmentation=TRIANGLE)
    content["annotations"] = [dict(record, id=1), dict(record, id=2), dict(record, id=3)]
    if not masks:
        del content["annotations"][1]["segmentation"]
    for i in lacks:
        del content["annotations"][i]["area"]
    pixels = int(rle.area(rle.merge(rle.frPyObjects(TRIANGLE, HEIGHT, WIDTH))))
    truth, notes = read_ground_truth(files("a.json", content), masks=masks)
    wanted = [1.0, 1.0, 1.0]
    for i in lacks:
        wanted[i] = pixels if i != 1 or masks else 1600
    assert truth.annotated_area.tolist() == wanted
    named = "; ".join(f"annotation {i + 1}" for i in lacks)
    computed = "computed from the mask, or the box where there is none"
    assert notes == (f"a.json: annotations without an area above 0: {len(lacks)} ({named}); {computed}",)


def test_boxes_around_masks_of_some_objects(files):
    content = make_annotations()
    content["annotations"][2] |= dict(bbox=None, segmentation=TRIANGLE)
    content["annotations"][5] |= dict(bbox=[])
    boxes = [a["bbox"] for a in make_annotations()["annotations"]]
    boxes[2] = [20, 30, 39, 39]  # whole pixels
    for masks in (False, True):
        truth, notes = read_ground_truth(files("a.json", content), masks=masks)
        assert truth.boxes.tolist() == boxes
        assert notes == ("a.json: objects without bbox: 2 (annotation 3; annotation 6); taken around the masks",)
    content["annotations"][5]["segmentation"] = [[1, 2]]
    path = files("a.json", content)
    refused(f"--ann {path}", "annotations[5].segmentation polygons", lambda: read_ground_truth(path, masks=False))


def test_what_is_odd_about_ids_and_crowds_is_reported(files):
    content = make_annotations()
    for record, i in zip(content["annotations"], (0, 7, 7, 7, 9, 9), strict=False):
        record["id"] = i
    del content["annotations"][3]["iscrowd"]
    truth, notes = read_ground_truth(files("a.json", content), masks=False)
    places = "annotation number 1: 0; annotation number 2: 7; annotation number 3: 7 and 5 more"
    assert [note.partition(": ")[2] for note in notes] == [
        f"annotations without an integer id above 0 of their own: 8 ({places}); {RULES['annotation-id'].advice}",
        "annotations whose iscrowd is missing or not 0 or 1: 1 (annotation 7); taken as 0, or as 1 where it is true",
    ]
    assert truth.ids.tolist() == list(range(1, OBJECTS + 1))


MENDED = {  # values that training mends in a copy, and what evaluation takes instead
    "id of text": ("id", "a", "ids", 1),
    "id beyond 64 bits": ("id", 2**63, "ids", 1),
    "negative id": ("id", -1, "ids", 1),
    "no id": ("id", None, "ids", 1),
    "crowd of two": ("iscrowd", 2, "iscrowd", False),
    "true crowd": ("iscrowd", True, "iscrowd", True),
    "crowd of text": ("iscrowd", "true", "iscrowd", True),
    "crowd of -1": ("iscrowd", -1, "iscrowd", False),
    "area of text": ("area", "9", "annotated_area", 52 * 41),
    "area in a list": ("area", [9], "annotated_area", 52 * 41),
    "area 0": ("area", 0, "annotated_area", 52 * 41),
    "negative area": ("area", -0.25, "annotated_area", 52 * 41),
    "area beyond any picture": ("area", 1.1e18, "annotated_area", 52 * 41),
    "NaN area": ("area", NAN, "annotated_area", 52 * 41),
    "polygon of two points": ("segmentation", [[1, 2, 3, 4], *TRIANGLE], "annotated_area", 52 * 41),
}


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize(("key", "value", "column", "taken"), MENDED.values(), ids=MENDED)
def test_what_training_mends_is_mended_and_reported(files, key, value, column, taken, masks):
    content = make_annotations()
    content["annotations"] = with_first(content["annotations"], **{key: value})
    truth, notes = read_ground_truth(files("a.json", content), masks=masks)
    assert getattr(truth, column)[0] == taken
    assert len(notes) == (key != "segmentation" or masks)


BAD_ANNOTATIONS = {
    "image twice": (lambda c: c["images"].append(c["images"][0]), "1 image ids are used more than once (40)"),
    "category twice": (lambda c: c["categories"].append(c["categories"][1]), "1 category ids are used more than once"),
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


def refused(start: str, message: str, call, *more: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    text = str(caught.value)
    assert text.startswith(start)
    assert "\n" not in text
    for part in (message, *more):
        assert part in text
