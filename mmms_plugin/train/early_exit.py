"""``mmms test --budget`` and ``--risk``: what early exit costs and saves on the tested pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmms_plugin.errors import counted
from mmms_plugin.exits.network import EarlyExit
from mmms_plugin.exits.plans import Plan, Plans, leaving, picture_costs
from mmms_plugin.files import exits_file
from mmms_plugin.train.hooks import unwrapped


class EarlyExitMetric(BaseMetric):
    """Accuracy and cost of a plan, from the scores of every exit.

    Keys, below ``early_exit/``: ``top1`` in per cent; ``loss``, the whole network's top-1 minus it; ``MMAC``, average
    million multiply-adds per picture; ``exit1``, ``exit2``, ..., per cent of the pictures that leave there.

    Args:
        plan: with the thresholds.
    """

    default_prefix = "early_exit"

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.costs: Sequence[int] = ()  # multiply-adds of a picture that leaves at each exit

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        for sample in data_samples:
            confidence, answers = sample["exit_scores"].cpu().double().max(1)
            self.results.append((confidence.numpy(), (answers == sample["gt_label"].cpu()).numpy()))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        confidence, correct = (np.stack(column) for column in zip(*results, strict=True))
        exits = leaving(confidence, self.plan.thresholds)
        top1 = 100 * float(correct[np.arange(len(exits)), exits].mean())
        shares = 100 * np.bincount(exits, minlength=correct.shape[1]) / len(exits)
        return dict(
            top1=top1,
            loss=100 * float(correct[:, -1].mean()) - top1,
            MMAC=float(np.array(self.costs)[exits].mean()) / 1e6,
            **{f"exit{number}": float(share) for number, share in enumerate(shares, 1)},
        )


class EarlyExitHook(Hook):
    """Evaluates a plan in a test, once the weights are loaded that the thresholds must have been chosen for.

    Args:
        checkpoint: beside which the thresholds lie.
        budget: average million multiply-adds per picture; None for ``risk``.
        risk: share of the pictures by which accuracy may fall.

    Raises: UserError if there are no thresholds, or none for this budget or risk.
    """

    def __init__(self, checkpoint: str, budget: float | None, risk: float | None) -> None:
        self.path = exits_file(checkpoint)
        plans = Plans.load(self.path)
        self.remark = f"early exit: thresholds {self.path}, chosen on {counted(plans.pictures, 'picture')}"
        if budget is not None:
            self.plan = plans.within(1e6 * budget)
        else:
            promise = plans.promised(risk or 0.0)
            self.plan = promise.plan
            points = f"top-1 at most {100 * promise.risk:g} points below the whole network's"
            self.remark += f"; promised: {points}, with confidence {promise.confidence:g}"

    def before_test(self, runner: Runner) -> None:
        model = unwrapped(runner.model)
        self.network, self.plans = EarlyExit.of(model, fold=False), Plans.load(self.path, model)
        self.metric = EarlyExitMetric(self.plan)
        runner.test_loop.evaluator.metrics.append(self.metric)

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if batch_idx == 0:
            height, width = data_batch["inputs"][0].shape[-2:]
            costs = self.network.costs((height, width))
            self.plans.check((height, width), costs, self.path)
            self.metric.costs = picture_costs(costs, self.plan.thresholds)
