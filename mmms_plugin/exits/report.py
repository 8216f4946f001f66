"""Accuracy against multiply-adds and against measured time: measured, and as one figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmms_plugin.exits.network import EarlyExit
from mmms_plugin.exits.plans import Plans
from mmms_plugin.exits.savings import measure_saving, spent_macs
from mmms_plugin.exits.timing import now

TIMED_PLANS = 6


@dataclass(frozen=True)
class Point:
    """``kind``: 'anytime' (every picture at one exit) or 'budgeted'. ``accuracy``: top-1 in per cent; ``seconds`` of a
    picture, None where it was not measured; ``leaving``: share of the pictures that leave at each exit, if budgeted."""

    kind: str
    name: str
    macs: float
    accuracy: float
    seconds: float | None = None
    leaving: tuple[float, ...] | None = None


def measure_points(
    network: EarlyExit, plans: Plans, confidence: NDArray[np.float64], correct: NDArray[np.bool_], sample: Tensor,
    batch: int,
) -> list[Point]:  # fmt: skip
    """Every exit, and every plan, on pictures that no threshold was chosen on."""
    costs, points, block = network.costs(plans.size), [], 0
    seconds = network.measure_exits(sample[:batch], 5, now)
    for index, cost in enumerate(costs):
        block += cost.block
        accuracy = 100 * float(correct[:, index].mean())
        name = f"exit {index + 1}"
        points.append(Point("anytime", name, block + cost.classifier, accuracy, seconds[index] / len(sample[:batch])))
    step = max(1, len(plans.rows) // TIMED_PLANS)
    for number, plan in enumerate(plans.rows):
        exits = leaving(confidence, plan.thresholds)
        accuracy = 100 * float(correct[np.arange(len(exits)), exits].mean())
        macs = spent_macs(network, plans.size, torch.from_numpy(exits), plan.thresholds)
        timed = measure_saving(network, sample, batch, plan, 3).seconds if number % step == 0 else None
        shares = np.bincount(exits, minlength=len(costs)) / len(exits)
        points.append(Point("budgeted", f"plan {number + 1}", macs, accuracy, timed, tuple(shares.tolist())))
    return points


def leaving(confidence: NDArray[np.float64], thresholds: tuple[float, ...]) -> NDArray[np.int64]:
    """The exit that each picture leaves at."""
    reached = confidence >= np.array(thresholds)
    reached[:, -1] = True
    return reached.argmax(1)


def draw(points: Sequence[Point], path: Path, batch: int) -> Path:
    """Write the figure as PNG: accuracy against multiply-adds and against time.

    Args:
        points: of every exit and plan.
        path: of the file, which is replaced whole.
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
        by_macs.set(xlabel="million multiply-adds a picture", ylabel="top-1 accuracy, %")
        by_time.set(xlabel=f"ms a picture, batch {batch}, this machine")
        by_macs.legend()
        for axis in (by_macs, by_time):
            axis.grid(True)
    return save(figure, path.parent, path.stem, ("png",))[0]
