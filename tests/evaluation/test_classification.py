"""Top-k accuracy, every exit, several labels and object sizes, against counts by hand and slow loops."""

from __future__ import annotations

import json
import math
import types

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger

from mmms_plugin.evaluation import ClassMetric, LabelsMetric
from tests.without_float64 import OnMps


def metrics_of(metric, samples: list[dict], classes: tuple[str, ...] | None = None) -> dict[str, float]:
    metric.dataset_meta = dict(classes=classes) if classes else None
    metric.process(None, samples)
    return metric.compute_metrics(metric.results)


def test_top_k_and_every_exit(tmp_path):
    """On a device without float64."""
    scores = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.2, 0.3, 0.5], [0.5, 0.3, 0.2]]).as_subclass(OnMps)
    labels = [0, 2, 0, 0]
    samples = [
        dict(pred_score=s, gt_label=torch.tensor([y]), exit_scores=torch.stack([s.flip(0), s]), img_path=f"{i}.png")
        for i, (s, y) in enumerate(zip(scores, labels, strict=True))
    ]
    metric = ClassMetric(topk=(1, 2, 5), out_file=str(tmp_path / "out.json"))
    assert metrics_of(metric, samples, ("a", "b", "c")) == dict(top1=50, top2=75, exit1_top1=25, exit2_top1=50)
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [record["picture"] for record in written] == ["0.png", "1.png", "2.png", "3.png"]
    assert written[1] == dict(
        picture="1.png", labels=[2], predicted=[1, 2, 0], scores=[0.5, 0.3, 0.2], predicted_names=["b", "c", "a"]
    )
    alone = ClassMetric(topk=(1,), out_file=str(tmp_path / "alone.json"))
    sample = samples[0] | dict(pred_score=torch.tensor([0.9876543, 0.0123457, 0.0]))
    assert metrics_of(alone, [sample]) == dict(top1=100, exit1_top1=0, exit2_top1=100)
    (record,) = json.loads((tmp_path / "alone.json").read_text(encoding="utf-8"))
    assert record["scores"] == [0.987654, 0.012346, 0.0]
    assert ClassMetric(topk=5).topk == (5,)
    for topk in (0, (0,), (1, 0), (-1, 5), ()):
        with pytest.raises(ValueError, match=r"topk=.*: allowed are integers >= 1"):
            ClassMetric(topk=topk)


def test_the_five_best_of_many_classes_are_kept_and_k_may_be_all_of_them(tmp_path):
    scores = torch.tensor([0.3, 0.1, 0.05, 0.25, 0.1, 0.2])
    metric = ClassMetric(topk=(1, 2, 5, 6, 7), out_file=str(tmp_path / "out.json"))
    found = metrics_of(metric, [dict(pred_score=scores, gt_label=torch.tensor([label])) for label in (4, 2, 0)])
    assert found == pytest.approx(dict(top1=100 / 3, top2=100 / 3, top5=200 / 3, top6=100))
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))[0] == dict(
        picture="", labels=[4], predicted=[0, 3, 5, 1, 4], scores=[0.3, 0.25, 0.2, 0.1, 0.1]
    )


def test_predicted_labels_are_those_above_a_half(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(MMLogger, "get_current_instance", lambda: types.SimpleNamespace(info=told.append))
    metric = LabelsMetric(out_file=str(tmp_path / "labels.json"))
    scores = torch.tensor([[0.6, 0.5, 0.1234567, 0.9], [0.5, 0.5, 0.5, 0.5]])
    samples = [dict(pred_score=s, gt_label=torch.tensor([1, 3]), img_path=f"{i}.png") for i, s in enumerate(scores)]
    found = metrics_of(metric, samples, ("a", "b", "c", "d"))
    assert json.loads((tmp_path / "labels.json").read_text(encoding="utf-8")) == [
        dict(picture="0.png", labels=[1, 3], predicted=[3, 0], scores=[0.9, 0.6], predicted_names=["d", "a"]),
        dict(picture="1.png", labels=[1, 3], predicted=[], scores=[], predicted_names=[]),
    ]
    assert found["F1_overall"] == pytest.approx(200 / (2 + 1 + 3))
    assert found["F1_per_class"] == pytest.approx(100 / 3)  # class 1: 0, class 3: 2 / 3
    assert told == ["2 classes have no picture and do not count in the means"]
    metrics_of(LabelsMetric(), [dict(samples[0], gt_label=torch.arange(4))])
    assert len(told) == 1


def test_without_any_label_there_is_no_mean(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    samples = [dict(pred_score=torch.tensor([0.1, 0.2]), gt_label=torch.tensor([], dtype=torch.long))] * 2
    found = metrics_of(LabelsMetric(), samples)
    assert math.isnan(found["mAP"])
    assert math.isnan(found["F1_per_class"])
    assert (found["F1_overall"], len(found)) == (0, 3)
    assert not list(tmp_path.iterdir())


def test_several_labels_against_slow_loops():
    rng = np.random.default_rng(0)
    truth, scores = rng.random((40, 6)) < 0.3, rng.random((40, 6))
    truth[:, 5] = False  # a class without pictures
    samples = [
        dict(pred_score=torch.from_numpy(s), gt_label=torch.from_numpy(np.flatnonzero(t)))
        for s, t in zip(scores, truth, strict=True)
    ]
    found = metrics_of(LabelsMetric(), samples)
    aps, f1s, pooled = [], [], np.zeros(3)
    for c in range(5):
        hits = misses = wrong = 0
        precisions = []
        for rank, i in enumerate(sorted(range(40), key=lambda i: -scores[i, c])):
            if truth[i, c]:
                precisions.append((len(precisions) + 1) / (rank + 1))
            hits += bool(truth[i, c] and scores[i, c] > 0.5)
            misses += bool(truth[i, c] and scores[i, c] <= 0.5)
            wrong += bool(not truth[i, c] and scores[i, c] > 0.5)
        aps.append(np.mean(precisions))
        f1s.append(2 * hits / (2 * hits + misses + wrong))
        pooled += (hits, misses, wrong)
    pooled[2] += (scores[:, 5] > 0.5).sum()
    expected = dict(
        mAP=100 * np.mean(aps), F1_per_class=100 * np.mean(f1s), F1_overall=200 * pooled[0] / (pooled[0] + pooled.sum())
    )
    assert found == pytest.approx(expected)


def f1_of(hits: int, misses: int, wrong: int) -> float:
    return 200 * hits / (2 * hits + misses + wrong) if hits else 0.0


@pytest.mark.parametrize("seed", range(3))
def test_sizes_against_slow_loops(seed):
    rng = np.random.default_rng(seed)
    scores = rng.random((60, 4))
    labels = [sorted(rng.choice(4, rng.integers(0, 4), replace=False).tolist()) for _ in scores]
    sizes = [["".join(rng.choice(["S", "M", "L", "MS", "LM", "LS", "LMS"][seed:], 1)) for _ in row] for row in labels]
    samples = [
        dict(pred_score=torch.from_numpy(s), gt_label=torch.tensor(y, dtype=torch.long), label_sizes=z)
        for s, y, z in zip(scores, labels, sizes, strict=True)
    ]
    found = metrics_of(LabelsMetric(), samples)
    expected = {}
    for size, name in (("S", "small"), ("M", "medium"), ("L", "large")):
        counts = np.zeros((4, 3), int)  # of each class: hits, misses, wrong ones
        for s, y, z in zip(scores, labels, sizes, strict=True):
            of_size = [c for c, letters in zip(y, z, strict=True) if size in letters]
            for c in range(4) if of_size else ():
                counts[c] += (
                    c in of_size and s[c] > 0.5, c in of_size and s[c] <= 0.5, c not in y and s[c] > 0.5,
                )  # fmt: skip
        present = [row for row in counts if row[0] + row[1]]
        if present:
            expected[f"recall_{name}"] = 100 * counts[:, 0].sum() / counts[:, :2].sum()
            expected[f"F1_per_class_{name}"] = np.mean([f1_of(*row) for row in present])
            expected[f"F1_overall_{name}"] = f1_of(*counts.sum(0))
    for combination in ("S", "M", "MS", "L", "LS", "LM", "LMS"):
        pooled = np.zeros(3, int)
        for s, y, z in zip(scores, labels, sizes, strict=True):
            if z and set("".join(z)) == set(combination):
                for c in range(4):
                    pooled += (c in y and s[c] > 0.5, c in y and s[c] <= 0.5, c not in y and s[c] > 0.5)
        if pooled.any():
            expected[f"F1_overall_{combination}"] = f1_of(*pooled)
    rest = ("mAP", "F1_per_class", "F1_overall")
    assert {key: value for key, value in found.items() if key not in rest} == pytest.approx(expected)


def test_recall_by_object_size_and_f1_by_the_sizes_in_a_picture():
    samples = [  # classes 0, 1; the first picture has a small and a large object of class 0
        dict(pred_score=torch.tensor([0.9, 0.1]), gt_label=torch.tensor([0]), label_sizes=["LS"]),
        dict(pred_score=torch.tensor([0.2, 0.9]), gt_label=torch.tensor([0, 1]), label_sizes=["S", "M"]),
        dict(pred_score=torch.tensor([0.9, 0.9]), gt_label=torch.tensor([0]), label_sizes=["M"]),
        dict(pred_score=torch.tensor([0.1, 0.1]), gt_label=torch.tensor([], dtype=torch.long), label_sizes=[]),
    ]
    found = metrics_of(LabelsMetric(), samples)
    assert (found["recall_small"], found["recall_medium"], found["recall_large"]) == (50, 100, 100)
    # small: class 0 of pictures 0 (hit) and 1 (missed); class 1 of picture 1 is medium and ignored
    # medium: class 1 of picture 1 and class 0 of picture 2 are hits, class 1 of picture 2 is wrong, picture 0 has none
    by_size = {
        k: round(v, 3) for k, v in found.items() if k.startswith("F1_") and k[3:] not in ("per_class", "overall")
    }
    assert by_size == {
        "F1_per_class_small": 66.667, "F1_overall_small": 66.667,
        "F1_per_class_medium": 83.333, "F1_overall_medium": 80,
        "F1_per_class_large": 100, "F1_overall_large": 100,
        "F1_overall_M": 66.667, "F1_overall_MS": 66.667, "F1_overall_LS": 100,
    }  # fmt: skip
