"""Top-k accuracy, every exit, several labels and object sizes, against counts by hand and slow loops."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

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
    first = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))[0]
    assert first["picture"], first["predicted_names"] == ("0.png", ["a", "b", "c"])
    assert first["scores"] == [0.5, 0.3, 0.2]
    with pytest.raises(ValueError, match=r"topk=\(0,\): allowed are whole numbers from 1"):
        ClassMetric(topk=(0,))


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
