"""SizeAPMetric in CocoMetric's place: the same figures under the same keys, unrounded, and those of the bins."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator

from mmms_plugin.analysis.size_ap.evaluate import Options, evaluate
from mmms_plugin.analysis.size_ap.reading.read import read_detections, read_ground_truth
from mmms_plugin.errors import UserError
from mmms_plugin.registry import METRICS
from tests.analysis.size_ap_data import HEIGHT, WIDTH, pycocotools_eval, random_coco, with_masks

STOCK = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")


@pytest.fixture(scope="module")
def data() -> tuple[dict, list[dict], list[dict]]:
    """Annotations with masks, results with boxes, the same results with masks too; scores distinct in float32."""
    coco, results = random_coco(4, images=8, classes=3, detections=25)
    for result in results:
        result["bbox"] = np.float32(result["bbox"]).tolist()
        result["score"] = float(np.float32(result["score"]))
    coco, masks = with_masks(coco, results)
    return coco, results, masks


@pytest.fixture(scope="module")
def ann_file(data, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("metric") / "instances.json"
    path.write_text(json.dumps(data[0], default=lambda counts: counts.decode()), encoding="utf-8")
    return str(path)


def samples(data, instances: bool = False) -> list[dict]:
    """What a model's test step hands to a metric, one image each."""
    coco, results, masks = data
    # mmdet counts labels in the order of the file's categories
    label = {category["id"]: i for i, category in enumerate(coco["categories"])}
    output = []
    for image in coco["images"]:
        here = [i for i, r in enumerate(results) if r["image_id"] == image["id"]]
        boxes = torch.tensor([results[i]["bbox"] for i in here], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        prediction = dict(
            bboxes=boxes,
            scores=torch.tensor([results[i]["score"] for i in here]),
            labels=torch.tensor([label[results[i]["category_id"]] for i in here], dtype=torch.long),
            masks=[dict(masks[i]["segmentation"]) for i in here],
        )
        sample = dict(img_id=image["id"], ori_shape=(HEIGHT, WIDTH), pred_instances=prediction)
        if instances:
            sample["instances"] = [_instance(a, label) for a in coco["annotations"] if a["image_id"] == image["id"]]
        output.append(sample)
    return output


def _instance(annotation: dict, label: dict[int, int]) -> dict:
    x, y, w, h = annotation["bbox"]
    return dict(
        bbox=[x, y, x + w, y + h],
        bbox_label=label[annotation["category_id"]],
        ignore_flag=annotation["iscrowd"],
        mask=dict(annotation["segmentation"]),
    )


def run(data, instances: bool = False, kind: str = "mmms_plugin.SizeAPMetric", **options) -> dict[str, float]:
    evaluator = Evaluator(dict(type=kind, metric=["bbox", "segm"], **options))
    evaluator.dataset_meta = dict(classes=tuple(c["name"] for c in data[0]["categories"]))
    for sample in samples(data, instances):
        evaluator.process([sample], None)
    return evaluator.evaluate(len(data[0]["images"]))


def test_equals_pycocotools_and_cocometric(data, ann_file):
    ours = run(data, ann_file=ann_file, classwise=True)
    coco, results, masks = data
    for kind, found in (("bbox", results), ("segm", masks)):
        oracle = pycocotools_eval(coco, found, kind)
        stats = oracle.stats
        values = [ours[f"coco/{kind}_{name}"] for name in STOCK]
        np.testing.assert_allclose(np.nan_to_num(values, nan=-1), stats[:6], atol=1e-9, rtol=0)
    names = [f"class {i}_precision" for i in oracle.params.catIds]
    by_class = oracle.eval["precision"][:, :, :, 0, -1].mean((0, 1))
    np.testing.assert_allclose([ours[f"coco/{name}"] for name in names], by_class, atol=1e-9, rtol=0)
    stock = run(data, kind="mmdet.CocoMetric", ann_file=ann_file, classwise=True)
    assert set(stock) <= set(ours)
    assert_rounded(stock, ours)
    assert ours["coco/segm_mAP_small"] == ours["coco/segm_mAP_s"]


def assert_rounded(stock: dict[str, float], ours: dict[str, float]) -> None:
    """CocoMetric's figures are ours in three decimals, or -1 or NaN where ours are NaN."""
    for key, value in stock.items():
        assert ours[key] == pytest.approx(value if value >= 0 else math.nan, abs=6e-4, nan_ok=True), key


def test_equals_the_offline_command(data, ann_file, tmp_path):
    options = dict(bins="tiny=0:16,small=16:32,large=32:inf", bootstrap=20)
    ours = run(data, ann_file=ann_file, outfile_prefix=str(tmp_path / "kept"), **options)
    truth, _ = read_ground_truth(ann_file, masks=True)
    for kind in ("bbox", "segm"):
        found, _ = read_detections(tmp_path / f"kept.{kind}.json", truth, masks=kind == "segm")
        results = evaluate(truth, [found], Options(kind, bins=options["bins"], replicates=20))
        for bin_ in results.runs[0].bins[1:]:
            assert ours[f"coco/{kind}_mAP_{bin_.bin.name}"] == bin_.ap
            assert ours[f"coco/{kind}_AR_{bin_.bin.name}"] == bin_.ar
            assert ours[f"coco/{kind}_mAP_{bin_.bin.name}_low"] == bin_.intervals["ap"].low


def test_without_annotation_file_masks_are_sized_by_their_pixels(data, ann_file):
    """CocoMetric sizes them by their boxes, so that its size bins are not those of the annotations."""
    with_file, without = run(data, ann_file=ann_file), run(data, instances=True)
    for name in STOCK:
        assert without[f"coco/segm_{name}"] == pytest.approx(with_file[f"coco/segm_{name}"], abs=1e-9, nan_ok=True)
    stock = run(data, instances=True, kind="mmdet.CocoMetric")
    assert abs(stock["coco/segm_mAP_m"] - with_file["coco/segm_mAP_m"]) > 0.01
    assert without["coco/bbox_mAP_m"] == pytest.approx(stock["coco/bbox_mAP_m"], abs=6e-4)


def test_proposals_and_chosen_items(data, ann_file):
    both = [run_proposals(data, ann_file, kind) for kind in ("mmms_plugin.SizeAPMetric", "mmdet.CocoMetric")]
    assert set(both[0]) == set(both[1])
    assert_rounded(both[1], both[0])
    chosen = run(data, ann_file=ann_file, metric_items=["mAP", "AR@100"])
    assert "coco/bbox_AR@100" in chosen
    assert "coco/bbox_mAP_s" not in chosen


def run_proposals(data, ann_file: str, kind: str) -> dict[str, float]:
    evaluator = Evaluator(dict(type=kind, metric="proposal", ann_file=ann_file))
    evaluator.dataset_meta = dict(classes=tuple(c["name"] for c in data[0]["categories"]))
    for sample in samples(data):
        evaluator.process([sample], None)
    return evaluator.evaluate(len(data[0]["images"]))


def test_undefined_figures_are_nan_and_format_only_writes_files(data, ann_file, tmp_path):
    figures = run(data, ann_file=ann_file, bins="usual=0:200,giant=200:inf")
    assert math.isnan(figures["coco/bbox_mAP_giant"])
    assert not any(value == -1 for value in figures.values())
    assert run(data, ann_file=ann_file, format_only=True, outfile_prefix=str(tmp_path / "kept")) == {}
    assert {path.name for path in tmp_path.iterdir()} == {"kept.bbox.json", "kept.segm.json"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(bins="small=0:10,large=20:30"), "10 to 20 is in no bin"),
        (dict(area="hull"), "allowed are annotation, box, mask"),
        (dict(metric="proposal_fast"), "use 'proposal'"),
        (dict(bootstrap=-1), "bootstrap=-1: must be an integer from 0"),
    ],
)
def test_wrong_options_are_refused_when_the_config_is_built(options, message):
    with pytest.raises(UserError, match=message):
        METRICS.build(dict(type="mmms_plugin.SizeAPMetric", **options))


def test_a_config_trains_validates_and_keeps_the_best_by_a_bin(shapes: Path, tmp_path: Path):
    from mmms_plugin.cli import main

    quick = [
        "custom_hooks=[]", "val_evaluator.type=mmms_plugin.SizeAPMetric", "val_evaluator.bins=tiny=0:16,rest=16:inf",
        "test_evaluator.type=mmms_plugin.SizeAPMetric", "default_hooks.checkpoint.save_best=coco/segm_mAP_50_rest",
        "train_cfg.max_iters=2", "train_cfg.val_interval=2",
        *(f"{split}_dataloader.{key}" for split in ("train", "val", "test")
          for key in ("batch_size=2", "num_workers=0", "persistent_workers=False")),
    ]  # fmt: skip
    arguments = ["demo/mask_rcnn_ps_r18_shapes", "--coco-dir", str(shapes), "--work-dir", str(tmp_path)]
    assert main(["train", *arguments, "--cfg-options", *quick]) == 0
    assert list(tmp_path.glob("best_coco_segm_mAP_50_rest_*.pth"))
    out = tmp_path / "predictions.json"
    checkpoint = str(next(tmp_path.glob("iter_2.pth"), None) or next(tmp_path.glob("best_*.pth")))
    assert main(["test", *arguments[:1], checkpoint, *arguments[1:], "--out", str(out), "--cfg-options", *quick]) == 0
    assert isinstance(json.loads(out.read_text(encoding="utf-8")), list)
