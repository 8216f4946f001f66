"""Labels of an axis never run together, whatever they say."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from mmms_plugin.report.figure_style import canvas, keep_labels_apart, run_together, save
from mmms_plugin.size_ap.report import figures
from mmms_plugin.size_ap.report.figures import Series

LABELS = {
    "short": ["all", "small", "large"],
    "wide": [f"WWWWWMMMMM{i}\n16–32 px\nn = 1,234,567" for i in range(6)],
    "many": [f"q{i}\n{100 * i}–{100 * i + 100} px\nn = 123,456" for i in range(14)],
    "long": [f"extremely_small_objects_of_kind_{i}\nside below {i} px" for i in range(6)],
    "very many": [f"bin{i}\n{i} px" for i in range(24)],
    "letters": ["i" * 80, "W" * 80, "a b " * 20],
}


def laid_out(figure: Figure) -> list[tuple[bool, list[str]]]:
    """Whether the labels of each axis run together, and what they say, after `keep_labels_apart`."""
    figure.draw_without_rendering()
    keep_labels_apart(figure)
    axes = [part for axis in figure.axes for part in (axis, *axis.child_axes)]
    return [
        (run_together(axis), [label.get_text() for label in axis.get_ticklabels() if label.get_visible()])
        for part in axes
        for axis in (part.xaxis, part.yaxis)
    ]


@pytest.mark.parametrize("name", LABELS)
def test_names_below_an_axis_stay_whole_and_apart(name):
    labels = LABELS[name]
    values = np.linspace(0.1, 0.9, len(labels))
    series = [Series(run, values, values - 0.1, values + 0.1) for run in ("one", "another run")]
    drawn = [
        figures.draw_bars(labels, series, "AP", "size"),
        figures.draw_difference(labels, series[0], "AP", "size"),
        figures.draw_class_map(labels, labels, np.tile(values, (len(labels), 1)), "AP", "size"),
    ]
    for figure in drawn[:2]:
        parts = laid_out(figure)
        assert not any(together for together, _ in parts)
        shown = parts[0][1]
        assert len(shown) == len(labels)
        for text, label in zip(shown, labels, strict=True):
            whole, seen = ("".join(part.replace(",", "").split()) for part in (label, text))
            assert seen == whole or (len(whole) > 36 and "…" in seen)
            words = label.replace("\n", " ").replace("_", "_ ").split()
            assert len(label) > 40 or all(word in text.replace("\n", " ") for word in words)
    assert not any(together for together, _ in laid_out(drawn[2]))


def test_numbers_that_run_together_are_thinned_out(tmp_path):
    with canvas(2.0, 2.0) as (figure, (axis,)):
        axis.plot([0, 1], [0, 1])
        axis.set_xticks(np.linspace(0, 1, 30), [f"{1000 * i:,}" for i in range(30)])
        axis.set_yticks(np.linspace(0, 1, 60), [str(i) for i in range(60)])
    figure.draw_without_rendering()
    assert run_together(axis.xaxis)
    parts = laid_out(figure)
    assert not any(together for together, _ in parts)
    assert 1 < len(parts[0][1]) < 30
    assert 1 < len(parts[1][1]) < 60
    assert save(figure, tmp_path, "figure", ("svg",))[0].is_file()
