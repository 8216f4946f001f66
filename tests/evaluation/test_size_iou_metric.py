"""Segmentation by region size: equal to a slow oracle, to mmseg's own figures, and written as files."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook
from mmengine.logging import MMLogger

from mmms_plugin.errors import UserError
from mmms_plugin.registry import METRICS
from mmms_plugin.size_ap.size_iou import RegionOptions, evaluate_regions, image_regions, join_images
from mmms_plugin.train.tasks import TASKS, Segmentation

CLASSES = ("background", "cat", "<b>dog</b>", "never")
BINS = "dot=0:2,small=2:5,rest=5:inf"


def label_maps(seed: int, images: int = 6) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of truth, with void and an unknown label, and a disturbed prediction."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(images):
        coarse = rng.choice(3, (rng.integers(2, 6), rng.integers(2, 6)), p=[0.5, 0.3, 0.2])
        truth = np.kron(coarse, np.ones((4, 5), int)).astype(np.uint8)
        predicted = np.roll(truth, rng.integers(-2, 3, 2), (0, 1))
        predicted = np.where(rng.random(truth.shape) < 0.1, rng.integers(0, 3, truth.shape), predicted)
        truth = np.where(rng.random(truth.shape) < 0.03, rng.integers(0, 3, truth.shape), truth).astype(np.uint8)
        truth[rng.random(truth.shape) < 0.1] = 255
        truth[0, 0] = 7
        pairs.append((truth, predicted))
    return pairs


def components(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """8-connected sets of pixels, by a flood fill."""
    left, found = set(map(tuple, np.argwhere(mask).tolist())), []
    while left:
        edge = [left.pop()]
        one = set(edge)
        while edge:
            y, x = edge.pop()
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            one |= near
            edge += near
        found.append(one)
    return found


def oracle(pairs, low: float, high: float) -> tuple[list[float], int, int]:
    """IoU, recall, share found (means over regions, then classes), numbers of regions and of stray predictions."""
    per_class, stray, total = defaultdict(list), 0, 0
    for truth, predicted in pairs:
        known = set(map(tuple, np.argwhere((truth != 255) & (truth < len(CLASSES))).tolist()))
        for category in range(len(CLASSES)):
            regions = components(truth == category)
            guesses = [(one & known) for one in components(predicted == category)]
            stray += sum(low <= len(g) < high and bool(g) and not any(g & r for r in regions) for g in guesses)
            for region in regions:
                if not low <= len(region) < high:
                    continue
                total += 1
                others = set().union(*(r for r in regions if r is not region))
                touching = set().union(*(g for g in guesses if g & region))
                iou = len(region & touching) / len((region | touching) - others)
                per_class[category].append((iou, len(region & touching) / len(region), float(iou >= 0.5)))
    means = np.mean([np.mean(rows, 0) for rows in per_class.values()], 0) if per_class else [np.nan] * 3
    return list(means), total, stray


def evaluated(pairs, **options):
    regions = join_images(image_regions(*pair, len(CLASSES)) for pair in pairs)
    return evaluate_regions(regions, CLASSES, RegionOptions(bins=BINS, **{"min_area": 1} | options))


@pytest.mark.parametrize("seed", range(4))
def test_equals_a_slow_oracle(seed):
    pairs = label_maps(seed)
    for row in evaluated(pairs).bins:
        figures, regions, stray = oracle(pairs, row.bin.low, row.bin.high)
        np.testing.assert_allclose(np.array([row.iou, row.recall, row.found], float), figures, rtol=1e-12)
        assert (row.regions, row.stray) == (regions, stray)


def test_a_prediction_grown_over_the_void_border_counts():
    truth = np.zeros((1, 6), np.uint8)
    truth[0, 1:3], truth[0, 3] = 1, 255
    predicted = np.array([[0, 1, 1, 1, 1, 0]])
    found, stray = image_regions(truth, predicted, 2)
    assert found[found[:, 0] == 1].tolist() == [[1, 2, 2, 1]]
    assert not len(stray[stray[:, 0] == 1])


def test_intervals_are_those_of_drawn_images():
    pairs = label_maps(9, images=5)
    draws = [np.random.default_rng([3, i]).integers(5, size=5) for i in range(30)]
    values = [evaluated([pairs[i] for i in chosen]).bins[0].iou for chosen in draws]
    limits = evaluated(pairs, replicates=30, seed=3, confidence=0.9).bins[0].intervals["iou"]
    assert min(values) <= limits.low < limits.high <= max(values)
    assert sum(limits.low <= value <= limits.high for value in values) in range(24, 31)
    assert evaluated([]).bins[0].iou is None
    specks = oracle(pairs, 0, 4)[1]
    assert evaluated(pairs, min_area=4).notes == (f"{specks} regions of fewer than 4 px are left out (min_area)",)


def run(kind: str, pairs, **options) -> dict[str, float]:
    evaluator = Evaluator(dict(type=kind, iou_metrics=["mIoU", "mDice"], **options))
    evaluator.dataset_meta = dict(classes=CLASSES)
    for i, pair in enumerate(pairs):
        names = ("gt_sem_seg", "pred_sem_seg")
        maps = {n: dict(data=torch.tensor(m.astype(np.int64))[None]) for n, m in zip(names, pair, strict=True)}
        evaluator.process([maps | dict(img_path=f"{i}.jpg", scale_factor=(2.0, 3.0))], None)
    return evaluator.evaluate(len(pairs))


def test_metric_keeps_mmsegs_figures_and_writes_a_report(tmp_path):
    pairs = [(np.where(truth == 7, 255, truth), predicted) for truth, predicted in label_maps(1)]
    ours = run(
        "mmms_plugin.SizeIoUMetric", pairs, bins=BINS, bootstrap=20, min_area=4, report_dir=str(tmp_path / "report")
    )
    stock = run("mmseg.IoUMetric", pairs)
    assert {key: ours[key] for key in stock} == pytest.approx(stock, nan_ok=True)
    offline = evaluated(pairs, replicates=20, min_area=4)
    for row in offline.bins:
        expected = [np.nan if value is None else 100 * value for value in (row.iou, row.intervals["iou"].low)]
        keys = [f"region_mIoU_{row.bin.name}{end}" for end in ("", "_low")]
        assert [ours[key] for key in keys] == pytest.approx(expected, nan_ok=True)
    assert CheckpointHook(save_best="region_mIoU_rest").rules == ["greater"]
    written = {path.name for path in (tmp_path / "report").iterdir()}
    names = ("size_iou", "size_iou_per_bin", "size_iou_classes")
    assert written >= {f"{name}.svg" for name in names[1:]} | {f"{names[0]}.html"}
    assert json.loads((tmp_path / "report/size_iou.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(offline.to_json())
    )
    lines = (tmp_path / "report/size_iou_classes.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(CLASSES) * len(offline.bins)
    assert "<b>dog" not in (tmp_path / "report/size_iou.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "offline"),
    [
        (dict(bins=BINS.split(","), min_area=1), dict(bins=BINS, min_area=1)),
        (dict(), dict()),
        (
            dict(bins="a=0:9,b=10:30", bin_unit="area", allow_gaps=True, bootstrap=9, confidence=0.6, seed=4),
            dict(bins="a=0:9,b=10:30", bin_unit="area", allow_gaps=True, replicates=9, confidence=0.6, seed=4),
        ),
        (dict(bins="a=0:4,b=3:inf", allow_overlaps=True), dict(bins="a=0:4,b=3:inf", allow_overlaps=True)),
        (dict(bins=" Quantiles:2", ignore_index=0), dict(bins="quantiles:2")),
    ],
)  # fmt: skip
def test_the_metric_is_the_offline_evaluation(monkeypatch, tmp_path, options, offline):
    monkeypatch.chdir(tmp_path)
    told = []
    monkeypatch.setattr(MMLogger, "info", lambda self, text: told.append(text))
    pairs = [(np.where(truth == 7, 255, truth), predicted) for truth, predicted in label_maps(1)]
    if "ignore_index" in options:
        pairs = [(np.where(truth == 255, 1, truth), predicted) for truth, predicted in pairs]
    ours = run("mmms_plugin.SizeIoUMetric", pairs, **options)
    regions = join_images(image_regions(*pair, len(CLASSES), options.get("ignore_index", 255)) for pair in pairs)
    results = evaluate_regions(regions, CLASSES, RegionOptions(**offline))
    wanted = {}
    for row in results.bins:
        measures = dict(region_mIoU=row.iou, region_mRecall=row.recall, region_mFound=row.found)
        wanted |= {f"{name}_{row.bin.name}": value for name, value in measures.items()}
        if "iou" in row.intervals:
            limits = row.intervals["iou"]
            wanted |= {f"region_mIoU_{row.bin.name}_{end}": getattr(limits, end) for end in ("low", "high")}
    found = {key: value for key, value in ours.items() if key.startswith("region_")}
    assert found == pytest.approx({k: np.nan if v is None else 100 * v for k, v in wanted.items()}, nan_ok=True)
    heading = "; ".join((results.area_rule, results.edge_rule, *results.notes))
    (words,) = [text for text in told if text.startswith(f"{heading}\n")]
    assert all(f"| {row.bin.name} " in words for row in results.bins)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "factor"),
    [
        (dict(bin_unit="relative"), lambda height, width: 1 / (height * width)),
        (dict(resize="pipeline"), lambda height, width: 6.0),
        (dict(resize=[8, 8]), lambda height, width: round(8 / max(height, width) * width) * round(8 / max(
            height, width) * height) / (height * width)),
    ],
    ids=["relative", "pipeline", "fitted"],
)  # fmt: skip
def test_regions_as_the_network_sees_them(options, factor):
    """As in the oracle, which counts them in the pictures' own pixels, one picture after another."""
    pairs = [(np.where(truth == 7, 255, truth), predicted) for truth, predicted in label_maps(1)]
    low, high = (0.1, 0.5) if "bin_unit" in options else (2, 6)
    bins = f"part={low}:{high}"
    ours = run("mmms_plugin.SizeIoUMetric", pairs, bins=bins, min_area=1, **options)
    regions = 0
    for pair in pairs:
        scale = factor(*pair[0].shape)
        _, count, _ = oracle([pair], low**2 / scale, high**2 / scale)
        regions += count
    assert regions
    evaluation = join_images([image_regions(*pair, len(CLASSES)) for pair in pairs],
                             [factor(*pair[0].shape) for pair in pairs])  # fmt: skip
    part = evaluate_regions(evaluation, CLASSES, RegionOptions(bins=bins, min_area=1)).bins[1]
    assert part.regions == regions
    assert ours["region_mIoU_part"] == pytest.approx(100 * part.iou)


def test_format_only_writes_pictures_and_no_figures(tmp_path):
    out = tmp_path / "out"
    pairs = [(np.where(truth == 7, 255, truth), predicted) for truth, predicted in label_maps(1)]
    options = dict(format_only=True, output_dir=str(out), report_dir=str(tmp_path / "report"))
    assert run("mmms_plugin.SizeIoUMetric", pairs, **options) == {}
    assert sorted(path.name for path in out.iterdir()) == [f"{i}.png" for i in range(6)]
    assert not any((tmp_path / "report").glob("*"))


def test_wrong_options_are_refused_when_the_config_is_built(tmp_path):
    (tmp_path / "file").touch()
    for options, words in (
        (dict(bins="huge"), "huge"),
        (dict(bins=["a=0:4", "b=5:9"]), "4 to 5 is in no bin"),
        (dict(min_area=0), "min_area=0: must be at least 1 px"),
        (dict(bootstrap=-1), "--bootstrap -1: must be an integer from 0"),
        (dict(confidence=1), "--confidence 1: must be"),
        (dict(report_dir=str(tmp_path / "file" / "x")), "report_dir"),
    ):
        with pytest.raises(UserError, match=words):
            METRICS.build(dict(type="mmms_plugin.SizeIoUMetric", **options))


def test_the_option_exchanges_the_metric(tmp_path):
    config = dict(test_evaluator=dict(type="IoUMetric", iou_metrics=["mIoU"]))
    Segmentation().report_sizes(config, tmp_path)
    assert config["test_evaluator"] == dict(
        type="mmms_plugin.SizeIoUMetric", iou_metrics=["mIoU"], bootstrap=500, report_dir=str(tmp_path)
    )
    for task in TASKS[:-1]:
        with pytest.raises(UserError, match="--size-report"):
            task.report_sizes({}, tmp_path)
