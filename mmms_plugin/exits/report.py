"""Accuracy against multiply-adds and against measured time: one figure, one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
