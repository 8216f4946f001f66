"""Figures of network shapes (Liu et al., ECCV 2020, Figure 4): the side of every map, and how training moved it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmms_plugin.backbones.shape_plan import ShapedNetwork
from mmms_plugin.errors import one_line
from mmms_plugin.report.figure_style import NEUTRAL, RUN_COLOURS, WIDTH, canvas, plt
from mmms_plugin.scale.flops import count
from mmms_plugin.scale.training_log import figure_of, logged_scalars

LAYER_HEIGHT = 0.16  # inches
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
    """

    name: str
    sides: tuple[tuple[str, int, int], ...]
    scales: Mapping[str, float]
    params: int
    macs: int


def network_shape(name: str, backbone: ShapedNetwork, size: tuple[int, int]) -> NetworkShape:
    """Sides, scales and cost of a network for a picture of ``size``, (height, width)."""
    sides = tuple(backbone.shapes(*size))
    cells = backbone.plan.cells
    backbone.eval()
    scales = {cells[index].name: adaptor.scale for index, adaptor in backbone.plan.adaptors.items()}
    cost = count(deepcopy(backbone).to("meta"), torch.empty(1, 3, *size, device="meta"))
    return NetworkShape(name, sides, scales, cost.params, cost.macs)


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


def trajectories(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """``{place: [(iteration, s), ...]}`` from the scalars that training logged; empty without them."""
    scales: dict[str, list[tuple[int, float]]] = {}
    for entry in logged_scalars(folder):
        figures = {name: figure for name, value in entry.items() if math.isfinite(figure := figure_of(value))}
        for name, figure in figures.items():
            if name.startswith(SCALAR) and "step" in figures:
                scales.setdefault(one_line(name.removeprefix(SCALAR)), []).append((int(figures["step"]), figure))
    return scales


def draw_trajectories(scalars: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    """s(alpha) of every adaptor over the iterations of a training, given as ``{place: [(iteration, s), ...]}``."""
    with canvas() as (figure, (axis,)):
        colours = plt.get_cmap("viridis")
        for index, (place, points) in enumerate(scalars.items()):
            colour = colours(0.3 + 0.6 * index / max(1, len(scalars) - 1))  # visible on white and on black
            axis.plot(*zip(*points, strict=True), label=place, color=colour, linewidth=1.4)
        axis.set(xlabel="iteration", ylabel="s(alpha), output side / input side")
        axis.grid(True)
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="adaptor, first layer on top")
        return figure
