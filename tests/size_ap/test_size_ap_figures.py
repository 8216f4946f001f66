"""The report's figures hold the numbers they were given, in their places, and say n/a where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import same_color, to_hex

from mmms_plugin.report.figure_style import (
    ERROR_COLOURS,
    GAIN,
    LOSS,
    MEASURE_COLOURS,
    RUN_COLOURS,
    UNDECIDED,
)
from mmms_plugin.size_ap.report import figures
from mmms_plugin.size_ap.report.figures import Series

NAN = np.nan
PLACES = [0, 1.35, 2.35]  # "all" stands apart
LABELS = ("all", "small\n< 32 px", "large")


def series(name: str, values: list[float], reach: float = NAN) -> Series:
    numbers = np.array(values)
    return Series(name, numbers, numbers - reach, numbers + 2 * reach)


def texts(axis: Axes) -> dict[str, tuple[float, float]]:
    return {text.get_text(): text.get_position() for text in axis.texts}


def lines(collection) -> list[list[tuple[float, float]]]:
    """Ends of the vertical or horizontal lines of a collection that are drawn at all."""
    return [[tuple(end) for end in part] for part in collection.get_segments() if len(part) == 2]


def stands_above(part, axis: Axes) -> bool:
    """Whether a legend or an inset stands above the axes, left-aligned with them, and in the figure."""
    axis.figure.draw_without_rendering()
    inner, outer = part.get_window_extent(), axis.get_window_extent()
    return outer.y1 - 1 <= inner.y0 < outer.y1 + 20 and abs(inner.x0 - outer.x0) < 8 and inner.y1 <= axis.figure.bbox.y1


def check_places(axis: Axes, xlabel: str, ylabel: str) -> None:
    assert axis.get_xticks() == pytest.approx(PLACES)
    assert [label.get_text() for label in axis.get_xticklabels()] == list(LABELS)
    assert {label.get_fontsize() for label in axis.get_xticklabels()} == {8}
    assert axis.get_xlim() == pytest.approx((-0.6, 2.95))
    assert (axis.get_xlabel(), axis.get_ylabel()) == (xlabel, ylabel)
    assert axis.yaxis.get_gridlines()[0].get_visible()


@pytest.mark.parametrize("reach", [NAN, 0.04])
def test_bars_of_two_runs(reach):
    values = [[0.3, 0.2, NAN], [0.5, NAN, 0.001]]
    figure = figures.draw_bars(LABELS, [series("one", values[0], reach), series("two", values[1], reach)], "AP", "size")
    (axis,) = figure.axes
    check_places(axis, "size", "AP")
    top = 0.5 if np.isnan(reach) else 0.58
    assert axis.get_ylim() == pytest.approx((0, 1.22 * top))
    ticks = axis.get_yticks()
    assert 0.5 <= max(ticks) <= 1.22 * top
    assert min(ticks) == 0
    for i, (bars, run) in enumerate(zip(axis.containers, values, strict=True)):
        centres = np.array(PLACES) + (-0.185, 0.185)[i]
        assert [bar.get_center()[0] for bar in bars] == pytest.approx(centres)
        assert [bar.get_height() for bar in bars] == pytest.approx(np.nan_to_num(run))
        assert {round(bar.get_width(), 4) for bar in bars} == {round(0.92 * 0.37, 4)}
        assert {to_hex(bar.get_facecolor()).upper() for bar in bars} == {RUN_COLOURS[i]}
        expected = [(c, v - reach, v + 2 * reach) for c, v in zip(centres, run, strict=True) if np.isfinite(v + reach)]
        drawn = [(a[0], a[1], b[1]) for a, b in lines(axis.collections[i])]
        assert np.array(drawn) == pytest.approx(np.array(expected))
    above, shift = 0 if np.isnan(reach) else 0.08, 0.015 * 1.22 * top
    shown = {(t.get_text(), round(t.get_position()[0], 3)): t.get_position()[1] for t in axis.texts}
    assert shown == pytest.approx({
        ("30.0", -0.185): 0.3 + above + shift, ("20.0", 1.165): 0.2 + above + shift, ("n/a", 2.165): shift,
        ("50.0", 0.185): 0.5 + above + shift, ("n/a", 1.535): shift, ("0.1", 2.535): 0.001 + above + shift,
    })  # fmt: skip
    assert {text.get_rotation() for text in axis.texts} == {0}
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["one", "two"]
    assert axis.get_legend()._ncols == 2
    assert stands_above(axis.get_legend(), axis)


def test_bars_of_one_run_of_next_to_nothing_and_of_everything():
    (axis,) = figures.draw_bars(("all",), [series("one", [0.002])], "AP").axes
    assert axis.get_ylim()[1] == pytest.approx(0.061)
    assert axis.get_legend() is None
    (axis,) = figures.draw_bars(("all",), [series("one", [NAN])], "AP").axes
    assert axis.get_ylim()[1] == pytest.approx(0.061)
    (axis,) = figures.draw_bars(("all",), [series("one", [1.0])], "AP").axes
    assert max(axis.get_yticks()) == pytest.approx(1)  # no share is above
    (axis,) = figures.draw_bars(("all",), [series(f"a run with the very long name number {i}", [0.5]) for i in "ab"],
                                "AP").axes  # fmt: skip
    assert axis.get_legend()._ncols == 1
    many = figures.draw_bars(LABELS * 3, [series(f"{i}", [0.5] * 9) for i in range(8)], "AP").axes[0]
    colours = [to_hex(bars[0].get_facecolor()).upper() for bars in many.containers]
    assert colours == [*RUN_COLOURS, RUN_COLOURS[0]]
    assert not many.texts  # no room for numbers, even turned
    some = figures.draw_bars(LABELS, [series(f"{i}", [0.5, 0.5, NAN]) for i in range(7)], "AP").axes[0]
    turned = [text for text in some.texts if text.get_text() != "n/a"]
    assert {text.get_rotation() for text in turned} == {90}  # no room for numbers side by side
    assert {text.get_fontsize() for text in turned} == {7}
    assert len(some.texts) == len(turned) + 1  # one n/a for a bin without objects


@pytest.mark.parametrize(
    ("labels", "runs", "width"),
    [(("a",) * 3, 1, 4.2), (("a",) * 4, 1, 5.0), (("a",) * 4, 2, 6.32), (("a",) * 9, 1, 7.0),
     (("a\n" + "n" * 14,) * 4, 1, 5.808)],
)  # fmt: skip
def test_figures_are_as_wide_as_their_labels_need_but_no_wider_than_a_page(labels, runs, width):
    drawn = figures.draw_bars(labels, [series("r", [0.5] * len(labels))] * runs, "AP")
    assert drawn.get_figwidth() == pytest.approx(width)


@pytest.mark.parametrize("sizes", ["9–99 px", "1,000–2,000 px"])
def test_labels_without_room_are_broken_or_turned(sizes):
    """Words and numbers stay whole: labels are broken between words, or turned where one word needs more room."""
    labels = ["all", *(f"bin_of_number_{i}\n{sizes}" for i in range(9))]
    (axis,) = figures.draw_bars(labels, [series("r", [0.5] * 10)], "AP").axes
    shown = [label.get_text() for label in axis.get_xticklabels()]
    assert {label.get_fontsize() for label in axis.get_xticklabels()} == {7}
    if len(sizes) < 10:
        assert shown[1:] == [f"bin_of_\nnumber_{i}\n{sizes}" for i in range(9)]
    else:
        assert shown == labels
    assert {label.get_rotation() for label in axis.get_xticklabels()} == {0 if len(sizes) < 10 else 90}
    endless = ["all", *("x" * 300 for _ in range(9))]
    (axis,) = figures.draw_bars(endless, [series("r", [0.5] * 10)], "AP").axes
    assert max(len(label.get_text()) for label in axis.get_xticklabels()) == 36


def test_errors_beside_each_other():
    kinds = [series(f"kind {i}", [0.1 * i, NAN, -0.02], 0.01) for i in range(6)]
    kinds[1] = series("kind 1", [0.05, 0.3, NAN], 0.01)
    figure = figures.draw_errors(LABELS, kinds, "gain", "size")
    (axis,) = figure.axes
    check_places(axis, "size", "gain")
    assert figure.get_figwidth() == pytest.approx(5.1)
    for i, bars in enumerate(axis.containers):
        assert [bar.get_center()[0] for bar in bars] == pytest.approx(np.array(PLACES) + 0.14 * (i - 2.5))
        assert [bar.get_height() for bar in bars] == pytest.approx(np.nan_to_num(kinds[i].values))
        assert {round(bar.get_width(), 4) for bar in bars} == {0.126}
        assert to_hex(bars[0].get_facecolor()).upper() == ERROR_COLOURS[i]
        ends = [(a[1], b[1]) for a, b in lines(axis.collections[i])]
        expected = [(v - 0.01, v + 0.02) for v in kinds[i].values if np.isfinite(v)]
        assert np.array(ends) == pytest.approx(np.array(expected))
    assert not axis.texts
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [one.name for one in kinds]
    assert stands_above(axis.get_legend(), axis)
    assert [tuple(line.get_ydata()) for line in axis.lines] == [(0, 0)]
    nothing = figures.draw_errors(LABELS, [series(str(i), [0.0, NAN, 0.0]) for i in range(6)], "gain").axes[0]
    assert nothing.get_ylim()[1] >= 0.01
    assert texts(nothing) == {"n/a": (1.35, 0)}


def test_differences_are_coloured_where_their_interval_leaves_out_zero():
    labels = ("all", "a", "b", "c", "d")
    values = Series("d", np.array([0.1, -0.1, 0.05, NAN, 0.02]), np.array([0.01, -0.3, -0.01, NAN, 0.0]),
                    np.array([0.2, -0.05, 0.2, NAN, 0.1]))  # fmt: skip
    (axis,) = figures.draw_difference(labels, values, "Δ AP", "size").axes
    zero, *marks = axis.lines
    assert list(zero.get_ydata()) == [0, 0]
    whiskers, points = marks[::2], marks[1::2]
    places = [0, 1.35, 2.35, 4.35]
    assert [tuple(line.get_xdata()) for line in whiskers] == [(x, x) for x in places]
    assert [tuple(line.get_ydata()) for line in whiskers] == [(0.01, 0.2), (-0.3, -0.05), (-0.01, 0.2), (0.0, 0.1)]
    assert [line.get_ydata()[0] for line in points] == [0.1, -0.1, 0.05, 0.02]
    assert [line.get_color() for line in points] == [GAIN, LOSS, UNDECIDED, UNDECIDED]
    assert [line.get_color() for line in whiskers] == [line.get_color() for line in points]
    shown = texts(axis)
    assert list(shown) == ["+10.0", "−10.0", "+5.0", "n/a", "+2.0"]
    assert shown["n/a"] == pytest.approx((3.35, 0.04 * 0.3))
    assert shown["−10.0"] == pytest.approx((1.45, -0.1))
    assert axis.get_ylim() == pytest.approx((-0.345, 0.345))
    assert axis.get_xlim() == pytest.approx((-0.6, 4.95))
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("size", "Δ AP")
    (axis,) = figures.draw_difference(("all",), series("d", [NAN]), "Δ AP").axes
    assert axis.get_ylim() == pytest.approx((-1.15e-3, 1.15e-3))
    sizes = [figures.draw_difference(("a",) * n, series("d", [0.0] * n), "").get_figwidth() for n in (3, 5, 9)]
    assert sizes == pytest.approx([4.2, 6.2, 7.0])


@pytest.mark.parametrize(("low", "high", "colour"), [(0, 1, UNDECIDED), (-1, 0, UNDECIDED), (1e-9, 1, GAIN),
                                                    (-1, -1e-9, LOSS), (NAN, NAN, UNDECIDED)])  # fmt: skip
def test_an_interval_that_ends_at_zero_holds_it(low, high, colour):
    assert figures.sign_colour(low, high) == colour


def test_the_heat_map_shows_classes_with_objects_best_first():
    values = np.array([[0.2, 0.1], [NAN, NAN], [0.9, 0.5], [0.0, NAN], [NAN, 0.499], [0.2, 0.2]])
    figure = figures.draw_class_map(["c", "none", "a", "e", "f", "d"], ["all", "small"], values, "AP (× 100)", "size")
    axis, bar = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "c", "d", "e", "f"]
    assert list(axis.get_yticks()) == list(range(5))
    assert [label.get_text() for label in axis.get_xticklabels()] == ["all", "small"]
    assert list(axis.get_xticks()) == [0, 1]
    (image,) = axis.images
    order = values[[2, 0, 5, 3, 4]]
    np.testing.assert_array_equal(image.get_array().filled(NAN), order)
    assert image.get_clim() == (0, 1)
    assert [patch.get_xy() for patch in axis.patches] == [(0.5, 2.5), (-0.5, 3.5)]
    assert all((patch.get_width(), patch.get_height(), patch.get_hatch()) == (1, 1, "////") for patch in axis.patches)
    written = {text.get_position(): (text.get_text(), text.get_color()) for text in axis.texts}
    assert written == {
        (0, 0): ("90", "black"), (1, 0): ("50", "black"), (0, 1): ("20", "white"), (1, 1): ("10", "white"),
        (0, 2): ("20", "white"), (1, 2): ("20", "white"), (0, 3): ("0", "white"), (1, 4): ("50", "white"),
    }  # fmt: skip
    assert axis.get_ylim() == (4.5, -0.5)
    assert (axis.get_xlabel(), bar.get_ylabel()) == ("size", "AP (× 100)")
    assert [line.get_xdata()[0] for line in axis.lines] == [0.5]  # between "all" and the sizes
    assert figure.get_suptitle() == ""


@pytest.mark.parametrize(
    ("classes", "columns", "panels", "rows"), [(40, 2, 1, 40), (41, 6, 2, 21), (120, 7, 3, 40), (121, 7, 3, 40)]
)
def test_the_heat_map_has_a_panel_for_40_classes_and_at_most_three(classes, columns, panels, rows):
    values = np.linspace(1, 0, classes)[:, None].repeat(columns, 1)
    names = [f"class {i}" for i in range(classes)]
    figure = figures.draw_class_map(names, [f"bin {i}" for i in range(columns)], values, "AP")
    axes = figure.axes[:-1]
    assert len(axes) == panels
    assert {axis.get_ylim() for axis in axes} == {(rows - 0.5, -0.5)}
    shown = [label.get_text() for axis in axes for label in axis.get_yticklabels()]
    assert shown == (names if classes <= 120 else names[:60] + names[61:])
    assert figure.get_suptitle() == ("" if classes <= 120 else "60 best and 60 worst of 121 classes")
    assert [len(axis.texts) for axis in axes] == [len(axis.get_yticks()) * columns * (columns <= 6) for axis in axes]
    assert figure.get_figheight() == pytest.approx(0.19 * rows + 1.1)
    assert figure.get_figwidth() == pytest.approx(max(3.4, panels * (1.55 + 0.42 * columns) + 0.9))


def test_the_heat_map_of_one_class_or_of_nothing():
    figure = figures.draw_class_map(["only"], ["all"], np.array([[0.3]]), "AP")
    assert tuple(figure.get_size_inches()) == pytest.approx((3.4, 2.0))
    figure = figures.draw_class_map(["a", "b"], ["all"], np.full((2, 1), NAN), "AP")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b"]


def test_curves_with_bands_above_the_objects_they_stand_on():
    sides, counts = np.array([4.0, 8.0, 16.0]), np.array([3, 40, 7])
    runs = [series("one", [0.2, NAN, 0.4], 0.1), series("two", [0.1, 0.2, 0.3])]
    (axis,) = figures.draw_curves(sides, runs, counts, "AP", "side").axes
    assert [line.get_label() for line in axis.lines] == ["one", "two"]
    for line, run, colour, style in zip(axis.lines, runs, RUN_COLOURS, ("-", "--"), strict=False):
        np.testing.assert_array_equal(line.get_xydata(), np.stack([sides, run.values], 1))
        assert (line.get_color(), line.get_linestyle()) == (colour, style)
    (band,) = axis.collections  # the second run has no intervals
    assert same_color(band.get_facecolor()[0][:3], RUN_COLOURS[0])
    points = {tuple(point) for path in band.get_paths() for point in path.vertices.round(6)}
    assert {(4.0, 0.1), (4.0, 0.4), (16.0, 0.3), (16.0, 0.6)} <= points
    assert axis.get_ylim() == pytest.approx((0, 0.63))
    assert axis.get_xlim() == pytest.approx((4 / 2**0.25, 16 * 2**0.25))
    assert axis.get_xscale() == "log"
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("side", "AP")
    assert [text.get_text() for text in axis.figure.legends[0].get_texts()] == ["one", "two"]
    (counted,) = axis.child_axes
    assert counted.get_ylim() == pytest.approx((0, 42))
    assert list(counted.get_yticks()) == [0, 40]
    assert counted.get_ylabel() == "objects"
    assert max(point[1] for path in counted.collections[0].get_paths() for point in path.vertices) == 40
    assert stands_above(counted, axis)
    assert counted.get_window_extent().height == pytest.approx(0.17 * axis.get_window_extent().height)
    assert counted.get_window_extent().width == pytest.approx(axis.get_window_extent().width)
    (axis,) = figures.draw_curves(sides, [series("none", [NAN] * 3)], np.zeros(3, int), "AP", "side").axes
    assert axis.get_ylim() == pytest.approx((0, 0.0525))
    assert not axis.figure.legends
    assert axis.child_axes[0].get_ylim() == (0, 1)
    (axis,) = figures.draw_curves(sides, [series("one", [0.2, 0.3, 0.7])], counts, "AP", "side").axes
    assert axis.get_ylim() == pytest.approx((0, 0.735))


def test_object_sizes_with_the_limits_of_the_bins():
    edges, counts = 2.0 ** np.arange(2, 9), np.array([1, 5, 0, 20, 3, 2])
    spans = [("tiny_one", 0.0, 4.0), ("small", 4.0, 32.0), ("s", 32.0, 34.0), ("extremely_large", 34.0, np.inf)]
    (axis,) = figures.draw_sizes(edges, counts, spans, "side").axes
    (stairs,) = axis.patches
    np.testing.assert_array_equal(stairs.get_data().values, counts)
    np.testing.assert_array_equal(stairs.get_data().edges, edges)
    assert sorted(line.get_xdata()[0] for line in axis.lines) == [32, 34]  # not where the histogram ends
    top = 1.18 * 20
    assert axis.get_ylim() == pytest.approx((0, top))
    shown = texts(axis)
    assert list(shown) == ["small", "extremely_\nlarge"]  # the others have no room
    assert shown["small"] == pytest.approx(((4 * 32) ** 0.5, 0.99 * top))
    assert shown["extremely_\nlarge"] == pytest.approx(((34 * 256) ** 0.5, 0.99 * top))
    assert axis.get_xlim() == (4, 256)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("side", "objects")
    assert figures.draw_sizes(edges, np.zeros(6, int), (), "side").axes[0].get_ylim() == pytest.approx((0, 1.18))
    for letters, room in ((2, True), (40, False)):  # 0.016 of the axis a letter
        spans = [("n" * letters, 4.0, 4.0 * 2 ** (6 * 0.016 * 3))]
        assert bool(figures.draw_sizes(edges, counts, spans, "side").axes[0].texts) == room


def test_improvements_by_group_of_images():
    labels = ("small (3)", "large (0)", "all images (9)")
    measures = [series("AP", [0.1, NAN, -0.05], 0.02), series("F1", [0.0, NAN, 0.2]), series("F2", [0.3, NAN, NAN])]
    figure = figures.draw_groups(labels, measures, "improvement, %")
    (axis,) = figure.axes
    assert tuple(figure.get_size_inches()) == pytest.approx((6.4, 1.2 + 3 * 0.5))
    assert list(axis.get_yticks()) == [2, 1, 0]  # the first on top
    assert [label.get_text() for label in axis.get_yticklabels()] == list(labels)
    height = 0.74 / 3
    for i, (bars, one) in enumerate(zip(axis.containers, measures, strict=True)):
        assert [bar.get_center()[1] for bar in bars] == pytest.approx(np.array([2, 1, 0]) - height * (i - 1))
        assert [bar.get_width() for bar in bars] == pytest.approx(np.nan_to_num(one.values))
        assert bars[0].get_height() == pytest.approx(0.92 * height)
        assert to_hex(bars[0].get_facecolor()).upper() == MEASURE_COLOURS[i]
    ends = np.array(lines(axis.collections[0]))[:, :, 0]
    assert ends == pytest.approx(np.array([(0.08, 0.14), (-0.07, -0.01)]))
    shown = {text.get_text(): (text.get_position()[0], text.get_ha()) for text in axis.texts}
    gap = 0.02 * 0.3
    assert {name: ha for name, (_, ha) in shown.items()} == {
        "+10.0": "left", "−5.0": "right", "0.0": "left", "+20.0": "left", "+30.0": "left", "n/a": "left",
    }  # fmt: skip
    assert {name: x for name, (x, _) in shown.items()} == pytest.approx(
        {"+10.0": 0.14 + gap, "−5.0": -0.07 - gap, "0.0": gap, "+20.0": 0.2 + gap, "+30.0": 0.3 + gap, "n/a": 0.003}
    )
    assert [text.get_position()[1] for text in axis.texts if text.get_text() == "n/a"] == [1]
    assert axis.get_xlim() == pytest.approx((-0.39, 0.39))
    assert axis.get_xlabel() == "improvement, %"
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["AP", "F1", "F2"]
    assert stands_above(axis.get_legend(), axis)
    (axis,) = figures.draw_groups(("a",), [series("AP", [0.001])], "").axes
    assert axis.get_xlim() == pytest.approx((0, 0.013))
