"""What the evaluator of a shared test exchanges, in one process; `test_several_processes.py` has several."""

from __future__ import annotations

from mmengine.evaluator import BaseMetric

from mmms_plugin.train import shared_test
from mmms_plugin.train.shared_test import BatchEvaluator


class Order(BaseMetric):
    """Reports what it has seen."""

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return {f"{self.prefix}_seen": results}


def test_metrics_that_hooks_add_are_evaluated_too(monkeypatch, tmp_path):
    monkeypatch.setattr(shared_test, "get_world_size", lambda: 2)
    evaluator = BatchEvaluator([Order(prefix="own")], str(tmp_path / "collected"))
    evaluator.metrics.append(Order(prefix="early"))
    for batch in ([1, 2], [3, 4], [5]):
        evaluator.process(batch)
    metrics = evaluator.evaluate(5)
    assert metrics == {"own/own_seen": [1, 2, 3, 4, 5], "early/early_seen": [1, 2, 3, 4, 5]}
