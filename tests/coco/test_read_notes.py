"""Reading COCO files: what is mended or looks like a mistake is reported."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as rle

from mmms_plugin.coco.read import read_detections, read_ground_truth
from mmms_plugin.coco.rules import RULES
from tests.coco.coco_files import (
    GOOD,
    HEIGHT,
    NAN,
    OBJECTS,
    SCORED,
    WIDTH,
    make_annotations,
    refused,
    with_all,
    with_first,
)

NORMALISED, XYXY = "lie within 0..1.5: 1", "look like [x1, y1, x2, y2]"


FLAT = "boxes of zero width or height"


LEAVES, FITS, UNORDERED = [60, 60, 90, 90], [10, 10, 30, 30], [50, 50, 10, 10]


SUSPECTS = {  # boxes in pictures of 100 x 100 px, and what is suspected
    "normalised": ([[0.5, 0.5, 0.5, 1.5]] * 5, NORMALISED),
    "one": ([[0.5, 0.5, 0.5, 1.5]], NORMALISED),
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

    assert "read as [x1, y1, x2, y2] in pixels, 100%" in told(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])
    assert told(lambda b: [b[0] - 2, b[1] - 2, b[2] + 4, b[3] + 4]) == ""  # not clipped to the picture
    assert told(lambda b: [0, 0, WIDTH, HEIGHT]) == ""
    assert told(lambda b: [0.5, 0.5, WIDTH / 3, HEIGHT / 2]) == ""
    shares = told(lambda b: [b[0] / WIDTH, b[1] / HEIGHT, b[2] / WIDTH, b[3] / HEIGHT])
    assert "read as [x, y, width, height] as shares of the image, 100%" in shares


@pytest.mark.parametrize(
    ("scores", "outside"),
    [
        ((0, 1, 0.5), ""),
        ((-0.25, 0.5), "1 (prediction 1: -0.25)"),
        ((0.5, 1.25, 2, 0), "2 (prediction 2: 1.25; prediction 3: 2)"),
        ((101, 50, 2), "3 (prediction 1: 101; prediction 2: 50; prediction 3: 2)"),
    ],
)
def test_scores_that_are_not_shares_are_reported(files, truth_file, scores, outside):
    truth, _ = read_ground_truth(truth_file, masks=False)
    _, notes = read_detections(files("run.json", [dict(SCORED, score=s) for s in scores]), truth, masks=False)
    assert notes == ((f"run.json: scores outside 0..1: {outside}; AP uses only their order",) if outside else ())


def test_odd_predictions_are_read_and_reported(files, truth_file):
    truth, _ = read_ground_truth(truth_file, masks=False)
    found, notes = read_detections(files("none.json", []), truth, masks=True)
    assert (len(found), found.boxes.shape, len(found.rles)) == (0, (0, 4), 0)
    assert "files without any predictions" in notes[0]
    odd = with_first(with_all(GOOD, "score", lambda s: 100 * s), bbox=[5, 5, 0, 4])
    _, notes = read_detections(files("odd.json", odd), truth, masks=False)
    assert any("files whose scores look like per cent: 1 (the highest is 100)" in note for note in notes)
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


def test_ground_truth_with_scores_is_reported(files):
    content = make_annotations()
    for record in content["annotations"][1:]:
        record["score"] = 0.5
    for _ in range(2):
        _, notes = read_ground_truth(files("a.json", content), masks=False)
        assert any("annotations with a score: " in note and "are these predictions?" in note for note in notes)
        content["images"][0]["file_name"] = "\ud800"  # which the typed reader refuses


def test_what_is_odd_about_ids_and_crowds_is_reported(files):
    content = make_annotations()
    for record, i in zip(content["annotations"], (0, "7", 7, 7, 9, 9), strict=False):
        record["id"] = i
    del content["annotations"][3]["iscrowd"]
    truth, notes = read_ground_truth(files("a.json", content), masks=False)
    places = "annotation number 1: 0; annotation number 2: not an integer; annotation number 3: 7 and 5 more"
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
