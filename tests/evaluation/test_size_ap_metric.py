"""SizeAPMetric in CocoMetric's place: the same figures under the same keys, unrounded, and those of the bins."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger

from mmms_plugin.coco.read import read_detections, read_ground_truth
from mmms_plugin.errors import UserError
from mmms_plugin.registry import METRICS
from mmms_plugin.size_ap.evaluate import evaluate
from mmms_plugin.size_ap.options import Options
from tests.size_ap.size_ap_data import HEIGHT, WIDTH, pycocotools_eval, random_coco, with_masks

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
    evaluator = Evaluator({"type": kind, "metric": ["bbox", "segm"], **options})
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


BINS = "tiny=0:16,small=16:32,large=32:inf"
OPTIONS = {  # of the metric, and of the command
    "intervals": (dict(bins=BINS, bootstrap=20), dict(bins=BINS, replicates=20)),
    "all of the bootstrap": (
        dict(bins=BINS.split(","), bootstrap=20, confidence=0.6, seed=3, area="box"),
        dict(bins=BINS, replicates=20, confidence=0.6, seed=3, area="box"),
    ),
    "bins of areas with gaps": (
        dict(bins="a=0:300,b=400:900,c=800:inf", bin_unit="area", allow_gaps=True, allow_overlaps=True, max_dets=3),
        dict(bins="a=0:300,b=400:900,c=800:inf", bin_unit="area", allow_gaps=True, allow_overlaps=True, max_dets=3),
    ),
    "quantiles of masks": (
        dict(bins=" Quantiles:3", area="mask", iou_thrs=(0.4, 0.75)),
        dict(bins="quantiles:3", area="mask", thresholds=(0.4, 0.75)),
    ),
    "one threshold": (dict(iou_thrs=0.5, classwise=True), dict(thresholds=(0.5,))),
    "relative": (dict(bins=[0, 0.1, 0.3, 1], bin_unit="relative"), dict(bins="0,0.1,0.3,1", bin_unit="relative")),
    "tiles": (dict(bin_unit="relative", tiles=64), dict(bin_unit="relative", tiles=(64, 64))),
    "resized": (dict(resize=[256, 128]), dict(resize=(256, 128))),
}


@pytest.mark.parametrize(("options", "offline"), OPTIONS.values(), ids=OPTIONS)
def test_equals_the_offline_command(data, ann_file, tmp_path, monkeypatch, options, offline):
    told = []
    monkeypatch.setattr(MMLogger, "info", lambda self, text: told.append(text))
    ours = run(data, ann_file=ann_file, outfile_prefix=str(tmp_path / "kept"), **options)
    masks = offline.get("area") == "mask"
    truth, _ = read_ground_truth(ann_file, masks=True)
    keys = set()
    for kind in ("bbox", "segm"):
        file = tmp_path / f"kept.{'segm' if masks else kind}.json"  # sizes of masks need the file that holds them
        found, _ = read_detections(file, truth, masks=masks or kind == "segm")
        results = evaluate(truth, [found], Options(iou_type=kind, **offline))
        for bin_ in results.runs[0].bins[1:]:
            wanted = dict(mAP=bin_.ap, mAP_50=bin_.ap50, mAP_75=bin_.ap75, AR=bin_.ar)
            names = {name: f"coco/{kind}_{name}_{bin_.bin.name}" for name in wanted}
            if limits := bin_.intervals.get("ap"):
                wanted |= dict(low=limits.low, high=limits.high)
                names |= {end: f"coco/{kind}_mAP_{bin_.bin.name}_{end}" for end in ("low", "high")}
            values = np.array([math.nan if value is None else value for value in wanted.values()])
            np.testing.assert_array_equal([ours[names[name]] for name in wanted], values)
            keys |= {*names.values()}
        (words,) = [text for text in told if text.startswith(f"{kind}, {results.area_rule}; {results.edge_rule}\n")]
        assert all(f"| {bin_.bin.name} " in words for bin_ in results.runs[0].bins)
    own = {f"coco/{kind}_{name}" for kind in ("bbox", "segm") for name in STOCK}
    classes = {f"coco/{name}_precision" for name in truth.category_names} if options.get("classwise") else set()
    assert set(ours) == keys | own | classes


def test_sizes_after_the_test_pipeline_are_those_that_samples_report(data, ann_file, monkeypatch):
    with pytest.raises(UserError, match="resize='pipeline': samples have no scale_factor"):
        run(data, ann_file=ann_file, resize="pipeline")
    plain = run(data, ann_file=ann_file)
    own = samples

    def scaled(data, instances):
        return [sample | dict(scale_factor=(2.0, 1.5)) for sample in own(data, instances)]

    monkeypatch.setitem(globals(), "samples", scaled)
    resized = run(data, ann_file=ann_file, resize="pipeline")
    low, high = 32 / 3**0.5, 96 / 3**0.5
    small = run(data, ann_file=ann_file, bins=f"small=0:{low},medium={low}:{high},large={high}:inf")
    for name in ("bbox_mAP_small", "segm_AR_medium", "bbox_mAP_50_large"):
        assert resized[f"coco/{name}"] == pytest.approx(small[f"coco/{name}"], nan_ok=True)
    for name in STOCK:
        assert resized[f"coco/bbox_{name}"] == pytest.approx(plain[f"coco/bbox_{name}"], nan_ok=True)


def test_without_annotation_file_masks_are_sized_by_their_pixels(data, ann_file):
    """CocoMetric sizes them by their boxes, so that its size bins are not those of the annotations."""
    with_file, without = run(data, ann_file=ann_file), run(data, instances=True)
    for name in STOCK:
        assert without[f"coco/segm_{name}"] == pytest.approx(with_file[f"coco/segm_{name}"], abs=1e-9, nan_ok=True)
    stock = run(data, instances=True, kind="mmdet.CocoMetric")
    assert abs(stock["coco/segm_mAP_m"] - with_file["coco/segm_mAP_m"]) > 0.01
    assert without["coco/bbox_mAP_m"] == pytest.approx(stock["coco/bbox_mAP_m"], abs=6e-4)


def test_boxes_alone_are_sized_by_masks_too(data, ann_file):
    both, boxes = (run(data, ann_file=ann_file, area="mask", metric=metric) for metric in (["bbox", "segm"], "bbox"))
    assert boxes.keys() == {key for key in both if "bbox" in key}
    assert all(value == pytest.approx(both[key], abs=0, nan_ok=True) for key, value in boxes.items())
    assert boxes != pytest.approx(run(data, ann_file=ann_file, area="box", metric="bbox"), nan_ok=True)


def test_proposals_and_chosen_items(data, ann_file):
    both = [run_proposals(data, ann_file, kind) for kind in ("mmms_plugin.SizeAPMetric", "mmdet.CocoMetric")]
    assert set(both[0]) == set(both[1])
    assert_rounded(both[1], both[0])
    chosen = run(data, ann_file=ann_file, metric_items=["mAP", "AR@100"])
    assert "coco/bbox_AR@100" in chosen
    assert "coco/bbox_mAP_s" not in chosen


@pytest.mark.parametrize("numbers", [(30, 2), (3, 1, 2, 30), (100,)])
def test_recall_of_other_numbers_of_proposals(data, ann_file, numbers):
    """The first three of the sorted numbers, and the last for the sizes; NaN where there are fewer."""
    found = run_proposals(data, ann_file, "mmms_plugin.SizeAPMetric", proposal_nums=numbers)
    numbers = sorted(numbers)
    oracle = pycocotools_eval(*data[:2], use_cats=0, max_dets=numbers)
    recalls = oracle.eval["recall"]  # thresholds, classes, sizes, numbers
    wanted = [recalls[:, 0, 0, i].mean() for i in range(len(numbers[:3]))]
    wanted += [math.nan] * (3 - len(wanted)) + [recalls[:, 0, size, -1].mean() for size in (1, 2, 3)]
    wanted = [value if value >= 0 else math.nan for value in wanted]
    assert list(found.values()) == pytest.approx(wanted, nan_ok=True)


@pytest.mark.parametrize(
    ("wrong", "recalls"),
    [(99, (1, 1, 1)), (100, (0, 1, 1)), (299, (0, 1, 1)), (300, (0, 0, 1)), (999, (0, 0, 1)), (1000, (0, 0, 0))],
)
def test_how_many_detections_count(tmp_path, wrong, recalls):
    """The only right one is the last: as the 100th it counts, as the 101st it does not. Recall goes to 300 and 1000."""
    found = recalls[0] / 100
    coco = dict(
        images=[dict(id=1, width=WIDTH, height=HEIGHT)],
        categories=[dict(id=1, name="cat")],
        annotations=[dict(id=1, image_id=1, category_id=1, bbox=[8, 8, 16, 16], area=256, iscrowd=0)],
    )
    results = [dict(image_id=1, category_id=1, bbox=[60, 60, 8, 8], score=0.5)] * wrong
    results += [dict(image_id=1, category_id=1, bbox=[8, 8, 16, 16], score=0.25)]
    coco, masks = with_masks(coco, results)
    path = tmp_path / "ann.json"
    path.write_text(json.dumps(coco, default=lambda counts: counts.decode()), encoding="utf-8")
    ours = run((coco, results, masks), ann_file=str(path))
    assert ours["coco/bbox_mAP"] == pytest.approx(found)
    assert ours["coco/bbox_mAP_small"] == pytest.approx(found)
    chosen = run((coco, results, masks), ann_file=str(path), metric_items=["AR@100", "AR@300", "AR@1000"])
    assert [chosen[f"coco/bbox_AR@{number}"] for number in (100, 300, 1000)] == pytest.approx(recalls)
    few = run((coco, results, masks), ann_file=str(path), proposal_nums=(1, 10, 50))
    assert (few["coco/bbox_mAP"], few["coco/bbox_mAP_small"]) == (0, pytest.approx(found))


@pytest.mark.parametrize("options", [dict(sort_categories=True), dict(classes=(2, 0))])
def test_labels_count_the_classes_of_the_data_set_as_cocometric_does(data, ann_file, options):
    """In the file's order, which ``sort_categories`` changes; classes that the data set leaves out are left out."""
    names = [category["name"] for category in data[0]["categories"]]
    chosen = tuple(names[i] for i in options.pop("classes", (0, 1, 2)))
    found = []
    for kind in ("mmms_plugin.SizeAPMetric", "mmdet.CocoMetric"):
        evaluator = Evaluator(dict(type=kind, metric=["bbox"], ann_file=ann_file, **options))
        evaluator.dataset_meta = dict(classes=chosen)
        for sample in samples(data):
            known = sample["pred_instances"]["labels"] < len(chosen)
            prediction = {k: v[known] for k, v in sample["pred_instances"].items() if k != "masks"}
            evaluator.process([dict(sample, pred_instances=prediction)], None)
        found.append(evaluator.evaluate(len(data[0]["images"])))
    assert_rounded(found[1], found[0])
    assert found[0]["coco/bbox_mAP"] < 0.5


def test_masks_that_a_model_does_not_give_are_named(data, ann_file):
    evaluator = Evaluator(dict(type="mmms_plugin.SizeAPMetric", metric="segm", ann_file=ann_file))
    evaluator.dataset_meta = dict(classes=tuple(c["name"] for c in data[0]["categories"]))
    for sample in samples(data):
        del sample["pred_instances"]["masks"]
        evaluator.process([sample], None)
    with pytest.raises(KeyError, match="segm is not in results"):
        evaluator.evaluate(len(data[0]["images"]))


def run_proposals(data, ann_file: str, kind: str, **options) -> dict[str, float]:
    evaluator = Evaluator(dict(type=kind, metric="proposal", ann_file=ann_file, **options))
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
        (dict(bootstrap=-1), "--bootstrap -1: must be an integer from 0"),
        (dict(metric=["bbox", "proposal_fast"]), "use 'proposal'"),
        (dict(bins=["small=0:10", "large=20:30"]), "10 to 20 is in no bin"),
        (dict(bins="a=0:9,b=8:30"), "8 to 9 is in"),
        (dict(confidence=1), "--confidence 1: must be"),
        (dict(bin_unit="shares"), "--bin-unit 'shares': allowed are"),
        (dict(resize="big"), "resize='big': must be WIDTHxHEIGHT"),
        (dict(resize="pipeline", tiles=64), "resize='pipeline': does not know tiles"),
    ],
)
def test_wrong_options_are_refused_when_the_config_is_built(options, message):
    with pytest.raises(UserError, match=message):
        METRICS.build(dict(type="mmms_plugin.SizeAPMetric", **options))


def test_unknown_items_are_refused_when_the_config_is_built():
    with pytest.raises(KeyError, match=r"metric_items \['AR@7', 'mAR'\]: allowed are mAP, mAP_50, .*, AR_l@1000"):
        METRICS.build(dict(type="mmms_plugin.SizeAPMetric", metric_items=["mAP", "mAR", "AR@7"]))
    METRICS.build(dict(type="mmms_plugin.SizeAPMetric", metric_items=["mAP", "AR@100"]))


def test_a_config_trains_validates_and_keeps_the_best_by_a_bin(shapes: Path, tmp_path: Path):
    from mmms_plugin.commands import main

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


def test_annotation_id_0_counts_as_in_every_command_and_both_figures_are_logged(data, tmp_path, monkeypatch):
    coco, told, figures = data[0], [], []
    monkeypatch.setattr(MMLogger, "warning", lambda _, message: told.append(message))
    for start in (1, 0):
        annotations = [dict(a, id=start + (i - 3) % 100) for i, a in enumerate(coco["annotations"])]
        path = tmp_path / f"from{start}.json"
        path.write_text(json.dumps(dict(coco, annotations=annotations), default=bytes.decode), encoding="utf-8")
        figures.append(run(data, ann_file=str(path), metric="bbox"))
    assert figures[0] == pytest.approx(figures[1], nan_ok=True)
    assert sum("annotations without an integer id above 0" in line for line in told) == 1
    theirs = 100 * pycocotools_eval(dict(coco, annotations=annotations), data[1], "bbox").stats[0]
    ours = 100 * figures[1]["coco/bbox_mAP"]
    assert abs(ours - theirs) > 0.05
    assert sum(f"AP {ours:.1f} (× 100); pycocotools gives {theirs:.1f}," in line for line in told) == 1
