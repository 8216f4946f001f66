"""Reading COCO files: the values are those of the file, read in the typed way."""

from __future__ import annotations

import dataclasses
import json
from functools import partial

import msgspec
import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO

from mmms_plugin.coco import json_files
from mmms_plugin.coco.read import read_detections, read_ground_truth
from mmms_plugin.coco.records import read_annotations, read_results
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
    with_some,
)


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


@pytest.mark.parametrize("place", [0, -1])  # in the first piece or the last
@pytest.mark.parametrize("largest", [2**53 - 1, 2**53 + 1, 2**63 - 1])  # from 2**53 on floats stand for several ids
def test_numbers_are_those_of_the_file_to_the_last_bit(files, largest, place):
    rng = np.random.default_rng(0)
    numbers = rng.random((5_000, 5)) * 10.0 ** rng.integers(-9, 9, (5_000, 5))  # several pieces
    ids = rng.integers(0, 2**40, len(numbers)).tolist()
    ids[place] = largest
    records = [
        {"score": score, "bbox": box, "category_id": i % 90, "image_id": one}
        for i, (one, (score, *box)) in enumerate(zip(ids, numbers.tolist(), strict=True))
    ]
    found = read_results(files("run.json", records), "--pred", False).columns
    assert found.image_id.dtype == found.category_id.dtype == np.int64
    assert found.image_id.tolist() == ids
    assert found.category_id.tolist() == [i % 90 for i in range(len(ids))]
    np.testing.assert_array_equal(np.column_stack((found.score, found.boxes)), numbers)
    assert found.has_box.all()
    assert found.segmentations is None


@pytest.mark.parametrize("crowd", [0, 1, 2, 200, True, None])
def test_annotations_are_those_of_the_file(files, crowd):
    content = make_annotations()
    content["annotations"][3]["iscrowd"] = crowd
    _, _, found = read_annotations(files("truth.json", content), "--ann", False)
    for name in ("id", "image_id", "category_id", "area"):
        assert getattr(found, name).tolist() == [a[name] for a in content["annotations"]]
    assert found.boxes.tolist() == [a["bbox"] for a in content["annotations"]]
    assert np.flatnonzero(found.iscrowd).tolist() == ([3] if crowd in (1, True) else [])
    assert np.flatnonzero(~found.has_iscrowd).tolist() == ([] if crowd in (0, 1) and crowd is not True else [3])


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


READ = {  # how often the decoder is made: again only for the masks that absent boxes and areas are taken from
    "truth": (make_annotations(), False, 1),
    "truth with masks": (make_annotations(), True, 1),
    "large ids": (annotated("id", 2**53, 2**63), False, 1),
    "crowds": (annotated("iscrowd", 0, 1, None, True, 1.0), False, 1),
    "ids as fractions": (annotated("image_id", 10.0, 20.0), False, 1),
    "no area": (annotated("area", None), False, 2),
    "no area, with masks": (annotated("area", None), True, 1),
    "results": (GOOD, False, 1),
    "results with masks": (GOOD, True, 1),
    "results without boxes": ([{k: v for k, v in r.items() if k != "bbox"} for r in GOOD], False, 2),
    "results without boxes, with masks": ([{k: v for k, v in r.items() if k != "bbox"} for r in GOOD], True, 1),
    "names": (with_all(GOOD, "image_id", lambda i: f"{i}.png"), False, 1),
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
    for bbox, place in (("\ud800", "bbox"), ([0, 0, "\ud800", 1], "bbox[2]")):
        path = files("run.json", [dict(SCORED, bbox=bbox)])
        refused(f"--pred {path}", f"[0].{place}: '?'; allowed is", partial(read_detections, path, truth, masks=False))


def test_names_of_images_and_classes(files):
    content = make_annotations()
    content["images"] = [dict(id=i, coco_url=f"http://host/a/{i}.jpg") for i in (40, 10, 20, 30)]
    content["images"][0]["file_name"] = "own.png"
    del content["categories"][0]["name"]
    content["categories"][1]["name"] = "n" * 301
    truth, _ = read_ground_truth(files("truth.json", content), masks=False)
    assert truth.file_names == ("own.png", "10.jpg", "20.jpg", "30.jpg")
    assert truth.category_names == ("1", f"{'n' * 150} ... {'n' * 150}", "cow")
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
