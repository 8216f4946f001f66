"""Figures of the size report, from plain arrays. NaN is n/a and is drawn as such, never as a number.

Every function returns an open matplotlib figure; ``figure_style.save`` writes and closes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from mmms_plugin.report.figure_style import (
    ERROR_COLOURS,
    GAIN,
    HEAT,
    LOSS,
    MEASURE_COLOURS,
    NEUTRAL,
    RUN_COLOURS,
    SMALLEST,
    UNDECIDED,
    WIDEST,
    canvas,
    hundredths,
    log_side_axis,
    shorten,
)
from mmms_plugin.report.tables import percent
from mmms_plugin.size_ap.results import Interval

ROWS_A_PANEL, PANELS = 40, 3  # of the heat map; of more classes only the best and worst are drawn
Level = tuple[int, float | None, float | None]
LONGEST_LABEL = 36  # letters of a line below an axis
ACROSS = 3  # panels of confusions
VALUES_UP_TO = 6  # columns of the heat map that leave room for numbers


@dataclass(frozen=True)
class Series:
    """One run's values with their intervals.

    Attributes:
        name: of the run.
        values: (n,) floats, NaN for n/a.
        low, high: (n,) limits of the intervals; all NaN without bootstrap.
    """

    name: str
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, name: str, values: Iterable[float | None], intervals: Iterable[Interval | None]) -> Series:
        """From values and intervals, None if undefined."""
        limits = [interval or Interval(None, None) for interval in intervals]
        return cls(name, array(values), array(limit.low for limit in limits), array(limit.high for limit in limits))


def array(values: Iterable[float | int | None]) -> np.ndarray:
    """(n,) float64, None as NaN."""
    return np.array([np.nan if value is None else value for value in values], np.float64)


def draw_bars(labels: Sequence[str], runs: Sequence[Series], ylabel: str, xlabel: str = "") -> Figure:
    """Bars with intervals, the runs side by side; n/a marks missing bars.

    Args:
        labels: (n,) names of the places; the first ("all") is set apart.
        runs: at least one.
    """
    with canvas(_width(labels, 0.95 + 0.33 * (len(runs) - 1)), 3.3) as (figure, (axis,)):
        x, width = _places(len(labels)), 0.74 / len(runs)
        tops = [np.where(np.isfinite(r.high), r.high, r.values) for r in runs]
        ceiling = 1.22 * max(0.05, float(np.nanmax([np.nanmax([*t, 0.0]) for t in tops])))
        empty = np.all([~np.isfinite(run.values) for run in runs], axis=0)
        for i, run in enumerate(runs):
            here = x + width * (i - (len(runs) - 1) / 2)
            _bars(axis, here, run, width, RUN_COLOURS[i % len(RUN_COLOURS)], ceiling, empty)
        for place in x[empty]:
            axis.text(place, 0.015 * ceiling, "n/a", ha="center", va="bottom", fontsize=8, color=NEUTRAL)
        axis.set_ylim(0, ceiling)
        axis.set_yticks([tick for tick in axis.get_yticks() if tick <= min(1.0, ceiling)])
        hundredths(axis.yaxis)
        _finish_places(axis, x, labels, ylabel, xlabel)
        if len(runs) > 1:
            beside = _inches(" " * 12 + "".join(run.name for run in runs)) < figure.get_size_inches()[0] - 1.0
            axis.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(runs) if beside else 1, borderaxespad=0.2)
        return figure


def draw_errors(labels: Sequence[str], types: Sequence[Series], ylabel: str, xlabel: str = "") -> Figure:
    """Bars with intervals, the types of error side by side, one place per bin.

    Args:
        labels: (n,) names of the bins; the first ("all") is set apart.
        types: (n,) gains of each type, NaN for n/a.
    """
    with canvas(_width(labels, 1.3), 3.3) as (figure, (axis,)):
        x, width = _places(len(labels)), 0.84 / len(types)
        for i, (kind, colour) in enumerate(zip(types, ERROR_COLOURS, strict=True)):
            place = x + width * (i - (len(types) - 1) / 2)
            axis.bar(place, np.nan_to_num(kind.values), 0.9 * width, color=colour, label=kind.name)
            axis.vlines(place, kind.low, kind.high, color="black", linewidth=0.8)
        for place in x[np.all([~np.isfinite(kind.values) for kind in types], axis=0)]:
            axis.text(place, 0, "n/a", ha="center", va="bottom", fontsize=8, color=NEUTRAL)
        axis.axhline(0, color=NEUTRAL, linewidth=0.8)
        axis.set_ylim(top=max(axis.get_ylim()[1], 0.01))
        hundredths(axis.yaxis)
        _finish_places(axis, x, labels, ylabel, xlabel)
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2)
        return figure


def draw_precision_recall(labels: Sequence[str], curves: np.ndarray, how: str) -> Figure:
    """Precision against recall, a curve for each bin; bins without objects are named as n/a.

    Args:
        labels: (n,) names of the bins; the first ("all") is black.
        curves: (n, levels) precision at evenly spread recalls from 0 to 1, NaN for n/a.
        how: what is drawn, for the axis.
    """
    with canvas(4.6, 3.6) as (figure, (axis,)):
        recalls = np.linspace(0, 1, curves.shape[1])
        colours = cycle((NEUTRAL, *RUN_COLOURS))
        for label, curve, colour, line in zip(labels, curves, colours, cycle(("-", "--", "-.", ":")), strict=False):
            there = np.isfinite(curve).all()
            short = shorten(label, LONGEST_LABEL)
            axis.plot(recalls, curve, line, color=colour, label=short if there else f"{short}: n/a")
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1.02)
        hundredths(axis.xaxis)
        hundredths(axis.yaxis)
        axis.set_xlabel("recall (× 100)")
        axis.set_ylabel(f"precision (× 100)\n{how}")
        axis.grid()
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return figure


def draw_reliability(panels: Sequence[tuple[str, Sequence[tuple[str, Sequence[Level]]]]], ylabel: str) -> Figure:
    """Reliability diagrams: share of right detections against mean score, beside the diagonal of perfect scores.

    Args:
        panels: title and curves of each; a curve is a name, and for each interval of score the number of detections,
            their mean score, and the share that is right. Dots are as large as the intervals are full.
        ylabel: of all panels.
    """
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    with canvas(min(WIDEST, 0.9 + 2.1 * columns), 0.6 + 2.35 * rows, columns, rows, sharey=True) as (figure, axes):
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        for axis, (title, curves) in zip(axes, panels, strict=False):
            axis.plot([0, 1], [0, 1], color=NEUTRAL, linewidth=0.8, linestyle="--")
            for (name, levels), colour in zip(curves, cycle(RUN_COLOURS), strict=False):
                full = [(score, right, count) for count, score, right in levels if score is not None]
                x, y, counts = (array(column) for column in zip(*full, strict=True)) if full else (array(()),) * 3
                axis.plot(x, y, color=colour, linewidth=1.2, label=shorten(name, LONGEST_LABEL))
                axis.scatter(x, y, 4 + 46 * counts / max(1.0, float(counts.max(initial=1))), color=colour)
            axis.set_title("\n".join(shorten(line, 26) for line in title.splitlines()), fontsize=9)
            axis.set_xlim(0, 1)
            axis.set_ylim(0, 1.03)
            hundredths(axis.xaxis)
            hundredths(axis.yaxis)
            axis.grid()
            axis.set_xlabel("score (× 100)")
        for axis in axes[::columns]:
            axis.set_ylabel(ylabel)
        if len(panels[0][1]) > 1:
            figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=2)
        return figure


def draw_difference(labels: Sequence[str], series: Series, ylabel: str, xlabel: str = "") -> Figure:
    """Differences with intervals around a zero line, coloured if the interval excludes zero.

    Args:
        labels: (n,) names of the places; the first ("all") is set apart.
        series: second run minus first.
    """
    with canvas(_width(labels, 1.0), 3.1) as (figure, (axis,)):
        x = _places(len(labels))
        colours = [sign_colour(low, high) for low, high in zip(series.low, series.high, strict=True)]
        reach = np.nanmax(np.abs([*series.low, *series.high, *series.values, 1e-3]))
        axis.axhline(0, color=NEUTRAL, linewidth=0.8)
        for i, value in enumerate(series.values):
            if not np.isfinite(value):
                axis.text(x[i], 0.04 * reach, "n/a", ha="center", va="bottom", color=NEUTRAL, fontsize=8)
                continue
            axis.plot([x[i]] * 2, [series.low[i], series.high[i]], color=colours[i], linewidth=2.2)
            axis.plot(x[i], value, "o", color=colours[i], markersize=6)
            clear = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # of the zero line
            if _room(axis, len(x)) > 0.2 + _inches("+10.0"):  # else the numbers are in the tables
                axis.text(x[i] + 0.1, value, percent(value, sign=True), va="center", fontsize=8, bbox=clear)
        axis.set_ylim(-1.15 * reach, 1.15 * reach)
        hundredths(axis.yaxis, signed=True)
        _finish_places(axis, x, labels, ylabel, xlabel)
        axis.spines["bottom"].set_visible(False)
        axis.tick_params(axis="x", length=0)
        return figure


def draw_class_map(
    classes: Sequence[str], columns: Sequence[str], values: np.ndarray, bar_label: str, xlabel: str = ""
) -> Figure:
    """Heat map of class by size, best class first; n/a is hatched, classes without objects are left out.

    Of more than 120 classes only the 60 best and 60 worst are drawn, and the title says so.

    Args:
        classes: (k,) names, any text.
        columns: (n,) names; classes are sorted by the first ("all").
        values: (k, n), NaN for n/a.
    """
    order = np.argsort(-np.nan_to_num(values[:, 0], nan=-1.0), kind="stable")
    order = order[np.isfinite(values[order]).any(1)] if np.isfinite(values).any() else order
    left_out = max(0, len(order) - ROWS_A_PANEL * PANELS)
    if left_out:
        half = ROWS_A_PANEL * PANELS // 2
        order = np.r_[order[:half], order[-half:]]
    panels = -(-len(order) // ROWS_A_PANEL)
    rows = -(-len(order) // panels)
    parts = [order[i * rows : (i + 1) * rows] for i in range(panels)]
    width = panels * (1.55 + 0.42 * len(columns)) + 0.9
    with canvas(max(3.4, width), max(2.0, 0.19 * rows + 1.1), panels) as (figure, axes):
        for axis, part in zip(axes, parts, strict=True):
            _heat_panel(axis, [shorten(classes[i], 22) for i in part], columns, values[part], rows)
        image = axes[-1].images[0]
        bar = figure.colorbar(
            image, ax=axes, label=bar_label, aspect=30, shrink=min(1, 4 / (0.19 * rows + 1.1)), pad=0.02
        )
        hundredths(bar.ax.yaxis)
        axes[0].set_xlabel(xlabel)
        if left_out:
            half = ROWS_A_PANEL * PANELS // 2
            figure.suptitle(f"{half} best and {half} worst of {left_out + 2 * half} classes", fontsize=9)
        return figure


def draw_confusion(titles: Sequence[str], rows: Sequence[str], columns: Sequence[str], shares: np.ndarray) -> Figure:
    """Which class is taken for which, a panel for each bin.

    Args:
        titles: (n,) of the panels.
        rows, columns: (k,) names of objects, of detections.
        shares: (n, k, k) of the row, NaN for n/a.
    """
    across = 2 if len(titles) == 4 else min(ACROSS, len(titles))
    down = -(-len(titles) // across)
    side = 0.9 + 0.16 * len(rows)
    with canvas(across * side + 0.9, down * (side + 0.7), across, down) as (figure, axes):
        for axis in axes[len(titles) :]:
            axis.remove()
        for number, (axis, title, values) in enumerate(zip(axes, titles, shares, strict=False)):
            image = axis.imshow(np.ma.masked_invalid(values), cmap=HEAT, vmin=0, vmax=1, interpolation="nearest")
            axis.set_title(title)
            axis.set_xticks(range(len(columns)), columns, rotation=90)
            axis.set_yticks(range(len(rows)), rows if number % across == 0 else [""] * len(rows))
            axis.tick_params(length=0)
            axis.spines[:].set_visible(False)
        figure.supxlabel("detection", fontsize=8)
        figure.supylabel("object", fontsize=8)
        figure.colorbar(image, ax=axes[: len(titles)], label="share of the row", aspect=30, pad=0.02)
        return figure


def draw_curves(sides: np.ndarray, runs: Sequence[Series], counts: np.ndarray, ylabel: str, xlabel: str) -> Figure:
    """AP against object size with bands, and above it the number of objects behind each point.

    Args:
        sides: (n,) centres of the windows, px.
        runs: at least one.
        counts: (n,) objects per window.
    """
    with canvas(6.4, 3.6) as (figure, (axis,)):
        for run, colour, line in zip(runs, cycle(RUN_COLOURS), cycle(("-", "--", ":")), strict=False):
            if np.isfinite(run.low).any():
                axis.fill_between(sides, run.low, run.high, color=colour, alpha=0.18, linewidth=0)
            axis.plot(sides, run.values, line, color=colour, label=run.name, marker="o", markersize=3)
        axis.set_ylim(0, 1.05 * max(0.05, float(np.nanmax([0.0, *(np.nanmax([0, *r.values, *r.high]) for r in runs)]))))
        hundredths(axis.yaxis)
        axis.set_ylabel(ylabel)
        axis.set_xlabel(xlabel)
        axis.grid(axis="y")
        low, high = float(sides[0]) / 2**0.25, float(sides[-1]) * 2**0.25
        log_side_axis(axis, low, high)
        below = axis.inset_axes((0, 1.03, 1, 0.17), sharex=axis)
        below.fill_between(sides, 0, counts, color="#BBBBBB", linewidth=0, step="mid")
        below.set_ylim(0, max(1, 1.05 * counts.max()))
        below.set_yticks([0, int(counts.max())], ["0", f"{int(counts.max()):,}"])
        below.set_ylabel("objects", rotation=0, ha="right", va="center")
        below.tick_params(axis="x", labelbottom=False, length=0)
        below.spines["bottom"].set_visible(False)
        if len(runs) > 1:
            short = [shorten(run.name, 2 * LONGEST_LABEL) for run in runs]
            beside = _inches(" " * 12 * len(runs) + "".join(short)) < 5.4
            figure.legend(axis.lines, short, loc="outside lower left", ncols=len(runs) if beside else 1)
        return figure


def draw_sizes(edges: np.ndarray, counts: np.ndarray, spans: Sequence[tuple[str, float, float]], xlabel: str) -> Figure:
    """Histogram of object sides on a log2 axis, with the limits of the bins.

    Args:
        edges: (n + 1,) limits of the columns, px.
        counts: (n,) objects.
        spans: name, low and high side of each bin, px; high may be infinite.
    """
    with canvas(6.4, 3.0) as (figure, (axis,)):
        axis.stairs(counts, edges, fill=True, color=RUN_COLOURS[0], alpha=0.85)
        first, last, top = edges[0], edges[-1], 1.18 * max(1, counts.max())
        for cut in {side for _, low, high in spans for side in (low, high) if first < side < last}:
            axis.axvline(cut, color=NEUTRAL, linewidth=0.9, linestyle="--")
        for name, low, high in spans:
            start, end = np.log2(np.clip([low, high], first, last))
            name = name.replace("_", "_\n")
            if end - start > 0.016 * max(map(len, name.splitlines())) * np.log2(last / first):  # there is room for it
                middle = 2 ** ((start + end) / 2)
                axis.text(middle, 0.99 * top, name, ha="center", va="top", fontsize=8, color=NEUTRAL)
        axis.set_ylim(0, top)
        axis.set_ylabel("objects")
        axis.set_xlabel(xlabel)
        axis.yaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        axis.yaxis.set_major_formatter("{x:,.0f}")
        axis.grid(axis="y")
        log_side_axis(axis, float(first), float(last))
        return figure


def draw_groups(labels: Sequence[str], series: Sequence[Series], ylabel: str) -> Figure:
    """Relative improvement per image group as horizontal bars with percentages, one colour per measure.

    Args:
        labels: (n,) groups with their image counts.
        series: one per measure (AP, F1), as fractions.
    """
    with canvas(6.4, 1.2 + 0.5 * len(labels)) as (figure, (axis,)):
        y, height = np.arange(len(labels))[::-1].astype(float), 0.74 / len(series)
        extent = np.concatenate([np.r_[s.values, s.low, s.high] for s in series])
        reach = max(float(np.nanmax(np.abs(np.r_[extent, 0.01]))), 0.01)
        for i, measure in enumerate(series):
            place = y - height * (i - (len(series) - 1) / 2)
            axis.barh(place, np.nan_to_num(measure.values), 0.92 * height, color=MEASURE_COLOURS[i], label=measure.name)
            axis.hlines(place, measure.low, measure.high, color="black", linewidth=1)
            _write_percentages(axis, place, measure, reach)
        for place in y[np.all([~np.isfinite(measure.values) for measure in series], axis=0)]:
            axis.text(0.01 * reach, place, "n/a", va="center", fontsize=8, color=NEUTRAL)
        axis.axvline(0, color=NEUTRAL, linewidth=0.8)
        axis.set_yticks(y, labels)
        low = -1.3 * reach if np.nanmin(np.r_[extent, 0.0]) < 0 else 0.0
        axis.set_xlim(low, 1.3 * reach)
        hundredths(axis.xaxis, signed=True)
        axis.set_xlabel(ylabel)
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2)
        return figure


def sign_colour(low: float, high: float) -> str:
    """Gain above zero, loss below, grey if the interval contains zero or is n/a."""
    return GAIN if low > 0 else LOSS if high < 0 else UNDECIDED


def _places(count: int) -> np.ndarray:
    return np.arange(count) + 0.35 * (np.arange(count) > 0)  # "all" stands apart


def _width(labels: Sequence[str], least: float) -> float:
    """Inches that keep the labels' longest lines apart."""
    longest = max(_inches(line) for label in labels for line in label.splitlines())
    return min(WIDEST, max(4.2, max(least, 0.2 + longest) * len(labels) + 1.2))


def _shortened(label: str, limit: int) -> str:
    return "\n".join(shorten(line, limit) for line in label.splitlines())


def _inches(text: str, points: float = 8) -> float:
    return 0.0085 * points * len(text)


def _wrapped(label: str, room: float) -> str:
    """The label, its lines broken after spaces and underscores if they need more than ``room`` inches."""
    most = int(room / _inches("x", SMALLEST))
    lines = [line.replace("_", "_ ") for line in label.splitlines()]
    parts = [part for line in lines for part in wrap(line, max(most, 1), break_long_words=False)]
    return "\n".join(part.replace("_ ", "_") for part in parts)


def _room(axis: Axes, places: int) -> float:
    """Inches of one place on the x axis."""
    width = axis.figure.get_figwidth() if isinstance(axis.figure, Figure) else 6.0
    return (width - 1.0) / (places + 0.5)


def _finish_places(axis: Axes, x: np.ndarray, labels: Sequence[str], ylabel: str, xlabel: str) -> None:
    room, turned = _room(axis, len(labels)), 0
    tight = any(_inches(line) > room for label in labels for line in label.splitlines())
    if tight:
        wrapped = [_wrapped(_shortened(label, 2 * LONGEST_LABEL), room) for label in labels]
        turned = 90 * any(_inches(line, SMALLEST) > room for label in wrapped for line in label.splitlines())
        labels = wrapped if not turned else [_shortened(label, LONGEST_LABEL) for label in labels]
        if turned and 1.3 * max(len(label.splitlines()) for label in labels) * SMALLEST / 72 > room:
            labels = [_shortened(label.replace("\n", ", "), LONGEST_LABEL) for label in labels]
    axis.set_xticks(x, labels, rotation=turned)
    axis.tick_params(axis="x", labelsize=SMALLEST if tight else 8)
    axis.set_xlabel(xlabel)
    axis.set_xlim(x[0] - 0.6, x[-1] + 0.6)
    axis.set_ylabel(ylabel)
    axis.grid(axis="y")


def _bars(axis: Axes, x: np.ndarray, run: Series, width: float, colour: str, ceiling: float, empty: np.ndarray) -> None:
    """The bars of one run; ``empty`` places, n/a in every run, are labelled once for all."""
    axis.bar(x, np.nan_to_num(run.values), 0.92 * width, color=colour, label=run.name)
    axis.vlines(x, run.low, run.high, color="black", linewidth=1)
    room = width * _room(axis, len(x))
    upright = 90 if room < _inches("100.0", SMALLEST) else 0
    style: Any = dict(ha="center", va="bottom", fontsize=SMALLEST if upright else 8, rotation=upright)
    for i, (place, value, high) in enumerate(zip(x, run.values, run.high, strict=True)):
        if not np.isfinite(value) and not empty[i]:
            axis.text(place, 0.015 * ceiling, "n/a", color=NEUTRAL, **style)
        elif np.isfinite(value) and room > 1.2 * SMALLEST / 72:  # else the numbers are in the tables
            top = max(value, high) if np.isfinite(high) else value
            axis.text(place, top + 0.015 * ceiling, f"{100 * value:.1f}", **style)


def _heat_panel(axis: Axes, names: Sequence[str], columns: Sequence[str], values: np.ndarray, rows: int) -> None:
    axis.imshow(np.ma.masked_invalid(values), cmap=HEAT, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    for row, column in np.argwhere(~np.isfinite(values)):
        cell = Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="white", edgecolor="#999999", hatch="////", lw=0)
        cell.set_in_layout(False)  # it is inside, and the layout would measure hundreds of cells and numbers
        axis.add_patch(cell)
    if len(columns) <= VALUES_UP_TO:
        for row, column in np.argwhere(np.isfinite(values)):
            value = values[row, column]
            colour = "white" if value < 0.5 else "black"
            text = axis.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=colour, fontsize=7)
            text.set_in_layout(False)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(rows - 0.5, -0.5)
    axis.set_xticks(
        range(len(columns)), [shorten(c, 16) for c in columns], rotation=40, ha="left", rotation_mode="anchor"
    )
    axis.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axis.axvline(0.5, color="white", linewidth=3, gid="paper")  # as on the page
    axis.spines[:].set_visible(False)


def _write_percentages(axis: Axes, places: np.ndarray, series: Series, reach: float) -> None:
    for place, value, low, high in zip(places, series.values, series.low, series.high, strict=True):
        if not np.isfinite(value):
            continue
        ends = [end for end in (value, low, high) if np.isfinite(end)]
        end = max(ends) if value >= 0 else min(ends)
        side = "left" if value >= 0 else "right"
        axis.text(
            end + np.sign(value or 1) * 0.02 * reach, place, percent(value, sign=True), va="center", ha=side, fontsize=7
        )
