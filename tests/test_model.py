"""``Model``: a detector trained, tested and used from Python, with the options of the commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mmms_plugin import Model
from mmms_plugin.commands import export
from mmms_plugin.errors import RunError, UserError
from mmms_plugin.report.drawing import Style
from mmms_plugin.train import launch
from mmms_plugin.train.options import TrainOptions
from mmms_plugin.train.prediction import ClassPrediction, ObjectPrediction, SegmentPrediction

CONFIG = "demo/mask_rcnn_ps_r18_shapes"
QUICK = {"train_cfg.max_iters": 2, "train_cfg.val_interval": 2, "default_hooks.checkpoint.save_best": "coco/bbox_mAP"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> tuple[Model, Path]:
    work, model = tmp_path_factory.mktemp("model"), Model(CONFIG)
    results = model.train(coco_dir=shapes, work_dir=work, workers=0, batch_size=2, image_size=96, cfg_options=QUICK)
    assert results is not None
    assert [evaluation.iteration for evaluation in results.evaluations] == [2]
    return model, work


def test_a_model_is_trained_and_goes_on_with_its_best_weights(trained) -> None:
    model, work = trained
    assert Path(model.checkpoint).parent == work
    assert repr(model) == f"Model({CONFIG!r}, {model.checkpoint!r})"


def test_a_model_with_weights_goes_on_from_them(trained, monkeypatch) -> None:
    model, _ = trained

    def train(options: TrainOptions) -> None:
        raise RunError(options.cfg_options["load_from"])

    monkeypatch.setattr(launch, "train", train)
    with pytest.raises(RunError, match=r"iter_2.pth"):
        Model(CONFIG, model.checkpoint).train(epochs=2)


def test_an_export_is_that_of_the_command(trained, monkeypatch, tmp_path) -> None:
    model, _ = trained
    asked: list[export.Options] = []
    monkeypatch.setattr(export, "run", asked.append)
    assert model.export(tmp_path / "model.onnx", image_size=64, exits=[1, 2]) == tmp_path / "model.onnx"
    (options,) = asked
    assert (options.config, options.checkpoint, options.out) == (CONFIG, model.checkpoint, tmp_path / "model.onnx")
    assert (options.image_size, options.exits) == ((64, 64), (1, 2))
    with pytest.raises(UserError, match="the model is a checkpoint alone, which only predicts"):
        Model(model.checkpoint, trust_checkpoint_config=True).export("model.onnx")


def test_a_checkpoint_that_is_trusted_predicts_alone(trained, shapes) -> None:
    alone = Model(trained[0].checkpoint, trust_checkpoint_config=True)
    (prediction,) = alone.predict(sorted((shapes / "images").glob("val*"))[0])
    assert prediction.classes == ("circle", "ring", "square", "triangle", "star")


def test_predictions_are_those_of_the_command_as_arrays(trained, shapes, tmp_path) -> None:
    model, _ = trained
    files = sorted((shapes / "images").glob("val*"))
    found = model.predict([files[0], np.asarray(Image.open(files[0]).convert("RGB")), Image.open(files[1])], score=0.0)
    first, same, other = found
    assert isinstance(first, ObjectPrediction)
    assert (first.picture, same.picture, other.picture) == (str(files[0]), "picture 1", "picture 2")
    assert len(first)
    assert first.boxes.shape == (len(first), 4)
    assert first.masks.shape == (len(first), *first.pixels.shape[:2])
    for name in ("boxes", "labels", "scores", "masks", "pixels"):
        assert np.array_equal(getattr(first, name), getattr(same, name))
    assert first._repr_png_().startswith(b"\x89PNG")
    assert first.save(tmp_path / "drawn.jpg").is_file()
    kept = model._predictor
    assert len(model.predict(str(shapes / "images/val*.png"))) == 2
    assert model._predictor is kept, "the network is built once"
    with pytest.raises(UserError, match=r"nowhere.png: no such picture or folder"):
        model.predict("nowhere.png")
    with pytest.raises(UserError, match=r"picture 0: an array of float64, shape \(3, 3\); must be RGB of uint8"):
        model.predict(np.zeros((3, 3)))
    for wrong, message in (
        (3, "picture 0: must be a path, an array or an image, not int"),
        (np.zeros((0, 4, 3), np.uint8), r"picture 0: an array of uint8, shape \(0, 4, 3\)"),
        (Image.new("F", (4, 4)), "picture 0: an image of mode F, 4 x 4 px"),
    ):
        with pytest.raises(UserError, match=message):
            model.predict(wrong)
    deep = np.full((4, 6), 0x8000, np.uint16)
    assert model.predict(Image.fromarray(deep))[0].pixels.max() == 0x80, "16 bits are not clipped"
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"bad.png: "):
        model.predict(tmp_path / "bad.png")


def test_metrics_and_ap_by_size(trained, shapes, tmp_path, capsys) -> None:
    model, _ = trained
    options = dict(coco_dir=shapes, workers=0, work_dir=tmp_path)
    metrics = model.test(**options)
    assert metrics["coco/bbox_mAP"] is not None
    assert metrics["coco/bbox_mAP_l"] is None, "no validation picture has a large object"
    capsys.readouterr()
    results = model.size_ap(test=options, bins="tiny")
    assert "predictions.json" not in capsys.readouterr().out, "the file of a moment"
    assert results.runs[0].name == "mask_rcnn_ps_r18_shapes"
    assert len(results.runs[0].bins) > 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Model("mask_rcnn_ps_r5_fpn_1x"), "nearest are"),
        (lambda: Model(None), "source=None: must be a name or a path"),
        (lambda: Model(CONFIG, 3), "checkpoint=3: must be a name or a path"),
        (lambda: Model(CONFIG, "nowhere.pth"), "checkpoint nowhere.pth: no such file"),
        (
            lambda: Model("best.pth"),
            r"Model\('best.pth'\): give Model\(config, checkpoint\), or trust_checkpoint_config",
        ),
        (lambda: Model(CONFIG).predict("a.png"), "predict: the model has no weights yet: train it"),
        (lambda: Model(CONFIG).test(), "test: the model has no weights yet"),
        (lambda: Model(CONFIG).train(epoch=3), "epoch: no such option; did you mean epochs"),
        (lambda: Model(CONFIG).train(epochs=0), "--epochs 0: must be an integer of at least 1"),
        (lambda: Model(CONFIG).train("nowhere"), "nowhere"),
        (lambda: Model(CONFIG).train(ema="no"), "ema='no': must be True or False"),
        (lambda: Model(CONFIG).train(seed="x"), "seed='x': must be an integer"),
        (lambda: Model(CONFIG).train(data=3), "data=3: must be a path"),
        (lambda: Model(CONFIG).train(config="other"), "config: no such option"),
        (lambda: Model(CONFIG).predict("a.png", score="x"), "score='x': must be a number"),
        (lambda: Model(CONFIG).predict("a.png", thresholds="nowhere.json"), "nowhere.json"),
        (lambda: Model(CONFIG).size_ap(image_size=64), r"image_size: .*give test=dict\(image_size"),
        (lambda: Model(CONFIG).size_ap(bin=64), "bin: no such option; did you mean bins"),
        (lambda: Model(CONFIG).size_ap(confidence=2), "--confidence 2: must be"),
    ],
)
def test_what_is_wrong_is_one_line(call, message) -> None:
    with pytest.raises(UserError, match=message):
        call()


def test_importing_the_package_imports_neither_torch_nor_a_host() -> None:
    code = "import sys, mmms_plugin; print({'torch', 'mmengine', 'mmdet'} & set(sys.modules)); mmms_plugin.Model"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


class Detections(SimpleNamespace):
    """What supervision's constructors take."""


def test_predictions_become_those_of_supervision(monkeypatch) -> None:
    pixels, style = np.zeros((4, 6, 3), np.uint8), Style.of(("sky", "car", "road"))
    segments = np.array([[0] * 6, [0] * 6, [2] * 6, [2, 2, 2, 1, 1, 2]])
    regions = SegmentPrediction("a", pixels, style, segments)
    objects = ObjectPrediction("a", pixels, style, np.ones((2, 4)), np.array([1, 1]), np.array([0.9, 0.8]), None)
    classes = ClassPrediction("a", pixels, style, np.array([0.1, 0.7, 0.2]), np.array([1]))
    assert [repr(prediction) for prediction in (regions, objects, classes)] == [
        "a: sky 50%, road 42%, car 8%", "a: 2 objects: 2 car", "a: car 0.70",
    ]  # fmt: skip
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match="to_supervision: supervision is not installed"):
        objects.to_supervision()
    fake = SimpleNamespace(Detections=Detections, Classifications=Detections)
    monkeypatch.setitem(sys.modules, "supervision", fake)
    detections = regions.to_supervision()
    assert detections.xyxy.tolist() == [[0, 0, 6, 2], [3, 3, 5, 4], [0, 2, 6, 4]]
    assert detections.mask.sum((1, 2)).tolist() == [12, 2, 10]
    assert detections.data["class_name"].tolist() == ["sky", "car", "road"]
    detections = objects.to_supervision()
    assert (detections.mask, detections.class_id.tolist()) == (None, [1, 1])
    assert detections.xyxy is objects.boxes
    assert classes.to_supervision().confidence.tolist() == [0.1, 0.7, 0.2]
    with pytest.raises(UserError, match=r"path=a.gif: the suffix must be .jpg or .png"):
        objects.save("a.gif")
