"""How time and memory of each method grow with the side and the number of pictures, beside its plain twin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from mmms_plugin.processes import peak_memory
from mmms_plugin.report.tables import Cell, Rows, Table
from mmms_plugin.scale.speed import MULTI_SCALE, PLAIN, TWINS, Setting, measure, prepared, step, twins

POINTS = ((320, 1), (640, 1), (1280, 1), (320, 4), (320, 16))  # side of the pictures in px, pictures at a time
FIGURE = "benchmark_growth"  # name of the file


@dataclass(frozen=True)
class Growth:
    """What a plain network and its multi-scale twin take at one size.

    Attributes:
        name: a key of `TWINS`.
        side: of the pictures, px.
        batch: pictures at a time.
        milliseconds: of the plain and the multi-scale network, for the batch.
        mebibytes: most memory of a process that runs the network, or of the GPU.
    """

    name: str
    side: int
    batch: int
    milliseconds: tuple[float, float]
    mebibytes: tuple[float, float]


def measure_growth(
    setting: Setting, names: Iterable[str] = TWINS, points: Sequence[tuple[int, int]] = POINTS
) -> list[Growth]:
    """Times of both networks, in turns, and the memory of each in a process of its own.

    Args:
        setting: its side and batch are those of the points.
        names: keys of `TWINS`.
        points: side in px, and pictures at a time.
    """
    jobs = [(name, side, batch) for name in names for side, batch in points]
    rows = []
    console = Console(stderr=True)
    for name, side, batch in track(jobs, "measuring", console=console, transient=True):
        here = replace(setting, side=side, batch=batch)
        times = measure(twins(name), torch.randn(batch, 3, side, side), here, warm_up=1)
        with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:  # a process has one peak
            plain, multi_scale = (pool.apply(peak_mebibytes, (name, kind, here)) for kind in (PLAIN, MULTI_SCALE))
        rows.append(Growth(name, side, batch, (times[PLAIN][0], times[MULTI_SCALE][0]), (plain, multi_scale)))
        console.print(f"{name}, {side} px, {batch}: {times[MULTI_SCALE][0] / times[PLAIN][0]:.2f}", highlight=False)
    return rows


def peak_mebibytes(name: str, kind: str, setting: Setting) -> float:
    """Most memory of this process, or of the GPU, after two passes of a network."""
    x = prepared(torch.randn(setting.batch, 3, setting.side, setting.side), setting)
    model = prepared(twins(name)[kind], setting)
    for _ in range(2):
        step(model, x, setting.backward)
    used = torch.cuda.max_memory_allocated() if setting.device.startswith("cuda") else peak_memory()
    return used / 2**20


def growth_table(rows: Sequence[Growth], setting: Setting) -> Table:
    """A row for each network and size: of the plain twin in ms and MiB, and the multi-scale network's ratios."""
    columns = ("", "px", "batch", "plain, ms", "multi-scale, ms", "ratio", "plain, MiB", "multi-scale, MiB", "ratio")
    cells: Rows = [
        (row.name, *(Cell(f"{n:,}") for n in (row.side, row.batch)), *_cells(row.milliseconds), *_cells(row.mebibytes))
        for row in rows
    ]
    note = "times of a batch, medians; memory: the most that a process with this network held, with Python and torch"
    return Table("growth", f"growth: {setting}", columns, cells, note=note)


def draw_growth(rows: Sequence[Growth], folder: Path) -> list[Path]:
    """Write ``benchmark_growth.svg``: ratios to the plain twin, of time and of memory, by side and by batch."""
    from mmms_plugin.report.figure_style import NEUTRAL, RUN_COLOURS, WIDEST, canvas, save

    names = list(dict.fromkeys(row.name for row in rows))
    with canvas(WIDEST, 5.2, 2, 2) as (figure, axes):
        for axis, (value, what), (key, label) in zip(
            axes,
            [("milliseconds", "time"), ("milliseconds", "time"), ("mebibytes", "memory"), ("mebibytes", "memory")],
            [("side", "side of one picture, px"), ("batch", f"pictures of {POINTS[0][0]} px at a time")] * 2,
            strict=True,
        ):
            first = {"side": POINTS[0][1], "batch": POINTS[0][0]}[key]
            other = {"side": "batch", "batch": "side"}[key]
            for name, colour in zip(names, cycle(RUN_COLOURS), strict=False):
                line = sorted((getattr(r, key), r) for r in rows if r.name == name and getattr(r, other) == first)
                ratios = [getattr(r, value)[1] / getattr(r, value)[0] for _, r in line]
                axis.plot([x for x, _ in line], ratios, "o-", color=colour, label=name, markersize=3)
            axis.axhline(1, color=NEUTRAL, linewidth=0.8)
            axis.set_xscale("log", base=2)
            ticks = sorted({getattr(row, key) for row in rows if getattr(row, other) == first})
            axis.set_xticks(ticks, [str(tick) for tick in ticks])
            axis.minorticks_off()
            axis.set(xlabel=label, ylabel=f"{what}, plain = 1", ylim=(0, None))
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return save(figure, folder, FIGURE, ("svg",))


def _cells(pair: tuple[float, float]) -> tuple[Cell, Cell, Cell]:
    plain, multi_scale = pair
    return Cell(f"{plain:,.0f}"), Cell(f"{multi_scale:,.0f}"), Cell(f"{multi_scale / plain:.2f}")
