"""What early exits save in time, beside what they promise in multiply-adds: measurements and their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from mmms_plugin.backbones import MSDNet
from mmms_plugin.exits.network import EarlyExit
from mmms_plugin.exits.plans import Plan, choose_plans
from mmms_plugin.exits.timing import clock_name
from mmms_plugin.exits.timing import seconds as taken
from mmms_plugin.heads import MultiExitHead
from mmms_plugin.report.tables import Column, Table, print_table

BATCHES = (1, 8, 32, 64)
BUDGETS = (0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Saving:
    """One batch size and one plan.

    Attributes:
        batch: pictures at a time.
        budget: the multiply-adds that the plan allows, as a share of the full network's.
        promised: the full network's multiply-adds divided by those of the pictures measured, classifiers included.
        achieved: the full network's time divided by that with early exits.
        seconds: of one picture, with early exits.
    """

    batch: int
    budget: float
    promised: float
    achieved: float
    seconds: float

    @property
    def kept(self) -> float:
        """How much of the promise is kept."""
        return self.achieved / self.promised


def full_macs(network: EarlyExit, size: tuple[int, int]) -> int:
    """Multiply-adds of the network with its last classifier alone."""
    costs = network.costs(size)
    return sum(cost.block for cost in costs) + costs[-1].classifier


def spent_macs(network: EarlyExit, size: tuple[int, int], exits: Tensor, thresholds: Sequence[float]) -> float:
    """Average multiply-adds of pictures that left at ``exits``; skipped classifiers cost nothing.

    Args:
        size: (height, width) in px.
        exits: ``[N]``, numbers of exits from 0.
        thresholds: of each exit; above 1 its classifier is skipped.
    """
    totals, so_far, last = [], 0, len(thresholds) - 1
    for index, (cost, threshold) in enumerate(zip(network.costs(size), thresholds, strict=True)):
        so_far += cost.block + (cost.classifier if index == last or threshold <= 1 else 0)
        totals.append(so_far)
    return float(torch.tensor(totals, dtype=torch.float64)[exits.cpu()].mean())


def measure_saving(network: EarlyExit, pictures: Tensor, batch: int, plan: Plan, rounds: int = 5) -> Saving:
    """Time the full network and early exits in turn, ``rounds`` times; the median of the ratios counts.

    Where early exits are slower, ``classify`` computes the full network, and that is timed; the promise remains the
    plan's.

    Args:
        pictures: ``[N, 3, H, W]``.
        batch: pictures at a time.
        plan: with the thresholds.
        rounds: measurements of each.
    """
    size = (pictures.shape[-2], pictures.shape[-1])
    parts = pictures.split(batch)
    if network.profile is None or network.profile.sizes[-1] < len(parts[0]):
        network.measure(parts[0])
    network.forget_plans()
    exits = torch.cat([network.classify(part, plan.thresholds).exits for part in parts])
    network.measure_plan(pictures, batch, plan.thresholds, rounds)
    runs = [
        lambda: [network.predict(part) for part in parts],
        lambda: [network.classify(part, plan.thresholds) for part in parts],
    ]
    rows = []
    for number in range(rounds):  # whichever is second finds warmer caches: they take turns
        order = (0, 1) if number % 2 == 0 else (1, 0)
        spent = {which: taken(runs[which]) for which in order}
        rows.append((spent[0], spent[1]))
    full_cost = full_macs(network, size)
    promised = full_cost / spent_macs(network, size, exits, plan.thresholds)
    achieved = median(full / early for full, early in rows)
    return Saving(batch, plan.macs / full_cost, promised, achieved, median(early for _, early in rows) / len(pictures))


def print_savings(savings: Sequence[Saving], title: str, console: Console) -> None:
    columns = ("batch", Column("budget", ".0%"), "promised", "achieved",
               "achieved / promised", Column("ms a picture", ".1f"))  # fmt: skip
    rows = [(str(s.batch), s.budget, s.promised, s.achieved, s.kept, 1000 * s.seconds) for s in savings]
    print_table(Table("savings", title, columns, rows, form=".2f"), console)


def run_early_exit_benchmark(arch: str, pictures: int, rounds: int, batches: tuple[int, ...] = BATCHES) -> None:
    """``mmms benchmark early-exit``: promised and achieved speed-up of an MSDNet, on random weights and pictures.

    Thresholds are chosen on the same pictures, so that the wanted shares leave.
    """
    torch.manual_seed(0)
    large = MSDNet.arch_settings[arch].large_pictures
    backbone = MSDNet(arch, output="exits")
    head = MultiExitHead(1000 if large else 100, backbone.out_channels, channels=None if large else 128)
    network = EarlyExit(backbone, list(head.exits))
    side = 224 if large else 32
    images = torch.randn(pictures, 3, side, side)
    with torch.inference_mode():
        scores = [network(part) for part in images.split(16)]
    confidence = np.stack(
        [torch.cat(logits).double().softmax(1).amax(1).numpy() for logits in zip(*scores, strict=True)], 1
    )
    plans = choose_plans(confidence, np.ones(confidence.shape, bool), network.costs((side, side)))
    full = full_macs(network, (side, side))
    savings = []
    for batch in (b for b in batches if b <= pictures):
        for budget in BUDGETS:
            plan = min(plans, key=lambda row: abs(row.macs - budget * full))
            savings.append(measure_saving(network, images, batch, plan, rounds))
    title = f"{arch}, {pictures} pictures of {side} px, {torch.get_num_threads()} threads, {clock_name()}"
    print_savings(savings, title, Console())
