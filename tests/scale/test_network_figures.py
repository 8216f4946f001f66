"""Figures, page and files of a scale policy: what is drawn and written are the numbers that were given."""

from __future__ import annotations

import io
import json
import re
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patches import Circle, Rectangle
from PIL import Image

from mmms_plugin.report.figure_style import GAIN, LOSS, NEUTRAL, RUN_COLOURS
from mmms_plugin.scale.policy import figures
from mmms_plugin.scale.policy.dilations import DilationShares
from mmms_plugin.scale.policy.gallery import thumbnails
from mmms_plugin.scale.policy.report import Findings, write_report
from mmms_plugin.scale.policy.table import OUTCOMES, Group, Row, Table
from mmms_plugin.scale.receptive_field import ReceptiveField
from mmms_plugin.scale.shapes import NetworkShape, draw_shapes, draw_trajectories


def bars(axis: Axes) -> list[tuple[float, float, float]]:
    """Start, length and place of every bar, to thousandths; of upright ones from the bottom up."""
    upright = len({bar.get_width() for bar in axis.patches}) == 1
    sides = [(b.get_y(), b.get_height(), b.get_x() + b.get_width() / 2) if upright else
             (b.get_x(), b.get_width(), b.get_y() + b.get_height() / 2) for b in axis.patches]  # fmt: skip
    return [tuple(round(float(value), 3) for value in side) for side in sides]


def labels(axis: Axes, which: str = "y") -> list[str]:
    return [text.get_text() for text in getattr(axis, f"get_{which}ticklabels")()]


def legend(axis: Axes) -> list[str]:
    return [text.get_text() for text in axis.get_legend().get_texts()]


def table(count: int = 8, kind: str = "scale policy", columns: int = 2, **options) -> Table:
    rows = [
        Row(f"{i}.png", tuple((i + k) / 10 for k in range(columns)), ("ab"[i % 2],), (8.0 * (i + 1),), "a", i % 3 == 0)
        for i in range(count)
    ]
    return Table(kind, tuple(f"column {k}" for k in range(columns)), rows, **options)


def test_classes_have_bars_and_many_of_them_a_line():
    groups = [Group(f"c{i}", i + 1, 2.0 - i / 10, ()) for i in range(41)]
    (axis,) = figures.draw_classes(groups[:40]).axes
    assert bars(axis) == [(0, round(2 - i / 10, 3), i) for i in range(20)] + [(0, 0, 20)] + [
        (0, round(2 - i / 10, 3), i) for i in range(21, 40)
    ]
    assert labels(axis) == [f"c{i} ({i + 1})" for i in range(40)]
    assert axis.get_ylim() == (39.6, -0.6)  # the highest on top
    (axis,) = figures.draw_classes(groups).axes
    assert list(axis.lines[0].get_ydata()) == [group.score for group in groups]
    highest, lowest = (text.get_text().split("\n") for text in axis.texts)
    assert highest == ["highest", *(f"c{i}" for i in range(10))]
    assert lowest == ["lowest", *(f"c{i}" for i in range(31, 41))]


def test_blocks_have_quantiles():
    shown = table(21, columns=25)
    (axis,) = figures.draw_blocks(shown).axes
    outer, inner = (np.array(lines.get_segments())[:, :, 1] for lines in axis.collections)
    assert outer[2].tolist() == pytest.approx([0.3, 2.1])  # 5 and 95 % of 0.2 to 2.2
    assert inner[2].tolist() == pytest.approx([0.7, 1.7])
    assert axis.lines[0].get_ydata()[2] == pytest.approx(1.2)
    assert labels(axis, "x") == [f"column {k}" for k in range(25)]
    assert labels(figures.draw_blocks(table(3, columns=48)).axes[0], "x") == [f"column {k}" for k in range(0, 48, 2)]
    assert legend(axis) == ["5 to 95 % of the pictures", "middle half", "median"]


def test_maps_show_scores_and_answers():
    shown, points = table(), np.arange(16.0).reshape(8, 2)
    scores, rights, bar = figures.draw_map(shown, points, "t-SNE").axes
    assert scores.collections[0].get_offsets().tolist() == points.tolist()
    assert scores.collections[0].get_array().tolist() == pytest.approx([row.score for row in shown.rows])
    assert scores.collections[0].get_sizes().tolist() == [14]
    assert (scores.get_xlabel(), bar.get_ylabel(), legend(rights)) == (
        "t-SNE", "overall score", ["right (3)", "wrong (5)"],
    )  # fmt: skip
    assert [dots.get_offsets()[:, 0].tolist() for dots in rights.collections] == [[0, 6, 12], [2, 4, 8, 10, 14]]
    assert [to_hex(dots.get_facecolor()[0], False).upper() for dots in rights.collections] == [GAIN, LOSS]
    unknown = Table("scale policy", ("one",), [Row(str(i), (1.0,)) for i in range(250)])
    figure = figures.draw_map(unknown, np.zeros((250, 2)), "t-SNE")
    assert len(figure.axes) == 2  # and the bar
    assert figure.axes[0].collections[0].get_sizes().tolist() == [2]


def test_densities_of_answers():
    points = np.array([(0.0, 0.0), (1.0, 10.0), (0.5, 5.0), (0.5, 5.0)])
    panels = figures.draw_answers([None, 1, 2, 0], points, "t-SNE").axes
    assert [axis.get_title() for axis in panels] == ["all pictures (4)", f"{OUTCOMES[1]} (1)", f"{OUTCOMES[2]} (1)"]
    assert panels[0].get_xlabel() == "t-SNE"
    dots = panels[0].collections[0].get_offsets()
    assert dots.tolist() == [pytest.approx([p, p]) for p in (0.12 / 1.24, 1.12 / 1.24, 0.5, 0.5)]
    (image,) = panels[1].images
    density = np.asarray(image.get_array())
    assert density.shape == (80, 80)
    assert np.unravel_index(density.argmax(), density.shape) == (72, 72)  # bin of 1.12 / 1.24
    assert image.get_clim() == pytest.approx((0, 1.6 * density.max()))
    assert 0.9 < density.sum() <= 1.0001


def test_sizes_have_correlations():
    shown = table(columns=48)
    left, right = figures.draw_sizes(shown, [k / 48 for k in range(48)]).axes
    assert left.collections[0].get_offsets().tolist() == [
        pytest.approx([row.sides[0], row.score]) for row in shown.rows
    ]
    assert left.get_xlim() == pytest.approx((8 / 1.2, 64 * 1.2))
    assert bars(right)[5] == (0, 0.104, 5)
    assert labels(right) == [f"column {k}" for k in range(0, 48, 2)]
    assert right.get_xlim() == (-1, 1)
    small = Table("scale policy", ("one",), [Row("a", (1.0,), (), (1.0,)), Row("b", (1.0,))])
    left, _ = figures.draw_sizes(small, [0.0]).axes
    assert left.get_xlim() == (1, 2)
    assert len(left.collections[0].get_offsets()) == 1


def test_exits_are_stacked_by_their_answers():
    rows = [Row(str(i), values, (), (), "", right) for i, (values, right) in enumerate(
        [((0.9, 1), True), ((0.9, 1), False), ((0.1, 0.2), True), ((0.1, 1), None), ((0.5, 1), True)])]  # fmt: skip
    (axis,) = figures.draw_exits(Table("exits", ("one", "two"), rows, 0.5)).axes
    assert bars(axis) == [(0, 2, 1), (0, 1, 2), (2, 1, 1), (1, 0, 2), (3, 0, 1), (1, 1, 2)]
    assert legend(axis) == ["right", "wrong"]
    assert axis.get_xlabel() == "exit, confidence ≥ 0.5"
    (axis,) = figures.draw_exits(Table("exits", ("one", "two"), rows[3:4], 0.5)).axes
    assert axis.get_legend() is None


def test_examples_have_a_row_for_each_exit():
    tile = np.full((4, 4, 3), 200, np.uint8)
    wrong, unknown = Row("a", (), (), (), "cat", False), Row("b", (), (), (), "dog", None)
    axes = np.array(figures.draw_examples([("one", 7, [(wrong, tile), (unknown, None)]), ("two", 0, [])]).axes).reshape(
        2, 3
    )
    assert [[text.get_text() for text in axis.texts] for axis in axes[:, 0]] == [
        ["one\n7 pictures"],
        ["two\n0 pictures"],
    ]
    assert [axis.get_title() for axis in axes[0]] == ["", "cat", "dog"]
    assert [axis.title.get_color() for axis in axes[0, 1:]] == [LOSS, NEUTRAL]
    assert [len(axis.images) for axis in axes.flat] == [0, 1, 0, 0, 0, 0]
    assert not any(axis.axison for axis in axes.flat)


def test_dilations_add_up_beside_their_ticks():
    layers = [
        DilationShares("a", {1: 0.25, 2: 0.75}, {1: 0.5, 2: 0.5}),
        DilationShares("b", {2: 0.5, 4: 0.5}, {2: 0.75, 4: 0.25}),
    ]
    (axis,) = figures.draw_dilations(layers).axes
    assert bars(axis) == [(0, 0.25, 0), (0, 0, 1), (0.25, 0.75, 0), (0, 0.5, 1), (1, 0, 0), (0.5, 0.5, 1)]
    assert [line.get_xdata().tolist() for line in axis.lines] == [[0.5, 0], [1, 0.75], [1, 1]]
    assert (legend(axis), labels(axis)) == (["dilation 1", "dilation 2", "dilation 4"], ["a", "b"])


def test_fields_have_a_circle_and_a_square():
    heat = np.zeros((20, 30), np.float32)
    heat[10, 15] = 0.25
    fields = [ReceptiveField(f"stage {i}", 2**i, 9 if i else None, 4.0, 5, 6.0, False, heat) for i in range(5)]
    axes = figures.draw_fields(fields).axes
    assert [axis.axison for axis in axes] == [True] * 5 + [False] * 3
    assert axes[0].get_title() == "stage 0, stride 1\ntheory more than 2048 px\n±2 std 12 px"
    assert axes[1].get_title() == "stage 1, stride 2\ntheory 9 px\n±2 std 12 px"
    assert [type(patch) for patch in axes[0].patches] == [Circle]
    circle, square = axes[1].patches
    assert isinstance(square, Rectangle)
    assert (circle.center, circle.radius) == ((15, 10), 6)
    assert (square.get_xy(), square.get_width(), square.get_height()) == ((10.5, 5.5), 9, 9)
    assert (axes[1].get_xlim(), axes[1].get_ylim()) == ((0, 30), (20, 0))
    assert float(np.asarray(axes[1].images[0].get_array())[10, 15]) == 0.5  # root


def test_shapes_are_as_wide_as_the_maps():
    sides = (("a", 8, 8), ("b", 8, 18), ("output", 4, 4))
    networks = [
        NetworkShape("first", sides, {"a": 0.7}, 2_340_000, 1_234_000_000, 0),
        NetworkShape("second", sides[1:], {}, 0, 0, 0),
    ]
    first, second = draw_shapes(networks).axes
    assert bars(first) == [(-4, 8, 0), (-6, 12, 1), (-2, 4, 2)]
    colours = [to_hex(bar.get_facecolor()).upper() for bar in first.patches]
    assert colours == [RUN_COLOURS[0], RUN_COLOURS[1], RUN_COLOURS[0]]  # behind the adaptor
    assert [text.get_text() for text in first.texts] == ["8  a", "8×18  b", "4  output"]
    assert [text.get_position()[0] for text in first.texts] == [pytest.approx(6 * 1.04)] * 3
    assert first.get_title() == "first\n2.34 M, 1.234 GMAC"
    assert first.get_ylim() == (2.6, -0.6)
    assert first.get_xlim() == pytest.approx((-6, 12.6))
    assert len(second.patches) == 2


def test_trajectories_have_a_line_for_each_adaptor():
    (axis,) = draw_trajectories({"one": [(0, 0.5), (10, 0.75)], "two": [(0, 0.9)], "three": [(5, 0.6)]}).axes
    assert [list(line.get_xdata()) for line in axis.lines] == [[0, 10], [0], [5]]
    assert list(axis.lines[0].get_ydata()) == [0.5, 0.75]
    assert legend(axis) == ["one", "two", "three"]
    colours = colormaps["viridis"]
    assert [line.get_color() for line in axis.lines] == [colours(0.3), colours(0.6), colours(0.9)]
    assert draw_trajectories({"one": [(0, 0.5)]}).axes[0].lines[0].get_color() == colours(0.3)


def test_thumbnails_are_whole_pictures_in_the_middle_of_a_square(tmp_path):
    Image.new("RGB", (200, 100), (250, 0, 0)).save(tmp_path / "wide.png")
    Image.new("L", (4, 1000), 255).save(tmp_path / "thin.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (40, 20), (0, 0, 250)).save(tmp_path / "turned.png", exif=turned)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    wide, thin, upright, broken, none = thumbnails(
        [tmp_path / name for name in ("wide.png", "thin.png", "turned.png", "broken.png", "none.png")]
    )
    assert broken is None
    assert none is None
    assert wide.shape == (96, 96, 3)
    assert [tuple(wide[row, 40]) for row in (23, 24, 71, 72)] == [(128,) * 3, (250, 0, 0), (250, 0, 0), (128,) * 3]
    assert [column for column in range(96) if thin[50, column, 0] == 255] == [47]  # at least one pixel
    assert [column for column in range(96) if upright[50, column, 2] == 250] == list(range(24, 72))


def content_of(out: Path) -> tuple[dict, dict, str]:
    page = (out / "policy.html").read_text(encoding="utf-8")
    found = re.search(r'id="pictures">(.*?)</script>', page, re.DOTALL)
    return json.loads((out / "policy.json").read_text(encoding="utf-8")), json.loads(found[1]) if found else {}, page


@pytest.fixture
def paths(tmp_path):
    for i in range(8):
        Image.new("RGB", (30, 20), (30 * i, 0, 0)).save(tmp_path / f"{i}.png")
    return {f"{i}.png": tmp_path / f"{i}.png" for i in range(8)}


@pytest.mark.slow
def test_a_report_has_every_part_that_was_measured(paths, tmp_path):
    out, shown = tmp_path / "out", table()
    field = ReceptiveField("stage 1", 4, 11, 3.0, 5, 2.5, True, np.ones((8, 8), np.float32))
    wide = ReceptiveField("stage 2", 8, None, 3.0, 5, 2.5, False, np.ones((8, 8), np.float32))
    shape = NetworkShape("n", (("a", 8, 8), ("output", 4, 4)), {"a": 0.5}, 10, 20, 30)
    first = Findings("first", shown, [DilationShares("a", {1: 1.0}, {1: 1.0})], [field, wide], shape, {"a": [(1, 0.5)]})
    flipped = [Row(row.name, row.values, row.classes, row.sides, "b", not row.right) for row in shown.rows[:7]]
    second = Findings("second", Table(shown.kind, shown.columns, flipped))
    names = write_report(out, first, second, paths, [("sizes", "size_ap/report.html")])
    assert names[:4] == ["policy.html", "policy.json", "pictures_compared.csv", "pictures.csv"]
    stems = ["blocks", "classes", "map", "sizes"]
    compared = [f"{stem}_compared" for stem in stems]
    drawn = {*stems, *compared, "dilations", "shape", "trajectories", "receptive_fields", "answers"}
    assert {path.stem for path in out.glob("*.png")} == {path.stem for path in out.glob("*.svg")} == drawn
    content, data, page = content_of(out)
    assert content["title"] == "first"
    assert content["dilations"] == [dict(name="a", weight={"1": 1.0}, kernels={"1": 1.0})]
    assert content["shape"] == dict(scales={"a": 0.5}, sides=[["a", 8, 8], ["output", 4, 4]])
    assert content["trajectories"] == {"a": [[1, 0.5]]}
    assert content["receptive_fields"][0] == dict(
        name="stage 1", stride=4, theoretical=11, side=3.0, extent=5, two_sigma=2.5, cut=True,
    )  # fmt: skip
    assert [group["name"] for group in content["sizes"]] == ["small", "medium"]
    assert content["size_correlations"] == pytest.approx(
        [np.corrcoef(np.log2(np.arange(1, 9)), np.arange(8))[0, 1]] * 2
    )
    assert (len(content["map"]["points"]), content["map"]["method"]) == (8, "t-SNE, perplexity 2.33")
    assert content["compared"]["answers"][0] == dict(name="all", counts=[0, 3, 4, 0])
    assert content["compared"]["outcomes"] == list(OUTCOMES)
    assert [row["name"] for row in content["compared"]["pictures"]] == [f"{i}.png" for i in range(7)]
    facts = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page)
    assert facts[0] == ("pictures", "8")
    assert ("compared with", "second") in facts
    assert ("its pictures", "7") in facts
    text = dict(facts)["stage 1"]
    assert text == (
        "stride 4; receptive field 11 px in theory; effective 5 px (two standard deviations to each side), 3 px "
        "(gradient above 4.55 % of the largest, cut off by the picture)"
    )
    assert "field above 2048 px in theory" in dict(facts)["stage 2"]
    assert '<a href="size_ap/report.html">sizes</a>' in page
    assert [(one["name"], one["values"]) for one in data["filters"]] == [
        ("class", ["a", "b"]), ("answer", list(OUTCOMES)),
    ]  # fmt: skip
    assert data["items"][1] == dict(
        title="1.png", lines=["b", "S 0.15"], label="b", side=16.0, objects="1 objects, 16 px", tile=1, mean=0.15,
        exit=-1, answer=2, marks=[False, True], runs=[dict(values=[0.1, 0.2], framed=-1)] * 2,
        facts=[["classes", "b"], ["first predicted", "a, wrong"], ["second predicted", "b, right"],
               ["objects", "1, median side 16 px"], ["overall score", "0.15"]],
        **{"class": [1]},
    )  # fmt: skip
    assert [order["name"] for order in data["orders"]] == [
        "as given", "name", "class", "object size", "overall score", *shown.columns,
    ]  # fmt: skip
    assert len(data["items"][7]["runs"]) == 1
    assert data["runs"][0]["means"] == pytest.approx([0.35, 0.45])
    assert data["runs"][0]["spreads"] == pytest.approx([0.2291, 0.2291], abs=1e-4)
    assert data["sheet"] == dict(tile=96, across=20, down=10)
    sheet = Image.open(io.BytesIO(b64decode(re.search(r"data:image/jpeg;base64,([^)]+)\)", page)[1])))
    assert sheet.size == (20 * 96, 96)
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page, re.DOTALL)
    assert len(captions) == len(drawn)
    pairs = zip(captions[:8:2], captions[1:8:2], strict=True)
    assert all(its.startswith(f"The same of second: {own[:30]}") for own, its in pairs)  # behind the first's
    assert not any("second:" in caption for caption in captions[8:])

    write_report(out, Findings("alone", Table("none", ())), None, {})  # removes what it does not write
    assert sorted(path.name for path in out.iterdir()) == ["policy.html", "policy.json"]
    content, data, _ = content_of(out)
    assert (content, data) == (dict(title="alone", kind="none", columns=[], pictures=[]), {})


@pytest.mark.slow
def test_a_report_of_exits_and_of_few_pictures(paths, tmp_path):
    shown = table(kind="exits", threshold=0.35)
    write_report(tmp_path / "out", Findings("exits", shown), None, paths)
    content, data, page = content_of(tmp_path / "out")
    assert content["left"] == [4, 4]  # from 0.35 on
    assert ("left at", "column 0: 4, column 1: 4 (confidence of 0.35)") in re.findall(
        r"<dt>(.*?)</dt><dd>(.*?)</dd>", page
    )
    assert [item["runs"][0]["framed"] for item in data["items"]] == [1] * 4 + [0] * 4
    assert [item["lines"][1] for item in data["items"]] == ["column 1"] * 4 + ["column 0"] * 4
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == {"exits", "exit_examples"}
    few = Table("scale policy", shown.columns, [Row(row.name, row.values) for row in shown.rows[:3]])
    write_report(tmp_path / "few", Findings("few", few), None, paths)
    content, data, _ = content_of(tmp_path / "few")
    assert {path.stem for path in (tmp_path / "few").glob("*.png")} == {"blocks"}
    assert not {"map", "classes", "sizes", "left"} & set(content)
    assert data["items"][0]["side"] is None
    four = Table("scale policy", shown.columns, [Row(row.name, row.values) for row in shown.rows[:4]])
    write_report(tmp_path / "four", Findings("four", four), Findings("other", four), paths)
    assert {path.stem for path in (tmp_path / "four").glob("*.png")} == {
        "blocks",
        "map",
        "blocks_compared",
        "map_compared",
    }
