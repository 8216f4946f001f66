"""What early exits gain: accuracy against multiply-adds and time, and the time saved beside the multiply-adds saved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor

from mmms_plugin.backbones import MSDNet
from mmms_plugin.coco.json_files import read_typed
from mmms_plugin.exits.network import EarlyExit
from mmms_plugin.exits.plans import Plan, Plans, choose_plans, leaving, picture_costs
from mmms_plugin.heads import MultiExitHead
from mmms_plugin.report.tables import Column, Table
from mmms_plugin.scale.clock import clock_name, now
from mmms_plugin.scale.clock import seconds as taken

BATCHES = (1, 8, 32, 64)
BUDGETS = (0.5, 0.75, 1.0)
TIMED_PLANS = 6
REPORT = "early_exit.json"
NORMAL_95 = 1.959964  # standard deviations of the normal distribution
SAVINGS_NOTE = (
    "Plan's cost: average multiply-adds on the pictures that its thresholds were chosen on, as a share of the whole "
    "network's. Promised and achieved: speed-up on the timed pictures, by multiply-adds and by time."
)


@dataclass(frozen=True)
class Saving:
    """Measured with one batch size and one plan.

    Attributes:
        batch: pictures at a time.
        budget: average multiply-adds of the plan, as a share of the full network's.
        promised: speed-up by multiply-adds: the full network's divided by those spent, classifiers included.
        achieved: speed-up by time: the full network's divided by that with early exits.
        seconds: per picture, with early exits.
    """

    batch: int
    budget: float
    promised: float
    achieved: float
    seconds: float

    @property
    def kept(self) -> float:
        """Achieved speed-up as a share of the promised."""
        return self.achieved / self.promised


def full_macs(network: EarlyExit, size: tuple[int, int]) -> int:
    """Multiply-adds of the network with only its last classifier."""
    costs = network.costs(size)
    return sum(cost.block for cost in costs) + costs[-1].classifier


def spent_macs(network: EarlyExit, size: tuple[int, int], exits: Tensor, thresholds: Sequence[float]) -> float:
    """Average multiply-adds of pictures that left at ``exits``; skipped classifiers cost nothing.

    Args:
        size: (height, width) in px.
        exits: ``[N]``, numbers of exits from 0.
        thresholds: of each exit; above 1 its classifier is skipped.
    """
    totals = torch.tensor(picture_costs(network.costs(size), thresholds), dtype=torch.float64)
    return float(totals[exits.cpu()].mean())


def measure_saving(network: EarlyExit, pictures: Tensor, batch: int, plan: Plan, rounds: int = 5) -> Saving:
    """Time the full network and early exits in turn, ``rounds`` times; the median of the ratios counts.

    Where early exits are slower, ``classify`` computes the full network, which is then timed in their place; the
    promise remains the plan's.

    Args:
        network: with the exits.
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
    for turn in range(rounds):  # the second finds warmer caches: they take turns
        order = (0, 1) if turn % 2 == 0 else (1, 0)
        spent = {number: taken(runs[number]) for number in order}
        rows.append((spent[0], spent[1]))
    full_cost = full_macs(network, size)
    promised = full_cost / spent_macs(network, size, exits, plan.thresholds)
    achieved = median(full / early for full, early in rows)
    return Saving(batch, plan.macs / full_cost, promised, achieved, median(early for _, early in rows) / len(pictures))


def savings_table(savings: Sequence[Saving], title: str) -> Table:
    columns = ("batch", Column("plan's cost", ".0%"), "promised", "achieved",
               "achieved / promised", Column("ms per picture", ".1f"))  # fmt: skip
    rows = [(str(s.batch), s.budget, s.promised, s.achieved, s.kept, 1000 * s.seconds) for s in savings]
    return Table("savings", title, columns, rows, note=SAVINGS_NOTE, form=".2f")


@dataclass(frozen=True)
class Point:
    """Accuracy and cost of an exit or a plan.

    Attributes:
        kind: 'anytime' (every picture leaves at one exit) or 'budgeted' (a plan).
        name: of the exit or plan.
        macs: average multiply-adds per picture.
        accuracy: top-1 in per cent.
        seconds: per picture; None if not measured.
        leaving: share of the pictures that leave at each exit; None for 'anytime'.
        low, high: ends of the 95 % interval of the accuracy; None in reports of earlier versions.
    """

    kind: str
    name: str
    macs: float
    accuracy: float
    seconds: float | None = None
    leaving: tuple[float, ...] | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Report:
    """What ``mmms early-exit`` writes, as far as a figure needs it.

    Attributes:
        points: of every exit and plan.
    """

    points: tuple[Point, ...]

    @classmethod
    def load(cls, folder: str | Path) -> Report:
        """Read a report.

        Args:
            folder: that ``mmms early-exit --out`` wrote.

        Raises: UserError if it holds no report.
        """
        return read_typed(Path(folder) / REPORT, "--beside", cls, "must be a folder that mmms early-exit wrote")


def interval(right: float, pictures: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy, in per cent (Wilson, J. Am. Stat. Assoc. 22, 1927).

    Args:
        right: share of the pictures that are classified correctly.
        pictures: their number.
    """
    spread = NORMAL_95**2 / pictures
    middle = (right + spread / 2) / (1 + spread)
    half = math.sqrt(right * (1 - right) * spread + spread**2 / 4) / (1 + spread)
    return 100 * (middle - half), 100 * (middle + half)


def measure_points(
    network: EarlyExit, plans: Plans, confidence: NDArray[np.float64], correct: NDArray[np.bool_], sample: Tensor,
    batch: int,
) -> list[Point]:  # fmt: skip
    """Every exit and every plan, on pictures that no threshold was chosen on.

    Args:
        network: with the exits.
        plans: with their thresholds.
        confidence: ``[pictures, exits]``, largest probability.
        correct: ``[pictures, exits]``, whether it is of the right class.
        sample: pictures ``[N, 3, H, W]`` for timing.
        batch: pictures at a time in the timing.
    """
    costs, points, block = network.costs(plans.size), [], 0
    seconds = network.measure_exits(sample[:batch], 5, now)
    for index, cost in enumerate(costs):
        block += cost.block
        right = float(correct[:, index].mean())
        name, taken = f"exit {index + 1}", seconds[index] / len(sample[:batch])
        limits = interval(right, len(correct))
        points.append(Point("anytime", name, block + cost.classifier, 100 * right, taken, None, *limits))
    step = max(1, len(plans.rows) // TIMED_PLANS)
    for number, plan in enumerate(plans.rows):
        exits = leaving(confidence, plan.thresholds)
        right = float(correct[np.arange(len(exits)), exits].mean())
        macs = spent_macs(network, plans.size, torch.from_numpy(exits), plan.thresholds)
        timed = measure_saving(network, sample, batch, plan, 3).seconds if number % step == 0 else None
        shares = np.bincount(exits, minlength=len(costs)) / len(exits)
        limits = interval(right, len(exits))
        leave = tuple(shares.tolist())
        points.append(Point("budgeted", f"plan {number + 1}", macs, 100 * right, timed, leave, *limits))
    return points


def draw(points: Sequence[Point], path: Path, batch: int) -> Path:
    """Write the figure as PNG: accuracy against multiply-adds and against time.

    Args:
        points: of every exit and plan.
        path: of the file.
        batch: pictures at a time in the measurements.

    Raises:
        UserError: the file cannot be written.
    """
    from mmms_plugin.report.figure_style import RUN_COLOURS, WIDEST, canvas, save

    with canvas(WIDEST, 2.8, 2, sharey=True) as (figure, (by_macs, by_time)):
        for kind, colour, marker in (("anytime", RUN_COLOURS[0], "o"), ("budgeted", RUN_COLOURS[1], ".")):
            points_of_kind = sorted((p for p in points if p.kind == kind), key=lambda p: p.macs)
            timed = sorted((p.seconds, p.accuracy) for p in points_of_kind if p.seconds is not None)
            style: Any = dict(marker=marker, color=colour, label=kind)
            by_macs.plot([p.macs / 1e6 for p in points_of_kind], [p.accuracy for p in points_of_kind], **style)
            by_time.plot([1000 * seconds for seconds, _ in timed], [accuracy for _, accuracy in timed], **style)
        by_macs.set(xlabel="million multiply-adds per picture", ylabel="top-1 accuracy, %")
        by_time.set(xlabel=f"ms per picture, batch {batch}, this machine")
        by_macs.legend()
        for axis in (by_macs, by_time):
            axis.grid(True)
    return save(figure, path.parent, path.stem, ("png",))[0]


def draw_beside(reports: Mapping[str, Sequence[Point]], folder: Path) -> list[Path]:
    """Write ``folder/beside.png`` (.pdf, .svg): both settings of several networks, with intervals.

    Args:
        reports: points by the names of the networks.
        folder: for the files.

    Raises:
        UserError: a file cannot be written.
    """
    from matplotlib.lines import Line2D

    from mmms_plugin.report.figure_style import RUN_COLOURS, WIDEST, canvas, save

    with canvas(WIDEST, 3.4, 2, sharey=True) as (figure, axes):
        for axis, kind in zip(axes, ("anytime", "budgeted"), strict=True):
            for number, points in enumerate(reports.values()):
                shown = sorted((point for point in points if point.kind == kind), key=lambda point: point.macs)
                costs, colour = [point.macs / 1e6 for point in shown], RUN_COLOURS[number % len(RUN_COLOURS)]
                style: Any = dict(marker="o" if kind == "anytime" else ".", markersize=4, color=colour, linewidth=1.2)
                axis.plot(costs, [point.accuracy for point in shown], **style)
                lows, highs = (
                    [point.accuracy if end is None else end for point, end in zip(shown, ends, strict=True)]
                    for ends in ([point.low for point in shown], [point.high for point in shown])
                )
                axis.fill_between(costs, lows, highs, color=colour, alpha=0.15, linewidth=0)
            axis.set(title=kind, xlabel="million multiply-adds per picture")
            axis.grid(True)
        axes[0].set_ylabel("top-1 accuracy, %, 95 % interval")
        lines = [Line2D([], [], color=RUN_COLOURS[n % len(RUN_COLOURS)], label=name) for n, name in enumerate(reports)]
        figure.legend(handles=lines, loc="outside lower center", ncols=min(4, len(lines)))
    return save(figure, folder, "beside")


def early_exit_speed(arch: str, pictures: int, rounds: int, batches: tuple[int, ...] = BATCHES) -> Table:
    """Promised and achieved speed-up of an MSDNet, on random weights and pictures.

    Thresholds are chosen on the same pictures, so that the planned shares leave.
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
    cases = [(batch, budget) for batch in batches if batch <= pictures for budget in BUDGETS]
    savings = []
    for batch, budget in track(cases, "measuring", console=Console(stderr=True), transient=True):
        plan = min(plans, key=lambda row: abs(row.macs - budget * full))
        savings.append(measure_saving(network, images, batch, plan, rounds))
    title = f"early exit, {arch}, {pictures} pictures of {side} px, threads: {torch.get_num_threads()}, {clock_name()}"
    return savings_table(savings, title)
