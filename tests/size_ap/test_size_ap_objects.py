"""What a data set alone says about sizes: counted by hand on a few objects; bins at every limit of what is allowed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from mmms_plugin.coco.objects import GroundTruth
from mmms_plugin.errors import UserError
from mmms_plugin.size_ap.bins import HALF_OPEN, readable, resolve_bins
from mmms_plugin.size_ap.object_sizes import describe_objects, quantile_edges, suggest_anchors
from mmms_plugin.size_ap.report.tables import size_tables, suggestions
from mmms_plugin.size_ap.resizing import Resizing
from tests.size_ap.test_size_ap_tables import cells

BINS = resolve_bins("small=0:8,large=8:").bins


def data(boxes: list[tuple[float, float]], crowd: tuple[int, ...] = ()) -> GroundTruth:
    """Widths and heights, in classes 7 and 3 by turns, in images 30, 10, 10, ...; image 20 is empty."""
    n = len(boxes)
    corners = np.array([(1.0, 2.0, w, h) for w, h in boxes]).reshape(-1, 4)
    return GroundTruth(
        image_ids=np.array([30, 10, 20]),
        image_sizes=np.array([[400, 200], [100, 300], [50, 50]]),
        category_ids=np.array([7, 3, 5]),
        category_names=("seven", "three", "five"),
        ids=np.arange(n) + 1,
        image_id=np.where(np.arange(n) == 0, 30, 10),
        category_id=np.where(np.arange(n) % 2, 3, 7),
        boxes=corners,
        annotated_area=corners[:, 2] * corners[:, 3],
        iscrowd=np.isin(np.arange(n), crowd),
    )


def test_objects_counted_by_hand():
    truth = data([(4, 16), (0.5, 0.5), (8, 2), (16, 16), (2, 4.5), (0, 9), (90, 90)], crowd=(6,))
    sizes = describe_objects(truth, BINS)
    assert (sizes.images, sizes.images_without, sizes.objects, sizes.crowds) == (3, 1, 6, 1)
    assert sizes.counts == (6, 4, 2)  # 8 px is in the upper bin
    # four columns an octave from 1 px; sides 8, 0.5, 4, 16, 3 and 0: those below 1 px in the first column
    assert sizes.edges == pytest.approx(2.0 ** np.arange(0, 5.01, 0.25))
    columns = {i: count for i, count in enumerate(sizes.histogram) if count}
    assert columns == {0: 2, 6: 1, 8: 1, 12: 1, 16: 1}
    assert [share for share, _ in sizes.quantiles] == [0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1]
    assert [dict(sizes.quantiles)[share] for share in (0, 0.5, 1)] == [0, 3.5, 16]
    assert [dict(sizes.aspects)[share] for share in (0, 0.5, 1)] == [0.25, 1, 4]  # not of the box without a width
    assert [(c.name, c.objects, c.counts, c.median_side, c.median_aspect) for c in sizes.classes[:2]] == [
        ("seven", 3, (3, 2, 1), 4, 2.25), ("three", 3, (3, 2, 1), 0.5, 1),
    ]  # fmt: skip
    empty = sizes.to_json()["classes"][2]
    assert empty == {"name": "five", "objects": 0, "counts": [0, 0, 0], "median_side": None, "median_aspect": None}
    assert sizes.to_json()["bins"][2]["high"] == "inf"
    assert set(sizes.equal_bins) == {3, 4, 5}
    tables = [cells(table) for table in size_tables(sizes)]
    assert tables[0] == [["all", "all sizes", "6", "100.0 %"], ["small", "< 8 px", "4", "66.7 %"],
                         ["large", "≥ 8 px", "2", "33.3 %"]]  # fmt: skip
    assert tables[1][4] == ["50 %", "3.5", "1"]
    assert tables[2] == [["seven", "3", "2", "1", "4", "2.25"], ["three", "3", "2", "1", "0.5", "1"],
                         ["five", "0", "0", "0", "n/a", "n/a"]]  # fmt: skip


def test_the_histogram_ends_at_a_whole_octave_beyond_the_largest():
    for sides, last in (((4,), 3), ((1,), 1), ((0.2,), 1), ((3.9, 1.1), 2), ((4.1, 2), 3)):
        sizes = describe_objects(data([(side, side) for side in sides]), BINS)
        first = 0 if min(sides) < 2 else int(np.log2(min(sides)))
        assert np.log2(sizes.edges)[[0, -1]] == pytest.approx([first, last])
        assert sum(sizes.histogram) == len(sides)
    nothing = describe_objects(data([]), BINS)
    assert (nothing.edges, nothing.histogram, nothing.quantiles, nothing.images_without) == ((1, 2), (0,), (), 3)
    assert nothing.anchors is None
    thin = describe_objects(data([(0.0009, 9), (9, 0.0009)]), BINS)
    assert (thin.objects, thin.anchors, thin.aspects) == (2, None, ())
    assert describe_objects(data([(0.001, 0.001)]), BINS).anchors is not None


def test_objects_grow_with_their_pictures():
    """``Resize(scale=(600, 300), keep_ratio=True)``: 400 x 200 px grow 1.5 times, 100 x 300 px twice."""
    boxes = [(20, 30), (12, 12), (40, 10), (9, 18)]
    truth = data(boxes)
    for resize in ((600, 300), (300, 600)):
        sizes = describe_objects(truth, BINS, resize=Resizing.fit(*resize))
        factors = np.array([1.5, 2, 2, 2])
        sides, aspects = (
            np.array([f(w, h) for w, h in boxes]) for f in (lambda w, h: (w * h) ** 0.5, lambda w, h: h / w)
        )
        assert sizes.anchors == suggest_anchors(sides * factors, aspects)
        assert sizes.resize == f"{resize[0]}x{resize[1]}"
        assert sizes.counts == (4, 0, 4)
        assert describe_objects(truth, BINS).counts == (4, 0, 4)
    unknown = replace(truth, image_sizes=np.array([[400, 200], [0, 300], [0, 0]]))
    with pytest.raises(UserError, match="--resize: 2 of 3 images have no width and height"):
        describe_objects(unknown, BINS, resize=Resizing.fit(600, 300))
    assert describe_objects(unknown, BINS).objects == 4


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, 0.0), (-5.0, -5.0), (math.inf, math.inf), (99.96, 100), (99.94, 99.9), (100.4, 100), (1234.5, 1234),
     (0.012345, 0.0123)],
)  # fmt: skip
def test_readable_numbers(value, shown):
    assert readable(value) == shown


def test_edges_of_bins_of_equal_count():
    assert quantile_edges(np.arange(1, 101.0), 4) == (25.8, 50.5, 75.2)
    assert quantile_edges(np.array([0.0, 0, 0, 5, 5, 5]), 4) == (2.5, 5)  # no edge at 0, equal ones once
    assert quantile_edges(np.zeros(0), 3) == ()
    sizes = describe_objects(data([(side, side) for side in (1, 2, 4, 8, 16, 32)]), BINS)
    assert suggestions(sizes)[0] == ("3 bins with equally many objects", '--bins "q1=0:3.33,q2=3.33:10.7,q3=10.7:inf"')
    alike = replace(sizes, equal_bins={3: (4.0,), 4: (1.0, 2.0, 3.0)})
    assert [what for what, _ in suggestions(alike)][:-1] == ["4 bins with equally many objects"]
    anchors = suggestions(replace(sizes, resize="640x480"))[-1]
    a = sizes.anchors
    assert anchors == (
        "anchors for a pyramid, in pixels after resizing (640x480)",
        f"scales=[{a.scale:g}], ratios=[1.0], strides=[4, 8, 16, 32, 64]: sides "
        f"{', '.join(f'{side:g}' for side in a.sides)} px; {a.covered:.0%} of objects have an IoU of 0.5 with an "
        "anchor, averaged over positions",
    )
    assert "original pictures (--resize" in suggestions(sizes)[-1][0]


def test_anchors_are_a_scale_for_all_levels_and_three_ratios():
    aspects = np.exp2(np.linspace(-3, 3, 601))
    found = suggest_anchors(np.full(601, 32.0), aspects)
    assert found.ratios == (0.25, 1.0, 4.0)  # sixths of the objects
    assert found.strides == (4, 8, 16, 32, 64)
    assert found.sides == tuple(readable(found.scale * stride) for stride in found.strides)
    assert suggest_anchors(np.full(3, 32.0), np.array([1000.0] * 3)).ratios == (64.0,)
    assert suggest_anchors(np.full(3, 32.0), np.array([1e-3] * 3)).ratios == (0.0156,)
    squares = suggest_anchors(np.exp2(np.linspace(5.5, 8.5, 300)), np.ones(300))
    assert (squares.scale, squares.ratios) == (8.0, (1.0,))
    assert squares.covered > 0.95
    small = suggest_anchors(np.full(300, 20.0), np.ones(300), strides=(16,))
    assert 1 <= small.scale <= 1.5
    assert 0.3 < small.covered < 1
    assert suggest_anchors(np.full(9, 1e-3), np.ones(9)).covered == 0
    assert suggest_anchors(np.zeros(0), np.zeros(0)) is None


@pytest.mark.parametrize(
    ("text", "unit", "bins"),
    [
        (" COCO ", "side", "coco"), ("Tiny", "side", "tinyperson"), ("aitod", "side", "ai-tod"),
        ("b=8:,a=0:8,", "side", [("a", 0, 64), ("b", 64, math.inf)]),
        ("  a b = 0 : 8 , c = 8 : INF", "side", [("a b", 0, 64), ("c", 64, math.inf)]),
        ("a=1e2:2.5e2", "area", [("a", 100, 250)]),
        ("a=0:1e154", "side", [("a", 0, 1e308)]),
    ],
)  # fmt: skip
def test_spellings_of_bins(text, unit, bins):
    found = resolve_bins(text, unit)
    if isinstance(bins, str):
        assert found.source == bins
        return
    assert [(b.name, b.low, b.high) for b in found.bins[1:]] == [
        (n, pytest.approx(a), pytest.approx(z)) for n, a, z in bins
    ]
    assert (found.bins[0].name, found.bins[0].low, found.bins[0].high) == ("all", 0, math.inf)
    assert {(b.unit, b.closed) for b in found.bins} == {(unit, False)}
    assert found.source == text
    assert found.reference == ("as given, side = sqrt(area) in px" if unit == "side" else "as given, area in px²")
    assert found.edge_rule == HALF_OPEN


def test_quantiles_at_their_limits():
    areas = np.arange(1.0, 101)
    found = resolve_bins("quantiles:100", areas=areas)
    assert [(b.name, b.low, b.high) for b in found.bins[1:]] == [
        (f"q{i + 1}", i + 1 if i else 0, i + 2 if i < 99 else math.inf) for i in range(100)
    ]
    assert found.reference == "100 bins of equal count of the data set's 100 objects (crowds left out)"
    assert (found.source, found.edge_rule) == ("quantiles:100", HALF_OPEN)
    found = resolve_bins("Quantiles:4", "area", areas[::-1])
    assert [b.high for b in found.bins[1:]] == [26, 51, 76, math.inf]
    assert {b.unit for b in found.bins} == {"area"}
    assert [b.high for b in resolve_bins("quantiles:2", areas=areas[:3]).bins] == [math.inf, 3, math.inf]
    for text, values, message in (
        ("quantiles:100", areas[1:], "the data set has 99 objects, fewer than bins"),
        ("quantiles:2", None, "the data set has 0 objects, fewer than bins"),
        ("quantiles:2", np.array([0.0, 0.0, 0.0]), "the same size to tell 2 bins apart"),
        ("quantiles:3", np.array([1.0, 2.0, 2.0, 2.0]), "the same size to tell 3 bins apart"),
        ("quantiles:1", areas, "an integer N from 2 to 100"), ("quantiles:101", np.arange(500.0), "an integer N"),
        ("quantiles", areas, "an integer N"), ("quantiles:2x", areas, "an integer N"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            resolve_bins(text, areas=values)


def test_own_bins_at_their_limits():
    def many(count):
        return ",".join(f"b{i}={i}:{i + 1}" for i in range(count))

    assert len(resolve_bins(many(100)).bins) == 101
    for text, message in (
        (many(101), "^--bins: more than 100 bins$"),
        ("a=0:1e155", "the upper limit of 'a=0:1e155' is too large; inf is without limit"),
        ("a=-1e-9:5", "'a=-1e-9:5' needs 0 <= LOW < HIGH"), ("a=5:5", "needs 0 <= LOW < HIGH"),
        ("a=inf:inf", "needs 0 <= LOW < HIGH"), ("b=0:5, a=x:9", "the limits of 'a=x:9' are not numbers"),
        ("a=0:9,a=9:10", "the name 'a' is taken"), ("a=0:9,all=9:10", "the name 'all' is taken"),
        ("a=0:9,=9:10", "'=9:10' is not NAME=LOW:HIGH"), ("a=0:9,,b=9:10", "'' is not NAME=LOW:HIGH"),
        ("nothing", "--bins 'nothing': allowed are coco, tinyperson, ai-tod, soda, tiny"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            resolve_bins(text)
    with pytest.raises(UserError, match="--bin-unit 'px': allowed are side, pixels, area, relative"):
        resolve_bins("coco", "px")


@pytest.mark.parametrize(
    ("text", "gaps", "overlaps", "message"),
    [
        ("a=0:8,b=8:9", False, False, None),
        ("a=0:8,b=9:10", False, True, "between 'a' and 'b', area in px², 8 to 9 is in no bin (--allow-gaps"),
        ("a=0:8,b=9:10", True, False, None),
        ("a=0:8,b=7:10", True, False, "between 'a' and 'b', area in px², 7 to 8 is in both (--allow-overlaps"),
        ("a=0:8,b=7:10", False, True, None),
        ("a=0:30,b=5:10,c=32:40", False, True, "between 'a' and 'c', area in px², 30 to 32 is in no bin"),
        ("a=0:30,b=5:10,c=30:40", False, True, None),
        ("a=0:30,b=5:10", False, False, "between 'a' and 'b', area in px², 5 to 10 is in both"),
        ("a=5:8,b=8:9", False, False, None),
    ],
)
def test_gaps_and_overlaps(text, gaps, overlaps, message):
    if message is None:
        assert len(resolve_bins(text, "area", None, gaps, overlaps).bins) == text.count("=") + 1
        return
    with pytest.raises(UserError) as caught:
        resolve_bins(text, "area", None, gaps, overlaps)
    assert message in str(caught.value)
