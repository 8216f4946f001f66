"""Predictions whose numbers mean something else than their format says: a note names the reading that fits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mmms_plugin.coco.objects import GroundTruth
from mmms_plugin.coco.read import read_detections, read_ground_truth
from mmms_plugin.coco.readings import IMAGES as IMAGES_JUDGED
from mmms_plugin.coco.readings import PAIRS, Judge
from tests.coco.coco_files import GOOD, make_annotations

SIZES = ((300, 200), (200, 260), (320, 320), (150, 400))
CLASSES = {3: "dog", 7: "cat", 8: "ant", 20: "bee"}  # ids with gaps, names in another order
Box = tuple[float, float, float, float]


def data_set(seed: int = 0, images: int = 12) -> dict:
    """Objects of a twentieth to a third of their image's side, away from its corner."""
    rng, content = np.random.default_rng(seed), dict(images=[], annotations=[], categories=[])
    content["categories"] = [dict(id=i, name=name) for i, name in CLASSES.items()]
    for i in range(images):
        width, height = SIZES[i % len(SIZES)]
        content["images"].append(dict(id=5 * i + 1, width=width, height=height, file_name=f"{i}.png"))
        for _ in range(4):
            w, h = width * rng.uniform(0.05, 0.3), height * rng.uniform(0.05, 0.3)
            box = [rng.uniform(0.1, 0.6) * width, rng.uniform(0.1, 0.6) * height, w, h]
            content["annotations"].append(
                dict(id=len(content["annotations"]) + 1, image_id=5 * i + 1, bbox=box, area=w * h, iscrowd=0,
                     category_id=int(rng.choice(list(CLASSES))))
            )  # fmt: skip
    return content


def predictions(content: dict, recall: float = 0.8, noise: int = 2, seed: int = 1) -> list[dict]:
    """Most objects, a little off, and boxes anywhere of lower scores."""
    rng, results = np.random.default_rng(seed), []
    for record in content["annotations"]:
        if rng.random() < recall:
            x, y, w, h = record["bbox"]
            box = [x + 0.05 * w * rng.normal(), y + 0.05 * h * rng.normal(), w * rng.uniform(0.9, 1.1), h]
            results.append(dict(image_id=record["image_id"], category_id=record["category_id"], bbox=box,
                                score=rng.uniform(0.4, 1)))  # fmt: skip
    for image in content["images"]:
        for _ in range(noise):
            box = [rng.uniform(0, 0.5) * image[side] for side in ("width", "height", "width", "height")]
            results.append(dict(image_id=image["id"], category_id=int(rng.choice(list(CLASSES))), bbox=box,
                                score=rng.uniform(0, 0.6)))  # fmt: skip
    return results


@pytest.fixture
def truth(files) -> GroundTruth:
    return read_ground_truth(files("truth.json", data_set()), masks=False)[0]


def boxes(change: Callable[..., Box]) -> Callable[[list[dict]], list[dict]]:
    """The change of every box x y w h in an image of W x H."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in data_set()["images"]}
    return lambda results: [r | dict(bbox=change(*r["bbox"], *sizes[r["image_id"]])) for r in results]


def ids(key: str, new: Mapping[int, int]) -> Callable[[list[dict]], list[dict]]:
    """Other ids; predictions without a new one are left out."""
    return lambda results: [r | {key: new[r[key]]} for r in results if r[key] in new]


def scaled(x: float, y: float, w: float, h: float, factor_x: float, factor_y: float) -> Box:
    return x * factor_x, y * factor_y, w * factor_x, h * factor_y


SWAPPED = {3: "bee", 7: "ant", 8: "cat", 20: "dog"}
IDS, IMAGES = list(CLASSES), [image["id"] for image in data_set()["images"]]
BY_NAME = dict(zip(sorted(IDS, key=CLASSES.__getitem__), IDS, strict=True))
XYWH = "read as [x, y, width, height] in pixels, "
READINGS = {
    "corners": (boxes(lambda x, y, w, h, *_: (x, y, x + w, y + h)), "[x1, y1, x2, y2] in pixels"),
    "centres": (
        boxes(lambda x, y, w, h, *_: (x + w / 2, y + h / 2, w, h)),
        "[x_centre, y_centre, width, height] in pixels",
    ),
    "shares": (boxes(lambda *b: scaled(*b[:4], 1 / b[4], 1 / b[5])), "[x, y, width, height] as shares of the image"),
    "corners as shares": (
        boxes(lambda x, y, w, h, W, H: (x / W, y / H, (x + w) / W, (y + h) / H)),
        "[x1, y1, x2, y2] as shares of the image",
    ),
    "rows first": (boxes(lambda x, y, w, h, *_: (y, x, h, w)), "[y, x, height, width] in pixels"),
    "thousandths": (
        boxes(lambda x, y, w, h, W, H: (1e3 * y / H, 1e3 * x / W, 1e3 * (y + h) / H, 1e3 * (x + w) / W)),
        "[y1, x1, y2, x2] in thousandths of the image",
    ),
    "resized": (
        boxes(lambda *b: scaled(*b[:4], 640 / max(b[4:]), 640 / max(b[4:]))),
        "[x, y, width, height] in pixels of images resized to fit 640 px",
    ),
    "stretched": (
        boxes(lambda *b: scaled(*b[:4], 512 / b[4], 512 / b[5])),
        "[x, y, width, height] in pixels of images stretched to 512 x 512 px",
    ),
    "per cent": (
        boxes(lambda *b: scaled(*b[:4], 100 / b[4], 100 / b[5])),
        "[x, y, width, height] in per cent of the image",
    ),
    "for SSD": (
        boxes(lambda *b: scaled(*b[:4], 300 / b[4], 300 / b[5])),
        "[x, y, width, height] in pixels of images stretched to 300 x 300 px",
    ),
    "long and short side": (
        boxes(lambda *b: scaled(*b[:4], *[min(1333 / max(b[4:]), 800 / min(b[4:]))] * 2)),
        "[x, y, width, height] in pixels of images resized to fit 1333 x 800 px",
    ),
    "half": (boxes(lambda *b: scaled(*b[:4], 0.5, 0.5)), "[x, y, width, height] in pixels of images of half the size"),
    "sides": (
        boxes(lambda x, y, w, h, *_: (x, x + w, y, y + h)),
        "[x1, x2, y1, y2] in pixels",
    ),
    "next image": (ids("image_id", dict(pairwise(IMAGES))), "as those of the image before"),
    "worst first": (lambda results: [r | dict(score=1 - r["score"]) for r in results], "with low scores as the better"),
    "class before": (ids("category_id", dict(pairwise(IDS[::-1]))), "as the next class"),
    "by name": (ids("category_id", BY_NAME), "in the order of the classes by name"),
    "corners of the next image": (
        lambda results: READINGS["next image"][0](READINGS["corners"][0](results)),
        "[x1, y1, x2, y2] in pixels, as those of the image before",
    ),
    "exchanged": (
        ids("category_id", {3: 20, 20: 3, 7: 8, 8: 7}),
        "taken with exchanged names (dog as bee, cat as ant, ant as cat, bee as dog), ",
    ),
    "names of other images": (
        lambda results: [r | dict(file_name=f"{(r['image_id'] // 5 + 3) % 12}.png") for r in results],
        "read by image_id, ",
    ),
    "names of other classes": (
        lambda results: [r | dict(category_name=SWAPPED[r["category_id"]]) for r in results],
        "taken by category_id, ",
    ),
}


def test_a_model_that_confuses_classes_is_not_misread(files):
    """Names are exchanged only if almost all predictions fit then, and no two classes become one."""
    content, rng = data_set(images=40), np.random.default_rng(0)
    truth, _ = read_ground_truth(files("truth.json", content), masks=False)
    for others in ([20, 20, 3, 3], [3, 20, 7, 8]):
        new = dict(zip([3, 20, 7, 8], others, strict=True))
        results = [
            r | dict(category_id=new[r["category_id"]] if rng.random() < 0.6 else int(rng.choice(IDS)))
            for r in predictions(content)
        ]
        assert notes_of(files("run.json", results), truth) == []


def notes_of(file: Path, truth: GroundTruth) -> list[str]:
    return [note.partition(": ")[2] for note in read_detections(file, truth, masks=False)[1]]


@pytest.mark.parametrize("name", READINGS)
def test_a_reading_that_fits_far_better_is_named(files, truth, name):
    change, reading = READINGS[name]
    note, *others = notes_of(files("run.json", change(predictions(data_set(), noise=15))), truth)
    assert len(others) == name.startswith("names of other"), "which says that they contradict the ids"
    given, _, better = note.partition("; ")
    assert given.endswith(("% of the best-scored lie on an object", "% of the best-scored on an object have its class"))
    assert reading in better
    assert float(re.findall(r"(\d+)%", better)[0]) > 50 + float(re.findall(r"(\d+)%", given)[0])


def test_numbers_of_file_names_instead_of_image_ids(files):
    content = data_set()
    numbers = dict(zip(IMAGES, [*IMAGES[5:], *IMAGES[:5]], strict=True))  # ids of the data set too
    for image in content["images"]:
        image["file_name"] = f"val/{numbers[image['id']]:06d}.jpg"
    truth, _ = read_ground_truth(files("truth.json", content), masks=False)
    results = ids("image_id", numbers)(predictions(content))
    (note,) = notes_of(files("run.json", results), truth)
    assert "read with image ids as the numbers in file names, " in note


def test_class_numbers_instead_of_ids(files):
    content = data_set()
    content["categories"] = [dict(id=2 * i, name=str(i)) for i in range(5)]
    rng = np.random.default_rng(0)
    for record in content["annotations"]:
        record["category_id"] = 2 * int(rng.integers(0, 3))
    truth, _ = read_ground_truth(files("truth.json", content), masks=False)
    numbers = [r | dict(category_id=r["category_id"] // 2) for r in predictions(content, noise=0)]
    even = [r for r in numbers if r["category_id"] != 1]
    assert "taken as numbers from 0 of the classes by id, 100%" in notes_of(files("run.json", even), truth)[0]


def test_boxes_and_classes_may_both_be_wrong(files, truth):
    results = READINGS["corners"][0](READINGS["class before"][0](predictions(data_set())))
    first, second = notes_of(files("run.json", results), truth)
    assert "[x1, y1, x2, y2]" in first
    assert "as the next class" in second


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("recall", "noise"), [(1.0, 0), (0.6, 3), (0.3, 30), (0.05, 60), (0.0, 30)])
def test_no_other_reading_of_sound_predictions_is_named(files, truth, seed, recall, noise):
    assert notes_of(files("run.json", predictions(data_set(), recall, noise, seed)), truth) == []


@pytest.mark.parametrize(("count", "named"), [(2, False), (3, True)])
def test_two_predictions_are_no_evidence(files, count, named):
    content = data_set(images=1)
    del content["annotations"][count:]
    truth, _ = read_ground_truth(files("truth.json", content), masks=False)
    notes = notes_of(files("run.json", READINGS["corners"][0](predictions(content, 1.0, 0))), truth)
    assert any("read as [x1, y1, x2, y2] in pixels, 100%" in note for note in notes) == named


def yolo_lines(results: list[dict], columns: str) -> dict[str, str]:
    """Text by image; columns are c x y w h s, or a b for a box's corners."""
    sizes = {image["id"]: image for image in data_set()["images"]}
    texts: dict[str, list[str]] = {}
    for r in results:
        image, (x, y, w, h) = sizes[r["image_id"]], r["bbox"]
        x, y, w, h = x / image["width"], y / image["height"], w / image["width"], h / image["height"]
        values = dict(c=IDS.index(r["category_id"]), x=x + w / 2, y=y + h / 2, w=w, h=h, s=r["score"], l=x, t=y,
                      r=x + w, b=y + h)  # fmt: skip
        texts.setdefault(image["file_name"], []).append(" ".join(f"{values[column]:.6g}" for column in columns))
    return {Path(name).stem: "\n".join(lines) for name, lines in texts.items()}


YOLO = {
    "cxywhs": "",
    "csxywh": "read as class confidence x_centre y_centre width height, shares of the image, ",
    "cltrbs": "read as class x1 y1 x2 y2 confidence, shares of the image, ",
    "csltrb": "read as class confidence x1 y1 x2 y2, shares of the image, ",
    "cyxhws": "read as class y_centre x_centre height width confidence, shares of the image, ",
    "cltwhs": "read as class x y width height confidence, shares of the image, ",
}


@pytest.mark.parametrize("columns", YOLO)
def test_columns_of_yolo_in_another_order_are_named(files, tmp_path, columns):
    truth, _ = read_ground_truth(files("truth.json", data_set()), masks=False)
    for name, text in yolo_lines(predictions(data_set()), columns).items():
        (tmp_path / "found").mkdir(exist_ok=True)
        (tmp_path / "found" / f"{name}.txt").write_text(text, encoding="utf-8")
    notes = notes_of(tmp_path / "found", truth)
    assert notes[-1].startswith("numbers of classes are taken in this order")
    assert len(notes) == 1 + bool(YOLO[columns])
    assert YOLO[columns] in notes[0]


@pytest.mark.parametrize("first", [False, True])
def test_a_confidence_before_a_polygon_is_named(files, tmp_path, first):
    truth, _ = read_ground_truth(files("truth.json", data_set()), masks=False)
    texts = yolo_lines(predictions(data_set()), "csltrtrblb" if first else "cltrtrblbs")
    (tmp_path / "found").mkdir()
    for name, text in texts.items():
        (tmp_path / "found" / f"{name}.txt").write_text(text, encoding="utf-8")
    note = notes_of(tmp_path / "found", truth)[0]
    assert ("read as class confidence x1 y1 x2 y2 ..., " in note) == first


@pytest.mark.parametrize("change", ["none", "corners", "shares"])
def test_boxes_that_contradict_their_masks_are_reported(files, truth_file, change):
    content = make_annotations()
    if change == "corners":
        for record in content["annotations"]:
            x, y, w, h = record["bbox"]
            record["bbox"] = [x, y, x + w, y + h]
    if change == "shares":  # of the masks, which then hold no pixel
        for record in content["annotations"]:
            record["segmentation"] = [[0.1, 0.1, 0.3, 0.1, 0.3, 0.3]]
    text = "files whose boxes do not lie around their masks: 1 ("
    _, notes = read_ground_truth(files("a.json", content), masks=True)
    assert any(text in note for note in notes) == (change != "none")
    results = [
        r | dict(bbox=a["bbox"], segmentation=a["segmentation"])
        for r, a in zip(GOOD, content["annotations"], strict=True)
    ]
    truth, _ = read_ground_truth(truth_file, masks=True)
    _, notes = read_detections(files("run.json", results), truth, masks=True)
    assert any(text in note for note in notes) == (change != "none")


def test_the_readings_take_no_time_where_predictions_are_many(files):
    """Nothing is compared but the best predictions of a few images."""
    content = data_set(images=1000)
    truth, _ = read_ground_truth(files("truth.json", content), masks=False)
    judge = Judge(truth, np.repeat(np.arange(1000), 300), np.random.default_rng(0).random(300_000))
    sample = judge.sample()
    assert len(sample.chosen) == IMAGES_JUDGED * 4
    assert len(sample.prediction) <= PAIRS


def test_of_images_with_very_many_objects_a_part_is_compared(files):
    content = data_set(images=2)
    content["annotations"] = [dict(content["annotations"][0], id=i + 1, image_id=1 + 5 * (i % 2)) for i in range(6000)]
    truth, _ = read_ground_truth(files("truth.json", content), masks=False)
    sample = Judge(truth, np.repeat([0, 1], 500), np.linspace(0, 1, 1000)).sample()
    assert 0 < len(sample.prediction) <= PAIRS
