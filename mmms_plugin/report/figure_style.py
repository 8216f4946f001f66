"""One style for all figures: colours, fonts, axes, and saving without half-written files.

Colours are Okabe and Ito's, distinguishable with the common kinds of colour blindness (Wong, Nature Methods 8, 441).
On a page and in a notebook, `DARK` replaces the greys and black in the reader's dark scheme. Nothing here uses pyplot:
its backend and its open figures are the user's.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.text import Text

from mmms_plugin.files import written_whole
from mmms_plugin.report import FIGURES

RUN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # first, second run, ...
MEASURE_COLOURS = ("#0072B2", "#E69F00", "#999999")  # AP, F1 per class, F1 overall
ERROR_COLOURS = ("#0072B2", "#56B4E9", "#F0E442", "#E69F00", "#D55E00", "#666666")  # in the order of ERROR_TYPES
NEUTRAL, INK = "#595959", "#1d2125"
GAIN, LOSS, UNDECIDED = "#009E73", "#CC79A7", "#8C8C8C"  # sign of a difference whose interval excludes zero
LOW_HIGH = LinearSegmentedColormap.from_list("low_high", ("#0072B2", "#999999", "#E67800"))  # as the page's strips
HEAT = "cividis"  # even in lightness, made for colour-blind readers
WIDTH = 6.4  # inches; a page's text width
SMALLEST = 7  # pt
WIDEST = 7.0  # inches; text over two columns: nothing has to be scaled down to unreadable letters
DARK = {  # colours in the reader's dark scheme
    "#1d2125": "#e6e8ea", "#000000": "#e6e8ea", "#595959": "#a3acb5", "#666666": "#a0a0a0", "#dddddd": "#383d43",
    "#bbbbbb": "#5a646e",
}  # fmt: skip
PAPER = "#ffffff", "#1f2226"  # of areas, light and dark; letters on coloured cells stay white
SIDE_TICKS = np.concatenate([[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5], 2.0 ** np.arange(14)])

# Fonts, if installed, for class names in scripts that DejaVu lacks.
OTHER_SCRIPTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Microsoft YaHei", "PingFang SC")
_INSTALLED = {font.name for font in font_manager.fontManager.ttflist}

STYLE: Any = {  # matplotlib types the keys one by one
    "font.family": ["DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in _INSTALLED)],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("figure.autolayout", "figure.constrained_layout.use"), False),  # see `_laid_out`
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "hatch.linewidth": 0.5,
    "svg.fonttype": "path",  # the reader may lack the font
    "svg.hashsalt": "mmms",  # equal numbers give equal files
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a class may be called $x$
}


class Drawing(Figure):
    """A figure that a notebook shows as a report's page does."""

    def _repr_svg_(self) -> str:
        file = io.BytesIO()
        with _laid_out(self):
            self.savefig(file, format="svg", metadata={"Date": None})
        return for_a_page(file.getvalue().decode())


@contextmanager
def canvas(
    width: float = WIDTH, height: float = 3.4, columns: int = 1, rows: int = 1, sharey: bool = False
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of ``width`` x ``height`` inches in this style, and its axes, row after row."""
    with matplotlib.rc_context(STYLE):
        figure = Drawing(figsize=(width, height), layout="constrained")
        yield figure, list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).flat)


def save(figure: Figure, folder: Path, name: str, formats: Sequence[str] = FIGURES) -> list[Path]:
    """Write ``folder/name.png`` (200 dpi), ``.pdf`` and ``.svg``, or some of them, each completely or not at all."""
    written = []
    with _laid_out(figure):
        for kind in formats:
            target = folder / f"{name}.{kind}"
            date = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
            with written_whole(target) as temporary:
                figure.savefig(temporary, dpi=200, format=kind, metadata=date)
            written.append(target)
    return written


@contextmanager
def _laid_out(figure: Figure) -> Iterator[None]:
    """Lay a figure out once, not for every format, for the files that are written inside."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # drawn as a box; the tables show the name
        engine = figure.get_layout_engine()
        if engine:
            engine.execute(figure)  # in half the time that drawing without rendering takes
        keep_labels_apart(figure)
        figure.set_layout_engine(None)  # with a placeholder, savefig would draw twice
        yield
        figure.set_layout_engine(engine)


def for_a_page(svg: str) -> str:
    """An SVG file that follows the reader's light or dark scheme."""
    rules = [f'[style*="{kind}: {light}"] {{ {kind}: {dark} !important }}'
             for light, dark in DARK.items() for kind in ("fill", "stroke")]  # fmt: skip
    light, dark = PAPER
    rules += [f'path[style*="fill: {light}"], rect[fill="{light}"] {{ fill: {dark} !important }}']
    rules += [f"#paper path {{ stroke: {dark} !important }}"]
    style = f"<style>@media (prefers-color-scheme: dark) {{ {' '.join(rules)} }}</style>"
    return svg.replace("</svg>", f"{style}</svg>")


def keep_labels_apart(figure: Figure) -> None:
    """Turn names on the x axis that run together; if that does not help, or of numbers, leave out every second label.

    The figure must have been laid out.
    """
    everything = [part for axes in figure.axes for part in (axes, *axes.child_axes)]
    for axis in [axis for axes in everything for axis in (axes.xaxis, axes.yaxis)]:
        while run_together(axis):
            labels = _labels_of(axis)
            turn = labels[0].get_rotation()
            if isinstance(axis, XAxis) and turn < 90 and any(map(_is_name, labels)):
                for label in labels:
                    label.set(
                        rotation=90 if turn else 35, ha="center" if turn else "right",
                        rotation_mode="default" if turn else "anchor",
                    )  # fmt: skip
            else:
                for label in labels[1::2]:
                    label.set_visible(False)
            figure.draw_without_rendering()


def run_together(axis: Axis) -> bool:
    """Whether two neighbouring labels of an axis leave less than half a letter between them."""
    figure: Any = axis.get_figure()
    dpi = figure.dpi
    for label, other in pairwise(_labels_of(axis)):
        letter = float(label.get_fontsize()) * dpi / 72
        turn = math.radians(label.get_rotation())
        if turn and isinstance(axis, XAxis):
            start, end = (text.get_transform().transform(text.get_position())[0] for text in (label, other))
            lines = label.get_text().count("\n") + 1
            if abs(end - start) * math.sin(turn) < 1.2 * letter * lines:
                return True
        elif label.get_window_extent().padded(letter / 4).overlaps(other.get_window_extent().padded(letter / 4)):
            return True
    return False


def _labels_of(axis: Axis) -> list[Text]:
    """The visible labels of an axis, in order."""
    low, high = sorted(axis.get_view_interval())
    ticks = sorted(
        (tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high), key=lambda t: t.get_loc()
    )
    labels = [label for tick in ticks for label in (tick.label1, tick.label2)]
    return [label for label in labels if label.get_visible() and label.get_text()]


def _is_name(label: Text) -> bool:
    return not re.fullmatch(r"[-+−]?[\d.,]+", label.get_text())


def log_side_axis(axis: Axes, low: float, high: float) -> None:
    """Make x a log2 axis of object side between ``low`` and ``high``, in px, ticked in octaves, or as shares."""
    axis.set_xscale("log", base=2)
    axis.set_xlim(low, high)
    ticks = SIDE_TICKS[(low <= SIDE_TICKS) & (high >= SIDE_TICKS)]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()


def hundredths(axis: Axis, signed: bool = False) -> None:
    """Tick labels times 100, with a true minus sign; ``signed`` gives gains a plus."""
    form = "{:+.3g}" if signed else "{:.3g}"
    axis.set_major_formatter(lambda v, _: form.format(100 * v).replace("-", "−") if abs(v) > 1e-12 else "0")


def shorten(name: str, limit: int = 24) -> str:
    """A name short enough for an axis; the middle is cut out."""
    name = " ".join(name.split())
    return name if len(name) <= limit else f"{name[: limit - limit // 3 - 1]}…{name[-(limit // 3) :]}"
