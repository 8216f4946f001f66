"""Accuracy against multiply-adds and against measured time: one figure, one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmms_plugin.files import written_whole
from mmms_plugin.report import figure_style


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
        batch: pictures at a time in the measurements. path: is replaced whole.
    Raises: UserError if the file cannot be written.
    """
    import matplotlib.pyplot as plt

    with plt.rc_context(figure_style.STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(figure_style.WIDEST, 2.8), sharey=True, constrained_layout=True)
        for kind, colour, marker in (("anytime", figure_style.RUN_COLOURS[0], "o"),
                                     ("budgeted", figure_style.RUN_COLOURS[1], ".")):  # fmt: skip
            own = sorted((p for p in points if p.kind == kind), key=lambda p: p.macs)
            timed = sorted((p for p in own if p.seconds is not None), key=lambda p: p.seconds or 0)
            axes[0].plot(
                [p.macs / 1e6 for p in own], [p.accuracy for p in own], marker=marker, color=colour, label=kind
            )
            axes[1].plot(
                [1000 * (p.seconds or 0) for p in timed], [p.accuracy for p in timed], marker=marker, color=colour
            )
        axes[0].set(xlabel="million multiply-adds a picture", ylabel="top-1 accuracy, %")
        axes[1].set(xlabel=f"ms a picture, batch {batch}, this machine")
        axes[0].legend()
        for each in axes:
            each.grid(True)
        with written_whole(path) as temporary:
            figure.savefig(temporary, dpi=160)
        plt.close(figure)
    return path
