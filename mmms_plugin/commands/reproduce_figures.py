"""The figures of ``mmms reproduce``: published values and measured ones side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmms_plugin.commands.reproduce_results import Measured, figures_of
from mmms_plugin.report.figure_style import RUN_COLOURS, WIDEST, canvas, save
from mmms_plugin.reproduction.items import Item, Measure, Row

PUBLISHED, HERE = "published", "here"


def draw(item: Item, measured: Measured, folder: Path) -> list[Path]:
    """Draw an item as its ``figure`` says; returns the files."""
    return save(FIGURES[item.figure](item, measured), folder, item.name)


def _value(item: Item, row: Row, place: int, kind: str, measured: Measured) -> float | None:
    """A figure of a row: the published one, or the mean of the measured ones."""
    if kind == PUBLISHED:
        published = row.published[place]
        return None if isinstance(published, str) else published
    figures = figures_of(item, row, item.measures[place], measured)
    return sum(figures) / len(figures) if figures else None


def _draw_errors(item: Item, measured: Measured) -> Figure:
    """The last measure over each of the others; a colour for each network, which Elastic moves along an arrow."""
    rows = [row for row in item.rows if row.config]
    families = list(dict.fromkeys(_family(row) for row in rows))
    colours = dict(zip(families, RUN_COLOURS, strict=True))
    last = len(item.measures) - 1
    with canvas(WIDEST, 5.6, last, 2) as (figure, axes):
        for place, axis in enumerate(axes):
            kind, column = (PUBLISHED, HERE)[place // last], place % last
            starts: dict[str, tuple[float, float]] = {}
            for row in rows:
                x, y = (_value(item, row, number, kind, measured) for number in (column, last))
                if x is None or y is None:
                    continue
                family, elastic = _family(row), "+" in row.name
                axis.plot(x, y, "^" if elastic else "o", color=colours[family], markersize=6)
                if elastic and family in starts:
                    axis.annotate("", (x, y), starts[family], arrowprops=dict(arrowstyle="->", color=colours[family]))
                starts[family] = (x, y)
            _label(axis, item.measures[column], item.measures[last], kind)
        marks = [axes[0].plot([], [], "s", color=colour, label=family)[0] for family, colour in colours.items()]
        marks += [axes[0].plot([], [], mark, color="black", label=label)[0]
                  for mark, label in (("o", "plain"), ("^", "with Elastic"))]  # fmt: skip
        figure.legend(handles=marks, loc="outside upper center", ncols=5)
        return figure


def _family(row: Row) -> str:
    return row.name.partition("+")[0].rstrip("*")


def _label(axis: Axes, x: Measure, y: Measure, kind: str) -> None:
    axis.set(xlabel=x.title, ylabel=y.title, title=kind)
    axis.grid(True)
    if not axis.has_data():
        axis.text(0.5, 0.5, "not trained", transform=axis.transAxes, ha="center", va="center")


def _draw_bars(item: Item, measured: Measured) -> Figure:
    """A group of bars for each row, a colour for each measure."""
    width = 0.8 / len(item.measures)
    with canvas(WIDEST, 3.0, 2) as (figure, axes):
        for kind, axis in zip((PUBLISHED, HERE), axes, strict=True):
            for place, measure in enumerate(item.measures):
                for number, row in enumerate(item.rows):
                    value = _value(item, row, place, kind, measured)
                    x = number + (place - (len(item.measures) - 1) / 2) * width
                    if value is None:
                        axis.text(x, 0, "n/a", ha="center", va="bottom", fontsize=7)
                        continue
                    bars = axis.bar(x, value, width, color=RUN_COLOURS[place])
                    axis.bar_label(bars, [f"{value:.3g}".replace("-", "−")], fontsize=7, padding=2)
                axis.bar(0, 0, color=RUN_COLOURS[place], label=measure.title if kind == PUBLISHED else None)
            axis.set_xticks(range(len(item.rows)), [row.name for row in item.rows])
            axis.axhline(0, color="black", linewidth=0.8)
            axis.margins(y=0.15)
            axis.set_xlim(-0.5, len(item.rows) - 0.5)
            axis.set(ylabel="improvement %", title=kind)
        figure.legend(loc="outside upper center", ncols=len(item.measures))
        return figure


FIGURES: dict[str, Callable[[Item, Measured], Figure]] = {"errors over costs": _draw_errors, "bars": _draw_bars}
