"""Figures of the methods and the tables of the model zoo, made from the code for the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from mmengine.registry import MODELS

from mmms_plugin.config.facts import read_facts
from mmms_plugin.layers.dilation_lattice import dilation_matrix
from mmms_plugin.reproduction.costs import CLASSES, SIZE, Counted, backbone_of, count_row
from mmms_plugin.reproduction.index import INDEX
from mmms_plugin.reproduction.items import MACS, PARAMS
from mmms_plugin.scale.flops import measure
from mmms_plugin.scale.shapes import draw_shapes, network_shape
from mmms_plugin.weights.catalog import CATALOG, Entry

COLOURS = {1: "#b3d5ec", 2: "#6aaed6", 4: "#1c5f9e"}
INK, PAPER = "#1d2733", "#ffffff"
STYLE = {"font.size": 10, "svg.hashsalt": "mmms", "svg.fonttype": "path", "savefig.facecolor": PAPER}


def generate(folder: Path) -> None:
    """Write the figures and the model zoo into ``folder``; the same code gives the same files."""
    folder.mkdir(exist_ok=True)
    with plt.rc_context(STYLE):
        for name, draw in (("psconv", draw_psconv), ("elastic", draw_elastic), ("shapes", draw_resnet_shapes)):
            figure = draw()
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
            plt.close(figure)
    (folder / "backbones.md").write_text(backbone_table(), encoding="utf-8")
    (folder / "checkpoints.md").write_text(checkpoint_table(), encoding="utf-8")
    (folder / "configs.md").write_text(config_table(), encoding="utf-8")


def backbone_table() -> str:
    """Parameters and multiply-adds, counted now, beside the figures of the papers."""
    ps = [dict(type="mmms_plugin.PSResNet", depth=depth) for depth in (18, 34, 50, 101, 152)]
    ps += [dict(type="mmms_plugin.PSResNet", depth=depth, groups=32, base_width=4) for depth in (50, 101)]
    rows = []
    for config in ps:
        cost = measure(config, SIZE, CLASSES)
        rows.append((f"`{_call(config)}`", f"{cost.params / 1e6:.3f}", f"{cost.macs / 1e9:.3f}", "–"))
    for result in _of_papers():
        params, macs, error = map(result.published, (PARAMS, MACS, "accuracy/top1"))
        given = f"{params} / {macs} / {error} ({result.item.number})"
        config = {key: value for key, value in backbone_of(result.row).items() if key not in ("out_indices", "with_cp")}
        rows.append((f"`{_call(config)}`", f"{result.here(PARAMS):.3f}", f"{result.here(MACS):.3f}", given))
    return _table(("backbone", "parameters, M", "GMAC", "paper: parameters / GFLOPs / top-1 error"), rows)


def _of_papers() -> Iterable[Counted]:
    """The networks of the ELASTIC paper's Tables 2 and 8, each once."""
    items = (INDEX["elastic-table2"], INDEX["elastic-table8"])
    return {row.folder: count_row(item, row) for item in items for row in item.rows if row.config}.values()


def checkpoint_table() -> str:
    """Every checkpoint that the authors publish, with the options of ``mmms convert`` for it."""
    return _table(
        ("checkpoint", "trained for", "published figure", "licence", "convert with"),
        [(_link(e), e.trained_for or "–", e.accuracy or "–", e.licence or "not stated", _convert(e)) for e in CATALOG],
    )


def config_table() -> str:
    """Every config of the package, with the facts that ``mmms configs`` lists."""
    heads = ("config", "task", "method", "parameters, M", "GMAC", "at", "published figure")
    rows = [
        (f"`{f.name}`", f.task, f.method, f"{f.params / 1e6:.1f}", f"{f.macs / 1e9:.1f}",
         f"{f.size[0]} × {f.size[1]}", f.published or "–")
        for f in read_facts().values()
    ]  # fmt: skip
    return _table(heads, rows)


def _call(config: Mapping[str, object]) -> str:
    arguments = ", ".join(f"{key}={value!r}" for key, value in config.items() if key != "type")
    return f"{str(config['type']).removeprefix('mmms_plugin.')}({arguments})"


def _link(entry: Entry) -> str:
    return f"[{entry.name}]({entry.address})" if entry.address else entry.name


def _convert(entry: Entry) -> str:
    return f"`--source {entry.source} --arch {entry.arch}`" if entry.source else entry.remark or "–"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def draw_psconv() -> plt.Figure:
    """The dilation of every kernel of a layer with 8 input and 8 output channels, and the three kernels themselves."""
    figure, axes = plt.subplots(1, 4, figsize=(9.5, 2.9), width_ratios=[1.25, 1, 1, 1], layout="constrained")
    matrix = dilation_matrix((1, 2, 1, 4), 8, 8, "block", "both").numpy()
    for (row, column), dilation in np.ndenumerate(matrix):
        axes[0].add_patch(plt.Rectangle((column, row), 1, 1, facecolor=COLOURS[dilation], edgecolor=PAPER))
        shade = PAPER if dilation == 4 else INK
        axes[0].text(column + 0.5, row + 0.5, str(dilation), ha="center", va="center", color=shade, fontsize=9)
    axes[0].set(
        xlim=(0, 8), ylim=(8, 0), xlabel="input channel", ylabel="output channel", title="dilation of each kernel"
    )
    axes[0].set_xticks([])
    axes[0].set_yticks([])
    axes[0].set_aspect("equal")
    for axis, dilation in zip(axes[1:], COLOURS, strict=True):
        _kernel(axis, dilation)
    return figure


def draw_resnet_shapes() -> plt.Figure:
    """ResNet-50 as designed, and in Shape Adaptor's transfer mode before training."""
    networks = []
    for mode, name in (("human", "human design"), ("autotl", "Shape Adaptor, autotl")):
        config = dict(type="mmms_plugin.ShapeAdaptorResNet", depth=50, mode=mode, init_cfg=None)
        networks.append(network_shape(name, MODELS.build(config).eval(), (224, 224)))
    return draw_shapes(networks)


def _kernel(axis: Axes, dilation: int) -> None:
    axis.set(xlim=(-4.6, 4.6), ylim=(-4.6, 4.6), title=f"dilation {dilation}")
    for x in range(-4, 5):
        for y in range(-4, 5):
            tap = abs(x) in (0, dilation) and abs(y) in (0, dilation)
            face = COLOURS[dilation] if tap else "#f4f6f8"
            axis.add_patch(plt.Rectangle((x - 0.45, y - 0.45), 0.9, 0.9, facecolor=face, edgecolor="#c6ced6", lw=0.5))
    axis.set_aspect("equal")
    axis.axis("off")


def draw_elastic() -> plt.Figure:
    """An Elastic bottleneck: half of the channels at full resolution, half at half resolution, summed."""
    figure, axis = plt.subplots(figsize=(8.5, 2.6), layout="constrained")
    axis.set(xlim=(0, 17), ylim=(0, 5.2))
    axis.axis("off")
    for x, y, text, colour in (
        (0.1, 2.1, "input\nH × W", PAPER),
        (4.4, 3.7, "1×1, 3×3, 1×1\nC/2 at H × W", COLOURS[1]),
        (2.6, 0.5, "average\npool 2×2", "#e8ecf0"),
        (5.6, 0.5, "1×1, 3×3, 1×1\nC/2 at H/2 × W/2", COLOURS[2]),
        (9.4, 0.5, "bilinear\n× 2", "#e8ecf0"),
        (12.0, 2.1, "sum, batch norm\n+ shortcut, ReLU", PAPER),
    ):
        width = 3.2 if "1×1" in text else 3.6 if "sum" in text else 2.0
        box = FancyBboxPatch((x, y), width, 1.1, boxstyle="round,pad=0.08", facecolor=colour, edgecolor=INK, lw=1)
        axis.add_patch(box)
        axis.text(x + width / 2, y + 0.55, text, ha="center", va="center", fontsize=9, color=INK)
    for start, end in (
        ((2.2, 2.9), (4.3, 4.2)),
        ((2.0, 2.0), (2.9, 1.75)),
        ((4.7, 1.05), (5.5, 1.05)),
        ((8.9, 1.05), (9.3, 1.05)),
        ((7.7, 4.2), (12.0, 3.0)),
        ((11.5, 1.2), (12.6, 2.0)),
        ((15.7, 2.65), (16.9, 2.65)),
    ):
        axis.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color=INK, lw=1))
    return figure
