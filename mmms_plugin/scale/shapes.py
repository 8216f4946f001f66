"""Figures of network shapes (Liu et al., ECCV 2020): the side of every map, and how training moved it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmms_plugin.backbones.shape_plan import ShapedNetwork
from mmms_plugin.errors import one_line
from mmms_plugin.report.figure_style import NEUTRAL, RUN_COLOURS, WIDTH, canvas, shorten
from mmms_plugin.scale.flops import count, kept_for_backward
from mmms_plugin.scale.training_log import figure_of, logged_scalars

LAYER_HEIGHT = 0.16  # inches
PANELS = 3  # beside each other in a figure of several trainings
LABELLED = 8  # most points of a figure that have their names
LOG_FROM = 8  # ratio of costs from which their axis is logarithmic
TOP_1 = "accuracy/top1"  # as `ClassMetric` logs it
SCALAR = "s_"  # of the names that ShapeAdaptorHook logs


@dataclass(frozen=True)
class NetworkShape:
    """One network at one size of picture.

    Attributes:
        name: for the figure's title.
        sides: (name, height, width in px) of the map in front of every layer, and of the last map.
        scales: s(alpha) of every adaptor by its place; empty for a human design.
        params: parameters of the backbone.
        macs: its multiply-adds.
        memory: bytes that training keeps of a picture for the backward pass.
    """

    name: str
    sides: tuple[tuple[str, int, int], ...]
    scales: Mapping[str, float]
    params: int
    macs: int
    memory: int


def network_shape(name: str, backbone: ShapedNetwork, size: tuple[int, int]) -> NetworkShape:
    """Sides, scales and cost of a network for a picture of ``size``, (height, width)."""
    sides = tuple(backbone.shapes(*size))
    cells = backbone.plan.cells
    backbone.eval()
    scales = {cells[index].name: adaptor.scale for index, adaptor in backbone.plan.adaptors.items()}
    cost = count(deepcopy(backbone).to("meta"), torch.empty(1, 3, *size, device="meta"))
    pair = torch.empty(2, 3, *size, device="meta")  # two, for batch norms of maps of one pixel
    memory = kept_for_backward(deepcopy(backbone).to("meta"), pair) // 2
    return NetworkShape(name, sides, scales, cost.params, cost.macs, memory)


def draw_shapes(networks: Sequence[NetworkShape]) -> Figure:
    """A column of bars for each network, its layers from top to bottom; a bar is as wide as the map's side.

    Bars behind an adaptor have the second colour. Sides are geometric means of height and width.
    """
    longest = max(len(network.sides) for network in networks)
    height = 1.0 + LAYER_HEIGHT * longest
    with canvas(WIDTH / 2 * len(networks), height, len(networks)) as (figure, axes):
        for axis, network in zip(axes, networks, strict=True):
            _draw_network(axis, network)
        return figure


def _draw_network(axis: Axes, network: NetworkShape) -> None:
    sides = [(height * width) ** 0.5 for _, height, width in network.sides]
    behind = [False, *(name in network.scales for name, _, _ in network.sides[:-1])]
    rows = range(len(sides))
    colours = [RUN_COLOURS[1] if adapted else RUN_COLOURS[0] for adapted in behind]
    axis.barh(rows, sides, left=[-side / 2 for side in sides], height=0.8, color=colours)
    for row, (name, height, width) in enumerate(network.sides):
        size = f"{height}" if height == width else f"{height}×{width}"
        axis.text(max(sides) / 2 * 1.04, row, f"{size}  {name}", va="center", fontsize=6.5, color=NEUTRAL)
    axis.set_ylim(len(sides) - 0.4, -0.6)
    axis.set_xlim(-max(sides) / 2, max(sides) / 2 * 2.1)
    axis.axis("off")
    axis.set_title(f"{network.name}\n{network.params / 1e6:.2f} M, {network.macs / 1e9:.3f} GMAC")


def logged_accuracy(folder: Path) -> float | None:
    """Top-1 accuracy in per cent of a training's last evaluation; None without one."""
    figures = [figure_of(entry[TOP_1]) for entry in logged_scalars(folder) if TOP_1 in entry]
    return figures[-1] if figures and math.isfinite(figures[-1]) else None


def draw_accuracies(networks: Sequence[tuple[NetworkShape, float]]) -> Figure:
    """Top-1 accuracy in per cent over multiply-adds and over memory, a point for each network."""
    few = len(networks) <= LABELLED
    colours = [RUN_COLOURS[number % len(RUN_COLOURS) if few else 0] for number in range(len(networks))]
    with canvas(WIDTH, 3.4 if few else 3.0, 2, sharey=True) as (figure, axes):
        costs = [(network.macs / 1e9, network.memory / 2**20) for network, _ in networks]
        titles = ("GMAC", "MiB kept of a picture for the backward pass")
        for axis, values, title in zip(axes, zip(*costs, strict=True), titles, strict=True):
            axis.scatter(values, [accuracy for _, accuracy in networks], s=14, color=colours)
            axis.set_xlabel(title)
            axis.grid(True)
            if max(values) > LOG_FROM * min(values):
                axis.set_xscale("log", base=2)
                axis.xaxis.set_major_formatter("{x:g}")
                axis.minorticks_off()
        axes[0].set_ylabel("top-1 accuracy, %")
        if few:
            _legend(figure, [network.name for network, _ in networks])
        return figure


def _legend(figure: Figure, names: Sequence[str]) -> None:
    """A legend above the axes, with the colours of runs."""
    lines = [
        Line2D([], [], color=RUN_COLOURS[number % len(RUN_COLOURS)], label=shorten(name, 44))
        for number, name in enumerate(names)
    ]
    figure.legend(handles=lines, loc="outside upper center", ncols=2)


def trajectories(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """``{place: [(iteration, s), ...]}`` from the scalars that training logged; empty without them."""
    scales: dict[str, list[tuple[int, float]]] = {}
    for entry in logged_scalars(folder):
        figures = {name: figure for name, value in entry.items() if math.isfinite(figure := figure_of(value))}
        for name, figure in figures.items():
            if name.startswith(SCALAR) and "step" in figures:
                scales.setdefault(one_line(name.removeprefix(SCALAR)), []).append((int(figures["step"]), figure))
    return scales


Trajectories = Mapping[str, Sequence[tuple[int, float]]]  # {place: [(iteration, s), ...]}


def draw_compared_trajectories(trainings: Mapping[str, Trajectories]) -> Figure:
    """s(alpha) over the iterations of several trainings, by their names: a panel for each adaptor, a line for each."""
    places = list(dict.fromkeys(place for scalars in trainings.values() for place in scalars))
    columns = min(PANELS, len(places))
    rows = math.ceil(len(places) / columns)
    with canvas(WIDTH, 0.6 + 1.7 * rows, columns, rows, sharey=True) as (figure, axes):
        for axis, place in zip(axes, places, strict=False):
            for number, scalars in enumerate(trainings.values()):
                if place in scalars:
                    mark = "o" if len(scalars[place]) == 1 else ""
                    style: Any = dict(color=RUN_COLOURS[number % len(RUN_COLOURS)], linewidth=1.4, marker=mark)
                    axis.plot(*zip(*scalars[place], strict=True), **style)
            axis.set_title(place)
            axis.grid(True)
        for axis in axes[len(places) :]:
            axis.axis("off")
        for axis in axes[max(0, len(places) - columns) : len(places)]:
            axis.set_xlabel("iteration")
        figure.supylabel("s(alpha), output side / input side", fontsize=9)
        _legend(figure, list(trainings))
        return figure


def draw_trajectories(scalars: Trajectories) -> Figure:
    """s(alpha) of every adaptor over the iterations of a training, given as ``{place: [(iteration, s), ...]}``."""
    with canvas() as (figure, (axis,)):
        colours = colormaps["viridis"]
        for index, (place, points) in enumerate(scalars.items()):
            colour = colours(0.3 + 0.6 * index / max(1, len(scalars) - 1))  # visible on white and on black
            axis.plot(*zip(*points, strict=True), label=place, color=colour, linewidth=1.4)
        axis.set(xlabel="iteration", ylabel="s(alpha), output side / input side")
        axis.grid(True)
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="adaptor, first layer on top")
        return figure
