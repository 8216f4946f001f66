"""A test in several processes that ends with the figures and files of one.

mmengine's own sampler deals out pictures, not batches, and repeats some of them so that all processes have as many.
Predictions depend in their last bits on the pictures that share a batch, so here each process takes whole batches of
those that one process would load, every n-th of them, and the results are put together in the order of the batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size
from mmengine.evaluator import BaseMetric, Evaluator
from torch.utils.data import Sampler

from mmms_plugin.config.edit import class_name
from mmms_plugin.registry import DATA_SAMPLERS, EVALUATOR


def share_test(config: Config) -> None:
    """Let the processes of a run test every n-th batch each.

    A loader with a sampler other than mmengine's default, or an evaluator of the user's own, stays as it is.

    Args:
        config: changed in place.
    """
    loader, evaluator = config.test_dataloader, config.test_evaluator
    sampler = loader.get("sampler") or {}
    usual = class_name(sampler) == "DefaultSampler" and not sampler.get("shuffle", True)
    if not usual or loader.get("batch_sampler") or (isinstance(evaluator, dict) and "metrics" in evaluator):
        return
    loader.sampler = dict(type="mmms_plugin.WholeBatchSampler", batch_size=loader.batch_size)
    config.test_evaluator = dict(
        type="mmms_plugin.BatchEvaluator", metrics=evaluator, folder=str(Path(config.work_dir, "collected"))
    )


@DATA_SAMPLERS.register_module()
class WholeBatchSampler(Sampler):
    """Every n-th batch of a data set in its order, for each of n processes; no picture twice.

    Args:
        dataset: whose pictures are counted.
        batch_size: of the loader.
        seed: unused; mmengine gives it to all samplers.
    """

    def __init__(self, dataset: Sized, batch_size: int, seed: int | None = None) -> None:
        size, step = len(dataset), batch_size * get_world_size()
        starts = range(batch_size * get_rank(), size, step)
        self.indices = [index for start in starts for index in range(start, min(start + batch_size, size))]

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


@EVALUATOR.register_module()
class BatchEvaluator(Evaluator):
    """mmengine's Evaluator, for processes that each have every n-th batch: metrics see the order of the data set.

    Args:
        metrics: as there.
        folder: where the processes exchange results; removed afterwards. mmengine would leave one behind.
    """

    def __init__(self, metrics: Any, folder: str) -> None:
        super().__init__(metrics)
        self.folder = folder
        self._ends: dict[BaseMetric, list[int]] = {}  # number of results after each batch; hooks may add metrics

    def process(self, data_samples: Sequence[Any], data_batch: Any = None) -> None:
        """As ``Evaluator.process``."""
        super().process(data_samples, data_batch)
        for metric in self.metrics:
            self._ends.setdefault(metric, [0]).append(len(metric.results))

    def evaluate(self, size: int) -> dict[str, Any]:
        """As ``Evaluator.evaluate``: its metrics exchange a list of results for each batch in place of single ones."""
        if get_world_size() == 1:
            return super().evaluate(size)
        for metric in self.metrics:
            ends = self._ends.get(metric, [0])
            if metric.collect_device == "cpu":
                metric.collect_dir = self.folder
            if type(metric).evaluate is BaseMetric.evaluate:  # which keeps at most ``size`` of them: more than batches
                metric.results = [metric.results[start:end] for start, end in pairwise(ends)]
                metric.compute_metrics = partial(_joined, metric.compute_metrics)
        return super().evaluate(size)


def _joined(compute: Callable[[list], dict], batches: list[list]) -> dict:
    return compute(list(chain.from_iterable(batches)))
