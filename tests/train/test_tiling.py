"""``--tiles``: a detector trained and run on tiles, compared with pictures that were cut by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS
from PIL import Image
from pycocotools import mask as mask_utils

from mmms_plugin import Model
from mmms_plugin.commands import main
from mmms_plugin.registry import use_scope
from mmms_plugin.tiles.grid import tiles_in
from mmms_plugin.train.tiling import _enlarged
from tests.oracles.merging import merge, overlap

CONFIG = "demo/mask_rcnn_ps_r18_shapes"
SIZE, OVERLAP = 64, 0.25
TILES = ["--tiles", str(SIZE), "--overlap", str(OVERLAP)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """The work folder of a training on tiles; its last checkpoint is ``iter_2.pth``."""
    work = tmp_path_factory.mktemp("tiles") / "work"
    options = ["--coco-dir", str(shapes), "--work-dir", str(work), "--image-size", str(SIZE), "--workers", "1"]
    assert main(["train", CONFIG, *TILES, *options, "--iters", "2", "--batch-size", "2", "--seed", "1"]) == 0
    return work


def test_a_training_names_the_test_on_tiles(trained: Path, shapes: Path, capfd) -> None:
    log = next(trained.glob("*/*.log")).read_text(encoding="utf-8")
    assert "--tiles 64: trained and evaluated on tiles, merged by nms (ios >= 0.5)" in log
    assert (trained / "samples/iter_2.jpg").is_file()
    config = Config.fromfile(trained / f"{Path(CONFIG).name}.py")
    use_scope("mmdet")
    tiles = DATASETS.build(config.train_dataloader.dataset)
    truth = json.loads((shapes / "annotations/instances_train.json").read_text(encoding="utf-8"))
    counted = 0
    for i in range(len(tiles)):
        info, sample = tiles.get_data_info(i), tiles[i]
        left, top, right, bottom = info["tile"]
        with Image.open(info["img_path"]) as picture:
            expected = np.asarray(picture.convert("RGB"))[top:bottom, left:right, ::-1]
        shown = sample["inputs"].permute(1, 2, 0).numpy()
        if sample["data_samples"].metainfo.get("flip"):
            shown = shown[:, ::-1]
        assert np.array_equal(shown, expected)
        objects = sample["data_samples"].gt_instances
        assert len(objects) == sum(not part["ignore_flag"] for part in info["instances"])
        assert objects.masks.masks.shape == (len(objects), SIZE, SIZE)
        assert objects.masks.masks.any((1, 2)).all()
        counted += len(objects)
    assert counted >= len(truth["annotations"])


def test_predictions_are_those_of_the_tiles_merged(trained: Path, shapes: Path, tmp_path: Path) -> None:
    """A model of few iterations predicts many doubtful objects."""
    picture = shapes / "images/val_000000.png"
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    model = Model(CONFIG, trained / "iter_2.pth")
    options = dict(
        image_size=SIZE, cfg_options={"model.test_cfg.rcnn.score_thr": 0.05, "model.test_cfg.rcnn.max_per_img": 15}
    )
    tiles = tiles_in(96, 96, SIZE, OVERLAP)
    assert len(tiles) == 4
    parts = model.predict([pixels[t.top : t.bottom, t.left : t.right] for t in tiles], score=0.05, **options)
    boxes = np.concatenate([part.boxes + np.tile(tile[:2], 2) for part, tile in zip(parts, tiles, strict=True)])
    scores, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("scores", "labels"))
    assert len(boxes) > 20
    for method in ("nms", "nmm"):
        (found,) = model.predict(picture, score=0.05, tiles=SIZE, overlap=OVERLAP, merge=method, **options)
        expected = merge(boxes.tolist(), scores.tolist(), labels.tolist(), method, "ios", 0.5)
        assert 0 < len(found) == len(expected) < len(boxes)
        assert np.allclose(found.scores, [score for score, _, _ in expected])
        assert np.allclose(found.boxes, [box for _, _, box in expected], atol=1e-3)
        assert found.labels.tolist() == [label for _, label, _ in expected]
        assert found.masks.shape == (len(found), 96, 96)
    whole = np.zeros((len(boxes), 96, 96), bool)
    masks = [mask for part in parts for mask in part.masks]
    places = [tile for part, tile in zip(parts, tiles, strict=True) for _ in range(len(part))]
    for mask, place, (left, top, right, bottom) in zip(masks, whole, places, strict=True):
        place[top:bottom, left:right] = mask
    (found,) = model.predict(picture, score=0.05, tiles=SIZE, overlap=OVERLAP, **options)
    kept = [int(np.argmin(np.abs(scores - score))) for score in found.scores]
    assert np.array_equal(found.masks, whole[kept])


def test_the_whole_picture_is_one_more_tile(trained: Path, shapes: Path) -> None:
    model = Model(CONFIG, trained / "iter_2.pth")
    options = dict(
        image_size=48, cfg_options={"model.test_cfg.rcnn.score_thr": 0.05, "model.test_cfg.rcnn.max_per_img": 15}
    )
    picture = shapes / "images/val_000000.png"
    (plain,) = model.predict(picture, score=0.05, **options)
    (tiled,) = model.predict(
        picture, score=0.05, tiles=90, whole=True, match_metric="iou", match_threshold=1.0, **options
    )
    assert len(plain)
    for box, label, score in zip(plain.boxes, plain.labels, plain.scores, strict=True):
        near = np.abs(tiled.boxes - box).max(1) + np.abs(tiled.scores - score) + (tiled.labels != label)
        assert near.min() < 0.05
    left, top, right, bottom = tiled.boxes.T
    for i, mask in enumerate(tiled.masks):
        rows, columns = np.nonzero(mask)
        assert ((columns > left[i] - 3) & (columns < right[i] + 2) & (rows > top[i] - 3) & (rows < bottom[i] + 2)).all()


def test_masks_of_a_resized_picture_are_enlarged() -> None:
    y, x = np.mgrid[:60, :80] + 0.5
    small = ((x - 31) ** 2 + (y - 22) ** 2 < 15**2).astype(np.uint8)
    picture = np.zeros((240, 320, 3), np.uint8)
    large = mask_utils.decode(_enlarged(small, np.array([0.25, 0.25]), picture)).astype(bool)
    y, x = np.mgrid[:240, :320] + 0.5
    true = (x - 124) ** 2 + (y - 88) ** 2 < 60**2
    assert large.shape == (240, 320)
    assert (large & true).sum() > 0.96 * (large | true).sum()
    assert not mask_utils.area(_enlarged(0 * small, np.array([0.25, 0.25]), picture))


def test_evaluations_merge_as_predictions_do(trained: Path, shapes: Path, tmp_path: Path, capfd) -> None:
    data = ["--coco-dir", str(shapes), "--workers", "0", "--work-dir", str(tmp_path / "work")]
    size, checkpoint = ["--image-size", str(SIZE)], str(trained / "iter_2.pth")
    out = [tmp_path / "asked.json", tmp_path / "saved.json"]
    assert main(["test", CONFIG, checkpoint, *data, *size, *TILES, "--out", str(out[0])]) == 0
    saved = str(trained / f"{Path(CONFIG).name}.py")
    assert main(["test", saved, checkpoint, *data, "--out", str(out[1]), "--show-dir", str(tmp_path / "drawn")]) == 0
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 2
    asked, same = (json.loads(file.read_text(encoding="utf-8")) for file in out)
    assert asked == same, "a config that was saved by a training on tiles is evaluated on tiles"
    picture = str(shapes / "images/val_000000.png")
    assert main(["predict", saved, checkpoint, picture, "--no-draw", "--score", "0", "--out", str(tmp_path)]) == 0
    first = json.loads((tmp_path / "predictions.json").read_text(encoding="utf-8"))
    of_first = [record for record in asked if record["image_id"] == asked[0]["image_id"]]
    assert len(of_first) == len(first["annotations"]) > 0
    for one, other in zip(of_first, first["annotations"], strict=True):
        assert np.allclose(one["bbox"], other["bbox"], atol=0.01)
        assert one["segmentation"] == other["segmentation"]
    corners = [[x, y, x + w, y + h] for x, y, w, h in (record["bbox"] for record in of_first)]
    assert all(overlap(a, b, "ios") < 0.5 or of_first[i]["category_id"] != of_first[j]["category_id"]
               for i, a in enumerate(corners) for j, b in enumerate(corners[:i]))  # fmt: skip
    assert mask_utils.decode(of_first[0]["segmentation"]).shape == (96, 96)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", CONFIG, "--overlap", "0.1"], "--overlap: give the size of the tiles too, with --tiles SIZE"),
        (["train", CONFIG, "--tiles", "8"], "--tiles 8: must be an integer of at least 16"),
        (["test", CONFIG, "{checkpoint}", "--tiles", "64", "--overlap", "1"], "--overlap 1.0: must be a number from 0"),
        (["train", "deeplabv3_ps_r50_voc12aug", "--voc-dir", "{shapes}", "--tiles", "64"],
         "--tiles: this config is a segmentation model; tiles are for detectors"),
        (["train", CONFIG, "--coco-dir", "{shapes}", "--tiles", "64", "--cfg-options",
          "train_dataloader.dataset.pipeline=[dict(type=RandomFlip, prob=0.5)]"],
         "--tiles: the pipeline of the train data must begin by loading the picture (LoadImageFromFile)"),
        (["train", CONFIG, "--coco-dir", "{shapes}", "--tiles", "64", "--cfg-options",
          "val_dataloader.dataset.pipeline=[dict(type=LoadImageFromFile)]"],
         "--tiles: the pipeline of the val data must end by packing (PackDetInputs)"),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_is_one_line(words, message, trained, shapes, tmp_path, capfd) -> None:
    words = [word.format(checkpoint=trained / "iter_2.pth", shapes=shapes) for word in words]
    capfd.readouterr()
    assert main([*words, "--work-dir", str(tmp_path / "work")]) == 2
    assert message in capfd.readouterr().err
