"""`mmms predict`: pictures in, drawings with COCO JSON or PNG masks out; on models with random weights."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from PIL import Image
from pycocotools.coco import COCO

from mmms_plugin.commands import main
from mmms_plugin.config.edit import set_num_classes
from mmms_plugin.config.files import load_config
from mmms_plugin.data.pictures import problem_of
from mmms_plugin.errors import UserError
from mmms_plugin.model import Model
from mmms_plugin.size_ap.score_files import Limits, ScoreCalibration, ScoreThresholds, Sizes
from mmms_plugin.train.inputs import find_inputs
from mmms_plugin.train.launch import drop_initial_weights

DETECTOR = "demo/mask_rcnn_ps_r18_shapes"
SEGMENTER = """
_base_ = "{root}/deeplabv3_ps_r50_voc12aug.py"
model = dict(
    backbone=dict(depth=18, base_channels=8, stem_channels=8, multi_grid=(1, 1)),
    decode_head=dict(in_channels=64, channels=16),
    auxiliary_head=dict(in_channels=32, channels=16),
)
"""


def save_random(config_name: str, classes: tuple[str, ...], path: Path) -> None:
    """A checkpoint as training leaves it: weights, classes and config."""
    config = load_config(config_name)
    set_num_classes(config.model, len(classes))
    drop_initial_weights(config)
    if "roi_head" in config.model:  # untrained scores are about 1 / classes
        config.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=7)
    init_default_scope(config.default_scope)
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(config.model))
    meta = dict(dataset_meta=dict(classes=classes), cfg=config.pretty_text)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with detector.pth of two classes, segmenter.py, and segmenter.pth of three."""
    folder = tmp_path_factory.mktemp("models")
    root = Path(__file__).parents[2] / "configs"
    (folder / "segmenter.py").write_text(SEGMENTER.format(root=root), encoding="utf-8")
    save_random(DETECTOR, ("cell", "debris"), folder / "detector.pth")
    save_random(str(folder / "segmenter.py"), ("background", "road", "tree"), folder / "segmenter.pth")
    return folder


@pytest.fixture
def pictures(shapes: Path, tmp_path: Path) -> Path:
    """Two pictures of one name in two folders, a JPEG, and two files that cannot be read."""
    source = sorted((shapes / "images").glob("*.png"))
    for folder in ("a", "b"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        shutil.copy(source[0], tmp_path / "in" / folder / "same.png")
    Image.open(source[1]).convert("RGB").resize((50, 30)).save(tmp_path / "in/photo.JPG", format="JPEG")
    (tmp_path / "in/broken.png").write_bytes(source[0].read_bytes()[:300])
    (tmp_path / "in/empty.jpg").touch()
    return tmp_path / "in"


def error_of(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    capsys.readouterr()
    assert main(["predict", *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1, error
    return error[0]


def test_a_picture_with_damaged_pixels_cannot_be_read(tmp_path):
    """Its header and its end are whole; OpenCV would fill the rest with grey."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    content = bytearray((tmp_path / "whole.png").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    (tmp_path / "damaged.png").write_bytes(content)
    assert problem_of(tmp_path / "whole.png") == ""
    assert problem_of(tmp_path / "damaged.png").startswith("unreadable")


def test_a_detector_gives_one_coco_file_and_drawings(models, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    Image.new("L", (1, 2000)).save(pictures / "thin.png")  # less than 1 px wide after resizing
    options = ["--cfg-options", "model.test_cfg.rcnn.score_thr=0.0", "model.test_cfg.rcnn.max_per_img=7"]
    arguments = [DETECTOR, str(models / "detector.pth"), str(pictures), "--out", str(out), "--score", "0.01"]
    assert main(["predict", *arguments, *options]) == 0
    printed, remarks = capsys.readouterr()
    assert "--score 0.01: drawing many objects takes a while; --no-draw leaves it out" in remarks
    assert "3 pictures: 21 objects of score 0.01 or more" in printed
    skipped = (out / "skipped.txt").read_text(encoding="utf-8").splitlines()
    names = ("broken.png", "empty.jpg", "thin.png")
    assert [line.split(": ")[0] for line in skipped] == [str(pictures / name) for name in names]
    assert ": the test pipeline: " in skipped[2]
    assert "truncated" in skipped[0]
    assert "empty" in skipped[1]
    drawn = {str(file.relative_to(out / "drawn")) for file in (out / "drawn").rglob("*.*")}
    assert drawn == {"a/same.png", "b/same.png", "photo.jpg"}
    truth = COCO(str(out / "predictions.json"))
    assert [one["name"] for one in truth.loadCats(truth.getCatIds())] == ["cell", "debris"]
    assert {Path(one["file_name"]).name: (one["width"], one["height"]) for one in truth.loadImgs(truth.getImgIds())} \
        == {"same.png": (96, 96), "photo.JPG": (50, 30)}  # fmt: skip
    one = truth.loadAnns(truth.getAnnIds())[0]
    assert truth.annToMask(one).shape == (96, 96)
    assert one["area"] == truth.annToMask(one).sum()
    assert 0.01 <= one["score"] <= 1
    assert one["id"] == 1


def test_thresholds_by_class_and_size_decide_what_is_kept(models, shapes, tmp_path, capsys):
    picture = next((shapes / "images").iterdir())
    options = ["--cfg-options", "model.test_cfg.rcnn.score_thr=0.0", "model.test_cfg.rcnn.max_per_img=40", "--no-draw"]
    arguments = ["predict", DETECTOR, str(models / "detector.pth"), str(picture), *options]
    assert main([*arguments[:4], *options, "--score", "0", "--out", str(tmp_path / "all")]) == 0
    everything = json.loads((tmp_path / "all/predictions.json").read_text(encoding="utf-8"))["annotations"]
    areas = [a["bbox"][2] * a["bbox"][3] for a in everything]
    middle, scores = float(np.median(areas)) + 0.01, sorted(a["score"] for a in everything)
    third = (scores[len(scores) // 3] + scores[len(scores) // 3 + 1]) / 2
    sizes = Sizes("box", "side", (Limits("low", 0, middle), Limits("high", middle, None)))
    thresholds = ScoreThresholds(sizes, {"high": third, "all": 0.0}, {"cell": {"low": 0.9}})
    file = tmp_path / "thresholds.json"
    file.write_text(thresholds.to_json(), encoding="utf-8")
    given = ["--thresholds", str(file), "--out", str(tmp_path / "kept")]
    assert main([*arguments, *given]) == 0
    kept = json.loads((tmp_path / "kept/predictions.json").read_text(encoding="utf-8"))["annotations"]
    wanted = [
        a for a, area in zip(everything, areas, strict=True)
        if (a["score"] >= third if area >= middle else a["category_id"] != 1 or a["score"] >= 0.9)
    ]  # fmt: skip
    assert [(a["bbox"], a["score"]) for a in kept] == [(a["bbox"], a["score"]) for a in wanted]
    assert 0 < len(kept) < len(everything)
    more = {"model.test_cfg.rcnn.score_thr": 0.0, "model.test_cfg.rcnn.max_per_img": 40}
    (prediction,) = Model(DETECTOR, models / "detector.pth").predict(picture, thresholds=file, cfg_options=more)
    assert len(prediction) == len(kept)
    maps = ScoreCalibration(sizes, {"all": (1.0, 0.0), "low": (2.0, 1.0), "high": (0.5, -1.0)})
    calibration = tmp_path / "calibration.json"
    calibration.write_text(maps.to_json(), encoding="utf-8")
    assert main([*arguments, "--score", "0", "--calibration", str(calibration), "--out", str(tmp_path / "maps")]) == 0
    mapped = json.loads((tmp_path / "maps/predictions.json").read_text(encoding="utf-8"))["annotations"]
    scores = {}
    for a, area in zip(everything, areas, strict=True):
        slope, offset = (2, 1) if area < middle else (0.5, -1)
        odds = (a["score"] / (1 - a["score"])) ** slope * math.exp(offset)
        scores[tuple(a["bbox"]), a["category_id"]] = odds / (1 + odds)
    assert {(tuple(a["bbox"]), a["category_id"]): a["score"] for a in mapped} == pytest.approx(scores, abs=2e-4)
    assert [a["score"] for a in mapped] == sorted((a["score"] for a in mapped), reverse=True)
    assert [a["bbox"] for a in mapped] != [a["bbox"] for a in everything]
    assert main([*arguments, *given[:2], "--calibration", str(calibration), "--out", str(tmp_path / "both")]) == 0
    both = json.loads((tmp_path / "both/predictions.json").read_text(encoding="utf-8"))["annotations"]
    large = [a for a in mapped if a["bbox"][2] * a["bbox"][3] >= middle and a["score"] >= third]
    found = [a for a in both if a["bbox"][2] * a["bbox"][3] >= middle]
    assert found == [a | {"id": b["id"]} for a, b in zip(large, found, strict=True)]
    capsys.readouterr()
    segmenter = [str(models / "segmenter.py"), str(models / "segmenter.pth"), str(picture)]
    assert (
        error_of(capsys, [*segmenter, *given])
        == "mmms predict: error: --thresholds: only for detectors, whose objects have sizes"
    )
    file.write_text(ScoreThresholds(sizes, {}, {"bird": {}}).to_json(), encoding="utf-8")
    assert "its classes (bird) are not the model's (cell, debris)" in error_of(capsys, [*arguments[1:4], *given])
    file.write_text("[]", encoding="utf-8")
    assert "must be a thresholds-N.json that `mmms size-ap" in error_of(capsys, [*arguments[1:4], *given])


def test_the_checkpoints_own_config_is_run_only_when_trusted(models, pictures, tmp_path, capsys):
    checkpoint, out = str(models / "detector.pth"), tmp_path / "out"
    arguments = [checkpoint, str(pictures / "photo.JPG"), "--out", str(out), "--no-draw"]
    assert "CONFIG is missing" in error_of(capsys, arguments)
    assert not out.exists()
    evil = torch.load(checkpoint, weights_only=True)
    evil["meta"]["cfg"] = f"open({str(tmp_path / 'ran')!r}, 'w')"
    torch.save(evil, tmp_path / "evil.pth")
    assert main(["predict", DETECTOR, str(tmp_path / "evil.pth"), *arguments[1:]]) == 0
    assert not (tmp_path / "ran").exists()
    assert main(["predict", *arguments, "--trust-checkpoint-config"]) == 0
    assert sorted(file.name for file in out.iterdir()) == ["predictions.json"]


def test_a_segmentation_model_gives_masks_with_the_class_indices(models, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    config, checkpoint = str(models / "segmenter.py"), str(models / "segmenter.pth")
    assert main(["predict", config, checkpoint, str(pictures / "*" / "*.png"), "--out", str(out)]) == 0
    assert (out / "labels.txt").read_text(encoding="utf-8").split() == ["background", "road", "tree"]
    assert sorted(str(file.relative_to(out)) for file in out.rglob("*.png")) == [
        "drawn/a/same.png", "drawn/b/same.png", "masks/a/same.png", "masks/b/same.png",
    ]  # fmt: skip
    mask = Image.open(out / "masks/a/same.png")
    assert mask.mode == "P"
    assert mask.size == (96, 96)
    assert set(np.unique(mask)) <= {0, 1, 2}
    arguments = [config, checkpoint, str(pictures), "--out", str(out), "--score", "0.5"]
    assert "--score: a segmentation model has no scores" in error_of(capsys, arguments)


def test_what_cannot_be_done_is_one_line(models, pictures, tmp_path, capsys):
    checkpoint = str(models / "detector.pth")
    out = ["--out", str(tmp_path / "out")]
    for arguments, message in (
        ([DETECTOR, checkpoint], "IMAGE is missing"),
        ([DETECTOR, "x", "y"], "CHECKPOINT is missing: x does not end in .pth"),
        ([DETECTOR, checkpoint, "nowhere.png"], "nowhere.png: no such picture or folder"),
        ([DETECTOR, checkpoint, str(models)], "no picture in it"),
        ([DETECTOR, checkpoint, "x", "--score", "2"], "--score 2.0: must be a number from 0 to 1"),
        ([DETECTOR, checkpoint, str(pictures), "--device", "cuda:77"], "--device cuda:77"),
        (["mask_rcnn_ps_r50_fpn_1x", checkpoint, str(pictures)], "is not of this config's model"),
    ):
        assert message in error_of(capsys, [*arguments, *out])
        assert not (tmp_path / "out/predictions.json").exists()
    assert main(["predict", DETECTOR, checkpoint, str(pictures / "empty.jpg"), *out]) == 2
    note, error = capsys.readouterr().err.splitlines()
    assert "detector.pth says only what some of its layers compute" in note
    assert "the picture cannot be read" in error
    inside = pictures / "drawn"
    inside.mkdir()
    shutil.copy(pictures / "a/same.png", inside / "same.png")
    message = error_of(capsys, [DETECTOR, checkpoint, str(inside / "same.png"), "--out", str(pictures)])
    assert "is one of the pictures and would be replaced" in message


def test_names_of_results_are_unique_and_like_the_pictures(tmp_path):
    for name in (
        "x/cat.jpg",
        "x/cat.png",
        "y/cat.jpg",
        "y/z/dog.bmp",
        "y/.hidden/no.png",
        "y/note.txt",
        "y/OUT/old.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def names(*arguments: str) -> dict[str, str]:
        found = find_inputs([str(tmp_path / one) for one in arguments], tmp_path / "y/OUT")
        return {str(one.path.relative_to(tmp_path)): one.name for one in found}

    assert names("y") == {"y/cat.jpg": "cat", "y/z/dog.bmp": "z/dog"}
    assert names("x/cat.jpg", "y/cat.jpg", "x/cat.jpg") == {"x/cat.jpg": "x/cat", "y/cat.jpg": "y/cat"}
    assert names("x") == {"x/cat.jpg": "cat.jpg", "x/cat.png": "cat.png"}
    everything = names("x", "y", "y/z/*.bmp")
    assert len(everything) == len(set(everything.values())) == 4
    assert everything["y/z/dog.bmp"] == "z/dog"


@pytest.mark.needs(hasattr(os, "mkfifo"), reason="named pipes")
def test_a_named_pipe_is_not_waited_for(tmp_path):
    """In a folder or of a pattern it is skipped, by name it is refused; so is a link whose file is gone."""
    Image.new("L", (3, 2)).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to(tmp_path / "gone")
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    for argument in (tmp_path, tmp_path / "*.png"):
        found = find_inputs([str(argument)], tmp_path / "out")
        problems = {source.path.name: problem_of(source.path) for source in found}
        assert problems.pop("a.png") == ""
        assert problems.pop("b.png") == "unreadable: a named pipe, not a file"
        assert problems.pop("circle.png").startswith("unreadable: ")
        assert problems == {"gone": "missing"}
    for name, said in (
        ("b.png", "this is a named pipe, give a picture or folder"),
        ("c.png", "this is a link to a file that is missing, give a picture or folder"),
        ("d.png", "no such picture or folder"),
    ):
        with pytest.raises(UserError) as caught:
            find_inputs([str(tmp_path / name)], tmp_path / "out")
        assert str(caught.value) == f"{tmp_path / name}: {said}"
    assert problem_of(tmp_path / "a.png", 5) == "too large: 3 x 2 px; --max-pixels allows 5 in all"


MEMORY = """
import resource, sys
from mmms_plugin.commands import main
few, many, config, checkpoint, *options = sys.argv[1:]
for pictures in (few, few, many):  # the second run has its model in memory beside what is left of the first
    assert main(["predict", config, checkpoint, pictures, *options]) == 0
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_many_pictures_in_bounded_memory(models, shapes, tmp_path):
    """The largest resident size after 16 pictures is that after 4, within 16 MB.

    A picture takes 1.7 MB, its ten masks 5.6 MB: 12 of either are more than that.
    """
    folder = tmp_path / "many"
    folder.mkdir()
    Image.open(next((shapes / "images").glob("*.png"))).resize((768, 768)).save(folder / "00.png")
    for i in range(1, 16):
        shutil.copy(folder / "00.png", folder / f"{i:02}.png")
    options = [f"model.test_cfg.{key}" for key in ("rpn.nms_pre=100", "rcnn.score_thr=0", "rcnn.max_per_img=10")]
    arguments = [DETECTOR, str(models / "detector.pth"), "--out", str(tmp_path / "out"), "--cfg-options", *options]
    patterns = [str(folder / pattern) for pattern in ("0[0-3].png", "*.png")]
    command = [sys.executable, "-c", MEMORY, *patterns, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peaks = [int(line) / 1024 for line in done.stdout.splitlines() if line.isdigit()]
    content = json.loads((tmp_path / "out/predictions.json").read_text(encoding="utf-8"))
    assert content["images"][-1]["id"] == 16
    assert len(content["annotations"]) == 160
    assert peaks[2] < peaks[1] + 16
