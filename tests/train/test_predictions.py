"""What ``mmms predict`` keeps of a picture, to the digit; and the names of results."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from PIL import Image
from pycocotools import mask as rle

from mmms_plugin.errors import UserError
from mmms_plugin.report.drawing import Style
from mmms_plugin.size_ap import size_ap
from mmms_plugin.train.inputs import Input, find_inputs
from mmms_plugin.train.predictions import ClassResults, ObjectResults, Results, SegmentResults
from mmms_plugin.train.tasks import TASKS

STYLE = Style.of(("cat", "dog"), None)
PIXELS = np.zeros((40, 60, 3), np.uint8)


def source(name: str, suffix: str = ".png") -> Input:
    return Input(Path(f"/in/{name}{suffix}"), name, Path(f"{name}{suffix}"))


def detected(scores: list[float], masks: bool = False) -> BaseDataElement:
    sample = BaseDataElement()
    boxes = torch.tensor([[10.123, 5.5, 30.456, 21.0]] * len(scores))
    sample.pred_instances = InstanceData(bboxes=boxes, scores=torch.tensor(scores), labels=torch.arange(len(scores)))
    if masks:
        sample.pred_instances.masks = torch.zeros(len(scores), 40, 60, dtype=torch.bool)
        sample.pred_instances.masks[:, 10:20, 20:40] = True
    return sample


def written(kept: Results) -> dict:
    return json.loads((kept.out / "predictions.json").read_text(encoding="utf-8"))


def test_objects_are_coco_annotations(tmp_path):
    with ObjectResults(tmp_path, STYLE, True, 0.25) as kept:
        kept.add(kept.entry(source("a"), PIXELS, detected([0.1234567, 0.25])))
        kept.add(kept.entry(source("b/c", ".JPEG"), PIXELS, detected([0.5], masks=True)))
        assert not (tmp_path / "predictions.json").exists()  # as long as it is not whole
    content = written(kept)
    box, mask = content["annotations"]
    assert box == dict(id=1, image_id=1, category_id=2, bbox=[10.12, 5.5, 20.34, 15.5], score=0.25,
                       area=315.27, iscrowd=0)  # fmt: skip
    pixels = rle.decode(mask["segmentation"])
    assert (pixels.shape, pixels.sum(), pixels[10:20, 20:40].sum()) == ((40, 60), 200, 200)
    assert (mask["id"], mask["image_id"], mask["category_id"], mask["area"]) == (2, 2, 1, 200)
    assert content["images"] == [
        dict(id=1, file_name="/in/a.png", height=40, width=60),
        dict(id=2, file_name="/in/b/c.JPEG", height=40, width=60),
    ]
    assert content["categories"] == [dict(id=1, name="cat"), dict(id=2, name="dog")]
    assert content["info"] == dict(least_score=0.25)
    assert kept.summary() == f"2 objects of score 0.25 or more in {tmp_path / 'predictions.json'}"
    drawn = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.*g"))
    assert drawn == ["drawn/a.png", "drawn/b/c.jpg"]
    assert [kept.outputs(source(name)) for name in "a"] == [[tmp_path / "drawn/a.png"]]


@pytest.mark.parametrize("masks", [False, True])
def test_they_can_be_evaluated_on_annotations_with_other_ids(tmp_path, masks):
    with ObjectResults(tmp_path, STYLE, False, 0.25) as kept:
        kept.add(kept.entry(source("b/c"), PIXELS, detected([0.75, 0.5], masks)))
        kept.add(kept.entry(source("a"), PIXELS, detected([0.5], masks)))
    square = [[20, 10, 40, 10, 40, 20, 20, 20]]
    record = dict(image_id=70, bbox=[10.12, 5.5, 20.34, 15.5], area=200, iscrowd=0, segmentation=square)
    truth = dict(
        images=[dict(id=i, file_name=name, width=60, height=40) for i, name in ((7, "c.jpg"), (70, "x/a.png"))],
        categories=[dict(id=5, name="dog"), dict(id=3, name="cat")],
        annotations=[dict(record, id=1, category_id=3), dict(record, id=2, image_id=7, category_id=5)],
    )
    (tmp_path / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
    results = size_ap(tmp_path / "truth.json", kept.out / "predictions.json", iou_type="segm" if masks else "bbox")
    dog, cat = (results.runs[0].classes.category_names.index(name) for name in ("dog", "cat"))
    assert [results.runs[0].classes.ap[i][0] for i in (dog, cat)] == pytest.approx([1, 0.5])
    assert [results.runs[0].classes.detections[i][0] for i in (dog, cat)] == [1, 2]
    assert any("no predictions of a score below 0.25" in note for note in results.notes)


def test_an_interrupted_run_leaves_no_file_that_looks_whole(tmp_path):
    for kind in (ObjectResults, ClassResults, SegmentResults):
        kept = kind(tmp_path, STYLE, False, 0.3)
        with suppress(KeyboardInterrupt), kept:
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    assert kept.outputs(source("a")) == [tmp_path / "masks/a.png"]
    assert ClassResults(tmp_path, STYLE, False, 0.0).outputs(source("a")) == []


def sample_of(**results: Any) -> BaseDataElement:
    sample = BaseDataElement()
    for name, value in results.items():
        setattr(sample, name, value)
    return sample


def scored(*scores: float) -> BaseDataElement:
    return sample_of(pred_score=torch.tensor(scores))


def test_classes_with_their_scores(tmp_path):
    for score, more in ((0.0, [{}, {}]), (0.5, [dict(classes=["dog"]), dict(classes=["cat", "dog"])])):
        with ClassResults(tmp_path, STYLE, True, score) as kept:
            kept.add(kept.entry(source("a"), PIXELS, scored(0.2, 0.800004)))
            kept.add(kept.entry(source("b"), PIXELS, scored(0.75, 0.5)))
        assert written(kept) == dict(
            pictures=[
                {"file_name": "/in/a.png", "class": "dog", "score": 0.8, **more[0], "scores": [0.2, 0.8]},
                {"file_name": "/in/b.png", "class": "cat", "score": 0.75, **more[1], "scores": [0.75, 0.5]},
            ],
            classes=["cat", "dog"],
        )
        assert kept.summary() == f"classes in {tmp_path / 'predictions.json'}"
    assert (tmp_path / "drawn/a.png").is_file()


@pytest.mark.parametrize(("count", "mode"), [(256, "P"), (257, "I;16")])
def test_segments_are_class_indices_in_the_colours_of_the_classes(count, mode, tmp_path):
    style = Style.of(tuple(map(str, range(count))), [(i % 256, 1, 2) for i in range(count)])
    labels = torch.zeros(1, 40, 60, dtype=torch.long)
    labels[:, 20:] = count - 1
    with SegmentResults(tmp_path, style, True, 0.0) as kept:
        kept.add(kept.entry(source("a"), PIXELS, sample_of(pred_sem_seg=PixelData(data=labels))))
    mask = Image.open(tmp_path / "masks/a.png")
    assert mask.mode == mode
    assert np.array_equal(np.asarray(mask), labels[0].numpy())
    if mode == "P":
        assert mask.convert("RGB").getpixel((5, 30)) == (255, 1, 2)
    assert (tmp_path / "labels.txt").read_text(encoding="utf-8").splitlines() == list(style.classes)
    assert kept.summary() == f"1 mask in {tmp_path / 'masks'}, classes in {tmp_path / 'labels.txt'}"
    assert kept.outputs(source("a")) == [tmp_path / "masks/a.png", tmp_path / "drawn/a.png"]
    assert all(path.is_file() for path in kept.outputs(source("a")))


@pytest.mark.parametrize(
    ("kind", "sample", "message"),
    [
        (ObjectResults, scored(1.0), "this model predicts no boxes"),
        (ObjectResults, sample_of(pred_instances=InstanceData(scores=[1.0])), "predicts no boxes"),
        (ClassResults, detected([1.0]), "this model predicts no score for each class"),
        (SegmentResults, detected([1.0]), "this model predicts no class for each pixel"),
    ],
)
def test_a_model_of_another_task_is_named(kind, sample, message, tmp_path):
    with pytest.raises(UserError, match=message), kind(tmp_path, STYLE, False, 0.3) as kept:
        kept.add(kept.entry(source("a"), PIXELS, sample))


def test_scores_by_task(tmp_path):
    multi_label, classifier, detector, segmenter = TASKS
    for task, default in ((multi_label, 0.5), (detector, 0.3)):
        assert task.results(tmp_path, STYLE, False, None).score == default
        assert task.results(tmp_path, STYLE, False, 0.0).score == 0.0
    assert classifier.results(tmp_path, STYLE, False, None).score == 0.0
    for task, message in ((classifier, "keeps the scores of all classes"), (segmenter, "model has no scores")):
        with pytest.raises(UserError, match=f"--score: .*{message}"):
            task.results(tmp_path, STYLE, False, 0.0)
    with pytest.raises(UserError, match="--size-report: for a detector, keep predictions with --out FILE"):
        detector.report_sizes({}, tmp_path)
    with pytest.raises(UserError, match="--size-report: this config is a classifier, allowed are segmentation models"):
        classifier.report_sizes({}, tmp_path)
    with pytest.raises(UserError, match="--budget and --risk: this config is a detector; classifiers exit early"):
        detector.check_early_exit()
    classifier.check_early_exit()
    for task in (detector, classifier):
        task.check_out("x.json")
        with pytest.raises(UserError, match=r"--out x: predictions of a .* give a name that ends in \.json"):
            task.check_out("x")
        with pytest.raises(UserError, match="--out: the config's test_evaluator has no "):
            task.keep_predictions({}, tmp_path, "x.json")
    segmenter.check_out("x")
    for task in (detector, classifier):
        config = dict(custom_hooks=[dict(type="X")])
        task.draw_into(config, tmp_path)
        assert [hook["type"] for hook in config["custom_hooks"]] == ["X", "mmms_plugin.DrawingHook"]


def test_metrics_that_keep_predictions_and_report_sizes(tmp_path):
    _, classifier, detector, segmenter = TASKS
    metrics = [dict(type="mmms_plugin.ClassMetric"), dict(type="Accuracy"), dict(type="mmms_plugin.LabelsMetric")]
    classifier.keep_predictions(dict(test_evaluator=metrics), tmp_path, "x.json")
    assert [metric.get("out_file") for metric in metrics] == [None, None, "x.json"]
    metrics = [dict(type="CocoMetric"), dict(type="Other")]
    detector.keep_predictions(dict(test_evaluator=metrics), tmp_path, "x.json")
    assert metrics == [dict(type="CocoMetric", outfile_prefix=str(tmp_path / "predictions")), dict(type="Other")]
    for metric, found in (
        (dict(type="IoUMetric"), 500),
        (dict(type="mmseg.IoUMetric", bootstrap=7), 7),
        (dict(type="mmms_plugin.SizeIoUMetric"), None),
    ):
        segmenter.report_sizes(dict(test_evaluator=metric), tmp_path)
        assert (metric["type"], metric.get("bootstrap")) == ("mmms_plugin.SizeIoUMetric", found)
        assert metric["report_dir"] == str(tmp_path)
    with pytest.raises(UserError, match="--size-report: the config's test_evaluator has no IoUMetric"):
        segmenter.report_sizes(dict(test_evaluator=dict(type="Other")), tmp_path)
    metric = dict(type="IoUMetric")
    segmenter.keep_predictions(dict(test_evaluator=metric), tmp_path, str(tmp_path / "folder"))
    assert metric["output_dir"] == str(tmp_path / "folder")


def test_names_of_results_tell_pictures_apart(tmp_path):
    files = ["a/x.png", "a/x.jpg", "a/.hidden.png", "a/.cache/y.png", "a/out/z.png", "a/notes.txt", "b/x.PNG",
             "b/X.bmp", "c/x_1.png"]  # fmt: skip
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def names(*arguments: str) -> list[str]:
        found = find_inputs([str(tmp_path / argument) for argument in arguments], tmp_path / "a/out")
        return [f"{one.path.relative_to(tmp_path).as_posix()}: {one.name}" for one in found]

    assert names("a") == ["a/x.jpg: x.jpg", "a/x.png: x.png"]
    assert names("a/x.png") == ["a/x.png: x"]
    assert names("b/x.PNG", "a/x.png", "b/x.PNG") == ["b/x.PNG: b/x", "a/x.png: a/x"]
    assert names("*/x*.png") == ["a/x.png: x", "c/x_1.png: x_1"]
    assert names("b") == ["b/X.bmp: X.bmp", "b/x.PNG: x.PNG"]  # one name where case does not count
    assert names("**/*.PNG") == ["b/x.PNG: x"]
    (tmp_path / "d.png").mkdir()
    wrong = {
        "*.png": "pattern .*: no picture in it",
        "a/out": "folder .*: no picture in it",
        "none": "no such picture or",
    }
    for argument, message in wrong.items():
        with pytest.raises(UserError, match=message):
            names(argument)
