"""Figures of scale policies, exits, dilations and receptive fields, in the one style of all figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from mmms_plugin.report.figure_style import (
    GAIN,
    HEAT,
    LOSS,
    LOW_HIGH,
    NEUTRAL,
    RUN_COLOURS,
    SMALLEST,
    WIDEST,
    WIDTH,
    canvas,
    log_side_axis,
    shorten,
)
from mmms_plugin.report.page import Tile
from mmms_plugin.scale.policy.dilations import DilationShares
from mmms_plugin.scale.policy.table import OUTCOMES, Group, Row, Table
from mmms_plugin.scale.receptive_field import WIDTHS, ReceptiveField

NAMED = 40  # up to so many classes, each has a bar and a name
CELLS = 80  # along each axis of a density
Example = tuple[Row, Tile | None]  # a picture and its thumbnail, if it can be read


def draw_classes(groups: Sequence[Group]) -> Figure:
    """Figure 5: the overall score of every class, sorted; of many classes only the first and last ten are named."""
    if len(groups) <= NAMED:
        with canvas(WIDTH, 0.8 + 0.19 * len(groups)) as (figure, (axis,)):
            places = np.arange(len(groups))
            axis.barh(places, [group.score for group in groups], color=RUN_COLOURS[0])
            axis.set_yticks(places, [f"{shorten(group.name)} ({group.pictures})" for group in groups])
            axis.set_ylim(len(groups) - 0.4, -0.6)
            axis.set_xlabel("mean scale policy score, high − low resolution")
            axis.axvline(0, color=NEUTRAL, linewidth=0.8)
            return figure
    with canvas(WIDTH, 4.2) as (figure, (axis,)):
        scores = [group.score for group in groups]
        axis.plot(range(len(groups)), scores, color=RUN_COLOURS[0])
        axis.set(xlabel="class, sorted", ylabel="mean scale policy score")
        for title, names, x in (("highest", groups[:10], 0.33), ("lowest", groups[-10:], 0.98)):
            text = "\n".join([title, *(shorten(group.name) for group in names)])
            axis.text(x, 0.98, text, transform=axis.transAxes, va="top", ha="right", fontsize=7, color=NEUTRAL)
        return figure


def draw_blocks(table: Table) -> Figure:
    """Figure 6, middle: scores of all pictures at every block: median, middle half, and 5 to 95 %."""
    low, first, middle, third, high = np.quantile(table.values, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
    with canvas(WIDEST, 3.4) as (figure, (axis,)):
        places = np.arange(len(table.columns))
        axis.vlines(places, low, high, color=RUN_COLOURS[0], linewidth=1.2, label="5 to 95 % of the pictures")
        axis.vlines(places, first, third, color=RUN_COLOURS[0], linewidth=5, alpha=0.5, label="middle half")
        axis.plot(places, middle, "o", color=RUN_COLOURS[1], markersize=4, label="median")
        axis.axhline(0, color=NEUTRAL, linewidth=0.8)
        step = max(1, len(places) // 24)
        axis.set_xticks(places[::step], [shorten(name, 18) for name in table.columns[::step]], rotation=60, ha="right")
        axis.set_ylabel("score, high − low resolution")
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
        return figure


def draw_map(table: Table, points: NDArray[np.float64], method: str) -> Figure:
    """Figure 6, left and right: all pictures by their policy, coloured by overall score and by right and wrong."""
    rights = [row.right for row in table.rows]
    known = any(right is not None for right in rights)
    with canvas(WIDEST if known else WIDTH, 3.4, 2 if known else 1) as (figure, axes):
        size = float(np.clip(400 / len(points), 2, 14))
        scores = [row.score for row in table.rows]
        dots = axes[0].scatter(
            points[:, 0], points[:, 1], c=scores, cmap=LOW_HIGH, s=size, linewidths=0, rasterized=True
        )
        figure.colorbar(dots, ax=axes[0], label="overall score")
        if known:
            for right, colour, label in ((True, GAIN, "right"), (False, LOSS, "wrong")):
                chosen = points[[answer is right for answer in rights]]
                axes[1].scatter(chosen[:, 0], chosen[:, 1], color=colour, s=size, linewidths=0, rasterized=True,
                                label=f"{label} ({len(chosen)})")  # fmt: skip
            axes[1].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, markerscale=3)
        for axis in axes:
            axis.set_xticks([])
            axis.set_yticks([])
        axes[0].set_xlabel(method)
        return figure


def draw_answers(outcomes: Sequence[int | None], points: NDArray[np.float64], method: str) -> Figure:
    """Figure 6, right: density of all pictures on the first network's map, and of those that one alone gets right."""
    places = np.array([-1 if outcome is None else outcome for outcome in outcomes])
    panels = [("all pictures", np.full(len(places), True), NEUTRAL)]
    panels += [(OUTCOMES[i], places == i, RUN_COLOURS[i - 1]) for i in (1, 2)]
    low, high = points.min(0), points.max(0)
    margin = np.maximum(0.12 * (high - low), 1e-6)
    edges = [np.linspace(low[i] - margin[i], high[i] + margin[i], CELLS + 1) for i in (0, 1)]
    with canvas(WIDEST, 2.8, len(panels)) as (figure, axes):
        for axis, (name, chosen, colour) in zip(axes, panels, strict=True):
            x, y = points[chosen].T
            density = gaussian_filter(np.histogram2d(x, y, bins=edges)[0], CELLS / 20)
            axis.imshow(density.T, origin="lower", extent=(0, 1, 0, 1), cmap="Greys", vmin=0, aspect="equal",
                        vmax=max(1e-9, 1.6 * density.max()))  # fmt: skip
            size = float(np.clip(400 / len(points), 2, 12))
            dots = (points[chosen] - low + margin) / (high - low + 2 * margin)
            axis.scatter(dots[:, 0], dots[:, 1], s=size, color=colour, linewidths=0, rasterized=True)
            axis.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1), title=f"{name} ({int(chosen.sum())})")
        axes[0].set_xlabel(method)
        return figure


def draw_sizes(table: Table, correlations: Sequence[float]) -> Figure:
    """The overall score over the median side of the objects, and the correlation of every block with that side."""
    rows = [row for row in table.rows if row.sides]
    with canvas(WIDEST, 3.2, 2) as (figure, (left, right)):
        sides = np.array([np.median(row.sides) for row in rows])
        left.scatter(sides, [row.score for row in rows], s=8, linewidths=0, color=RUN_COLOURS[0], rasterized=True)
        log_side_axis(left, max(1.0, sides.min() / 1.2), max(2.0, sides.max() * 1.2))
        left.set(xlabel="median side of the picture's objects, px", ylabel="overall score")
        right.barh(range(len(correlations)), correlations, color=RUN_COLOURS[0])
        step = max(1, len(correlations) // 24)
        right.set_yticks(range(0, len(correlations), step), [shorten(n, 18) for n in table.columns[::step]])
        right.set_ylim(len(correlations) - 0.4, -0.6)
        right.set(xlabel="correlation with log2 side", xlim=(-1, 1))
        right.axvline(0, color=NEUTRAL, linewidth=0.8)
        return figure


def draw_exits(table: Table) -> Figure:
    """Number of pictures that leave at each exit, by right and wrong answers if known."""
    exits, count = table.exits, len(table.columns)
    with canvas(WIDTH, 3.0) as (figure, (axis,)):
        base: NDArray[np.float64] = np.zeros(count)
        for right, colour, label in ((True, GAIN, "right"), (False, LOSS, "wrong"), (None, RUN_COLOURS[0], "")):
            chosen = np.array([row.right is right for row in table.rows], bool)
            if chosen.any():
                height = np.bincount(exits[chosen], minlength=count)
                axis.bar(range(1, count + 1), height, bottom=base, color=colour, label=label or None)
                base = base + height
        axis.set(xlabel=f"exit, confidence ≥ {table.threshold:g}", ylabel="pictures", xticks=range(1, count + 1))
        if any(row.right is not None for row in table.rows):
            axis.legend(title="answer of the exit")
        return figure


def draw_examples(groups: Sequence[tuple[str, int, Sequence[Example]]]) -> Figure:
    """A row for every exit: its name, how many pictures leave there, and some of them with their answers."""
    across = max(1, *(len(chosen) for _, _, chosen in groups))
    height = (WIDEST / (across + 1) + 0.15) * len(groups)
    with canvas(WIDEST, height, across + 1, len(groups)) as (figure, axes):
        for i, (name, count, chosen) in enumerate(groups):
            line = axes[i * (across + 1) : (i + 1) * (across + 1)]
            line[0].text(0.5, 0.5, f"{name}\n{count} pictures", ha="center", va="center", fontsize=8)
            for axis, (row, tile) in zip(line[1:], chosen, strict=False):
                if tile is not None:
                    axis.imshow(tile)
                colour = LOSS if row.right is False else NEUTRAL
                axis.set_title(shorten(row.predicted, 14), fontsize=SMALLEST, color=colour, pad=2)
            for axis in line:
                axis.axis("off")
        return figure


def draw_dilations(layers: Sequence[DilationShares]) -> Figure:
    """The share of every dilation in every layer's weight; ticks mark the shares of the kernels."""
    dilations = sorted({dilation for layer in layers for dilation in layer.weight})
    with canvas(WIDTH, 1.0 + 0.17 * len(layers)) as (figure, (axis,)):
        base: NDArray[np.float64] = np.zeros(len(layers))
        expected: NDArray[np.float64] = np.zeros(len(layers))
        colours = colormaps[HEAT](np.linspace(0.15, 0.9, len(dilations)))
        for dilation, colour in zip(dilations, colours, strict=True):
            width = np.array([layer.weight.get(dilation, 0.0) for layer in layers])
            axis.barh(range(len(layers)), width, left=base, color=colour, label=f"dilation {dilation}")
            expected = expected + [layer.kernels.get(dilation, 0.0) for layer in layers]
            axis.plot(expected, range(len(layers)), "|", color="black", markersize=5)
            base = base + width
        axis.set_yticks(range(len(layers)), [shorten(layer.name) for layer in layers], fontsize=6.5)
        axis.set_ylim(len(layers) - 0.4, -0.6)
        axis.set(xlabel="share of the absolute weights (ticks: of the kernels)", xlim=(0, 1))
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=max(1, len(dilations)))
        return figure


def draw_fields(fields: Sequence[ReceptiveField]) -> Figure:
    """The gradient of every stage's middle cell, with the theoretical field and a circle of two standard deviations."""
    columns = min(4, len(fields))
    rows = -(-len(fields) // columns)
    with canvas(WIDEST, (WIDEST / columns + 0.55) * rows, columns, rows) as (figure, axes):
        for axis, field in zip(axes, fields, strict=False):
            height, width = field.heat.shape
            axis.imshow(np.sqrt(field.heat), cmap="magma", vmin=0, vmax=1)
            middle = (width / 2, height / 2)
            axis.add_patch(Circle(middle, field.two_sigma, fill=False, color="#56B4E9", linewidth=1.2))
            if field.theoretical is not None:
                corner = (middle[0] - field.theoretical / 2, middle[1] - field.theoretical / 2)
                box = Rectangle(corner, field.theoretical, field.theoretical, fill=False, color="white", ls="--")
                axis.add_patch(box)
            axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
            theory = f"more than {WIDTHS[-1]}" if field.theoretical is None else str(field.theoretical)
            effective = f"±2 std {2 * field.two_sigma:.0f} px"
            title = f"{field.name}, stride {field.stride}\ntheory {theory} px\n{effective}"
            axis.set_title(title, fontsize=8)
        for axis in axes[len(fields) :]:
            axis.axis("off")
        return figure
