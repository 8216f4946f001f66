"""Drawings: small objects stay visible, pictures show through segmentations, halves have titles, files their names."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from mmms_plugin.report import drawing
from mmms_plugin.report.drawing import (
    Objects,
    Style,
    draw_caption,
    draw_objects,
    draw_segments,
    save_drawing,
    side_by_side,
)

STYLE = Style.of(("car", "person"), [(250, 0, 0), (0, 0, 250)])
BARE = Style(STYLE.classes, STYLE.colours, labels=False)
GREY = np.full((700, 900, 3), 120, np.uint8)


def boxes(*corners: tuple[float, float, float, float]) -> Objects:
    return Objects(np.array(corners, float), np.arange(len(corners)) % 2, np.full(len(corners), 0.87))


def inside(image: Image.Image, box: tuple[float, ...]) -> np.ndarray:
    left, top, right, bottom = (int(value) for value in box)
    return np.asarray(image)[top:bottom, left:right]


@pytest.mark.slow
def test_labels_never_cover_a_small_object():
    """A crowd of 400 objects of 14 px: every one keeps its pixels, whatever is written between them."""
    corners = [(x, y, x + 14.0, y + 14.0) for x in range(10, 880, 44) for y in range(10, 680, 34)]
    image = draw_objects(GREY, boxes(*corners), STYLE)
    assert all((inside(image, box) == 120).mean() > 0.89 for box in corners)
    bare = draw_objects(GREY, boxes(*corners), Style(STYLE.classes, STYLE.colours, labels=False))
    assert image.size == bare.size
    assert np.asarray(image).tobytes() != np.asarray(bare).tobytes()  # there was room for some labels


def test_a_label_finds_its_place_in_the_picture_and_beside_others():
    """In a corner, above a neighbour, and where nothing is free but its own large box."""
    for box in ((0, 0, 60, 60), (840, 640, 900, 700), (0, 0, 900, 700)):
        image = draw_objects(GREY, boxes(box), STYLE)
        plain = draw_objects(GREY, boxes(box), Style(STYLE.classes, STYLE.colours, labels=False))
        label = np.abs(np.asarray(image, int) - np.asarray(plain, int)).sum(2) > 0
        assert label.any()
        rows, columns = np.flatnonzero(label.any(1)), np.flatnonzero(label.any(0))
        assert rows[-1] < 700
        assert 40 < columns[-1] - columns[0] < 120


def test_a_tiny_object_gets_no_label_and_keeps_its_pixels():
    tiny = boxes((400, 300, 406, 306))
    image = draw_objects(GREY, tiny, STYLE)
    coloured = (np.asarray(image)[:700] != 120).any(2)
    assert coloured.any()
    assert (inside(image, (400, 300, 406, 306)) == 120).all()
    assert coloured[290:316, 390:416].sum() == coloured.sum()


def test_masks_are_outlined_outside_and_large_ones_tinted():
    mask = np.zeros((700, 900), np.uint8, order="F")
    mask[100:300, 200:500] = 1
    mask[600:608, 600:608] = 1
    small = np.zeros_like(mask, order="F")
    small[600:608, 600:608] = 1
    mask -= small
    objects = Objects(np.array([(200, 100, 500, 300), (600, 600, 608, 608)]), np.array([0, 1]), None,
                      [rle.encode(mask), small.astype(bool)])  # fmt: skip
    image = np.asarray(draw_objects(GREY, objects, Style(STYLE.classes, STYLE.colours, labels=False)))
    assert tuple(image[200, 300]) == (172, 72, 72)  # 0.4 of the colour
    assert tuple(image[99, 300]) == (250, 0, 0)
    assert (image[600:608, 600:608] == 120).all()
    assert tuple(image[599, 604]) == (0, 0, 250)


def test_small_pictures_are_enlarged_and_large_ones_reduced():
    assert draw_objects(GREY[:64, :64], boxes(), STYLE).size == (512, 512)
    assert draw_objects(np.zeros((3, 9000, 3), np.uint8), boxes((10, 0, 4000, 3)), STYLE).size[0] == drawing.LARGEST
    style = Style.of(("one",))
    image = draw_objects(GREY[:100, :100], Objects(np.array([(10, 20, 30, 40)]), np.array([0])), style)
    assert tuple(np.asarray(image)[22 * 6, 10 * 6 - 2]) == style.colours[0]  # 6 times


def test_a_segmentation_lets_the_picture_through():
    style = Style.of(("background", "road", "sky"), [(0, 0, 0), (200, 0, 0), (0, 0, 200)])
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (700, 900, 3), dtype=np.uint8)
    segments = np.zeros((700, 900), np.uint8)
    segments[:300], segments[400:500], segments[600:] = 1, 2, 255
    image = np.asarray(draw_segments(pixels, segments, style))
    for rows, colour in ((slice(5, 295), (200, 0, 0)), (slice(405, 495), (0, 0, 200))):
        expected = 0.6 * pixels[rows, 5:-5] + 0.4 * np.array(colour)
        assert np.abs(image[rows, 5:-5] - expected).max() <= 1
    for rows in (slice(305, 395), slice(605, 695)):  # background and void
        assert (image[rows, 5:-5] == pixels[rows, 5:-5]).all()
    assert (image[299, 5:-5] == 255).all()  # the contour


def test_halves_are_titled_and_the_legend_names_what_is_there():
    with_person = draw_objects(GREY, boxes((100, 100, 300, 300), (400, 400, 600, 600)), STYLE)
    without = draw_objects(GREY, boxes((100, 100, 300, 300)), STYLE)
    assert (np.asarray(with_person)[700:] != np.asarray(without)[700:]).any()
    sheet = side_by_side(without, with_person, ("truth", "prediction"))
    bar = np.asarray(sheet)[: sheet.size[1] - with_person.size[1]]
    assert (bar < 100).any(2)[:, :450].any()
    assert (bar < 100).any(2)[:, 905:1350].any()
    assert sheet.size[0] > 1800


@pytest.mark.parametrize(("name", "kind"), [("a.jpg", "JPEG"), ("a.png", "PNG")])
def test_a_drawing_is_written_in_the_format_of_its_name(name, kind, tmp_path):
    save_drawing(Image.new("RGB", (9, 9)), tmp_path / "new" / name)
    assert Image.open(tmp_path / "new" / name).format == kind


@pytest.mark.parametrize(
    ("height", "width", "drawn"),
    [(64, 80, (640, 512)), (60, 64, (512, 480)), (426, 3, (6, 852)), (428, 3, (3, 428)), (3, 3000, (3000, 3)),
     (600, 6000, (3000, 300)), (6000, 1, (1, 3000)), (1, 6000, (3000, 1))],
)  # fmt: skip
def test_sizes_of_drawings(height, width, drawn):
    """Enlarged by a whole number, at most 8, to about 640 px; reduced to 3000 px."""
    assert draw_caption(np.zeros((height, width, 3), np.uint8), []).size == drawn


def test_enlarging_repeats_pixels_and_reducing_averages_them():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    assert (np.asarray(draw_caption(pixels, [])) == pixels.repeat(6, 0).repeat(6, 1)).all()
    stripes = np.zeros((20, 6000, 3), np.uint8)
    stripes[:, ::2] = 200
    reduced = np.asarray(draw_caption(stripes, []))[2:-2, 20:-20]
    assert 90 < reduced.min() <= reduced.max() < 110


@pytest.mark.parametrize(("size", "line"), [((700, 900), 24), ((64, 64), 19), ((30, 3000), 80)])
def test_lines_of_a_caption_stand_below_each_other(size, line):
    """Letters are a sixtieth of the longer side, at least 12 px, on lines of 1.6 times that."""
    pixels = np.full((*size, 3), 120, np.uint8)
    bare, sheet = draw_caption(pixels, []), np.asarray(draw_caption(pixels, ["one", "", "three"]))
    height = bare.size[1]
    assert sheet.shape[:2] == (height + 3 * line, bare.size[0])
    assert (sheet[:height] == np.asarray(bare)).all()
    ink = (sheet[height:] < 100).all(2)
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    assert set(rows // line) == {0, 2}
    for part in (rows[rows < line], rows[rows >= line] - 2 * line):
        assert 0.2 * line < part[0] < part[-1] < 0.9 * line
    assert 3 <= columns[0] <= 10
    assert (sheet[height:].reshape(-1, 3).max(0) == 255).all()


def test_colours_are_the_palettes_where_it_has_enough_and_apart_elsewhere():
    palette = [[1, 2, 3], (4, 5, 6), (7, 8, 9)]
    assert Style.of("ab", palette).colours[:2] == ((1, 2, 3), (4, 5, 6))
    assert Style.of("abc", palette).colours == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    own = Style.of("abcd").colours
    assert own == ((242, 61, 36), (31, 204, 102), (181, 36, 242), (204, 203, 31))
    assert Style.of("abcd", palette).colours == Style.of("abcd", "coco").colours == own
    assert (STYLE.labels, STYLE.letters) == (True, 1.0)


@pytest.mark.parametrize(
    ("box", "colour_from", "kept"),
    [((400, 300, 415, 310), (399, 299, 416, 311), (400, 300, 415, 310)),
     ((400, 300, 416, 310), (398, 298, 418, 312), (400, 300, 416, 310)),
     ((400.4, 300.6, 421.2, 330.9), (398, 298, 424, 333), (400, 300, 422, 331))],
    ids=["thin", "thick", "between pixels"],
)  # fmt: skip
@pytest.mark.parametrize("mask", [None, np.zeros((700, 900), bool)], ids=["box", "empty mask"])
def test_a_box_is_outlined_outside(box, colour_from, kept, mask):
    """One pixel thick below 16 px, two from there; the object's own pixels stay."""
    objects = Objects(np.array([box]), np.array([0]), None, None if mask is None else [mask])
    image = np.asarray(draw_objects(GREY, objects, BARE))[:700]
    rows, columns = np.nonzero((image != 120).any(2))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == colour_from
    left, top, right, bottom = kept
    assert (image[top : bottom + 1, left : right + 1] == 120).all()
    ring = image[colour_from[1] : colour_from[3] + 1, colour_from[0] : colour_from[2] + 1].reshape(-1, 3)
    assert (ring == (250, 0, 0)).all(1).sum() == len(rows) == len(ring) - (right - left + 1) * (bottom - top + 1)


def test_outlines_of_large_pictures_are_a_five_hundredth_thick():
    image = np.asarray(draw_objects(np.full((40, 2900, 3), 120, np.uint8), boxes((1000, 15, 1100, 25)), BARE))
    assert np.flatnonzero((image[20] != 120).any(1)).tolist() == [*range(994, 1000), *range(1101, 1107)]


@pytest.mark.parametrize("width", [100, 213, 640])
def test_masks_are_shown_pixel_for_pixel(width):
    """Also at the borders: filled where they are, with a contour of as many pixels as are not further away."""
    rng, height = np.random.default_rng(width), 60
    scale = 640 // width
    pixels = np.full((height, width, 3), 120, np.uint8)
    for rows, columns in ((slice(0, 9), slice(0, 20)), (slice(45, 60), slice(width - 30, width)),
                          (slice(20, 40), slice(30, 60)), (slice(30, 31), slice(50, 90))):  # fmt: skip
        mask = np.zeros((height, width), bool)
        mask[rows, columns] = rng.random(mask[rows, columns].shape) < 0.8
        y, x = np.nonzero(mask)
        box = np.array([(x.min(), y.min(), x.max() + 1, y.max() + 1)])
        image = np.asarray(draw_objects(pixels, Objects(box, np.array([1]), None, [mask]), BARE))[: height * scale]
        large = mask.repeat(scale, 0).repeat(scale, 1)
        near = large.copy()
        for _ in range(2):
            padded = np.pad(near, 1)
            near = near | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
        expected = np.full(image.shape, 120)
        expected[large], expected[near & ~large] = (72, 72, 172), (0, 0, 250)
        assert (image == expected).all()


def test_masks_of_reduced_pictures_keep_their_place():
    mask = np.zeros((40, 4500), bool)
    mask[12:30, 3000:3600] = True
    objects = Objects(np.array([(3000, 12, 3600, 30)]), np.array([0]), None, [mask])
    image = np.asarray(draw_objects(np.full((40, 4500, 3), 120, np.uint8), objects, BARE))
    assert image.shape[1] == 3000
    assert np.flatnonzero((image[:27] == (172, 72, 72)).all(2).any(0))[[0, -1]].tolist() == [2000, 2399]
    assert np.flatnonzero((image[:27] == (250, 0, 0)).all(2)[14])[[0, -1]].tolist() == [1994, 2405]


def test_small_objects_are_drawn_over_large_ones_whatever_their_order():
    large, small = (300, 200, 600, 500), (300, 350, 420, 470)
    for corners in ((large, small), (small, large)):
        image = np.asarray(draw_objects(GREY, boxes(*corners), BARE))
        assert tuple(image[400, 299]) == BARE.colours[corners.index(small)]


def label_of(corners, labels=(0,), scores=None, style=STYLE, pixels=GREY):
    """Columns and rows of what labels add to a drawing: left, top, right, bottom; and the labelled drawing."""
    objects = Objects(np.array(corners, float), np.array(labels), scores)
    drawn = [np.asarray(draw_objects(pixels, objects, Style(style.classes, style.colours, labels)), int)
             for labels in (True, False)]  # fmt: skip
    rows, columns = np.nonzero(np.abs(drawn[0] - drawn[1]).sum(2))
    return ((columns.min(), rows.min(), columns.max(), rows.max()) if len(rows) else None), drawn[0]


@pytest.mark.parametrize(
    ("box", "sides"),
    [
        ((400, 300, 500, 400), {"left": 400, "bottom": 297}),
        ((885, 300, 899, 340), {"right": 899, "bottom": 297}),
        ((400, 0, 500, 50), {"left": 400, "top": 53}),
        ((885, 0, 899, 40), {"right": 899, "top": 43}),
        ((400, 0, 500, 700), {"left": 503, "top": 0}),
        ((800, 0, 900, 700), {"right": 797, "top": 0}),
        ((0, 0, 900, 700), {"left": 2, "top": 2}),
        ((400, 21, 500, 700), {"left": 503, "top": 21}),
        ((400, 22, 500, 700), {"left": 400, "bottom": 19}),
        ((400, 0, 500, 679), {"left": 503, "top": 0}),
        ((400, 0, 500, 678), {"left": 400, "top": 681}),
    ],
)
def test_a_label_takes_the_first_place_with_room(box, sides):
    """Above, below, to the right, to the left, and inside only where nothing else is left; 3 px away."""
    place, _ = label_of([box])
    found = dict(zip(("left", "top", "right", "bottom"), place, strict=True))
    for side, value in sides.items():
        assert abs(found[side] - value) <= 1
    assert found["bottom"] - found["top"] == pytest.approx(18.75, abs=1)
    assert 0 <= found["left"] < found["right"] < 900
    assert 0 <= found["top"] < found["bottom"] < 700


def test_labels_stay_off_other_labels_and_off_a_tenth_of_other_objects():
    twice = (300, 300, 500, 400)
    _, image = label_of([twice, twice], (0, 1))
    one, _ = label_of([twice])
    size = (one[2] - one[0] + 1) * (one[3] - one[1] + 1)
    left, right = image[270:298, 300:400], image[270:298, 400:503]
    assert (left == (250, 0, 0)).all(2).sum() > 0.4 * size
    assert (right == (0, 0, 250)).all(2).sum() > 0.4 * size
    width, height = one[2] - one[0], 18.75
    for share, stays in ((0.08, True), (0.13, False)):  # of the neighbour, which the place above would cover
        area = width * height / share
        neighbour = (300 - 1, 297 - area / (width + 2), 300 + width + 1, 297)
        beside = label_of([twice, neighbour], (0, 1), style=Style.of(("car", ""), STYLE.colours))[0]
        assert (beside[:2] == one[:2]) == stays


@pytest.mark.parametrize(("side", "labelled"), [(9.9, False), (10, True)])
def test_objects_below_10_px_get_no_label(side, labelled):
    assert bool(label_of([(400, 300, 400 + side, 302)])[0]) == labelled


def test_labels_say_class_and_score_and_no_more_than_is_needed():
    box = [(400, 300, 500, 400)]
    one = Style.of(("car",), STYLE.colours)
    assert label_of(box, style=one)[0] is None  # the only class, without a score
    score = np.array([0.87])
    named, scored, both = (label_of(box, (0,), *more)[0] for more in ((None, STYLE), (score, one), (score, STYLE)))
    widths = [place[2] - place[0] for place in (named, scored, both)]
    assert widths[0] < widths[1] < widths[2] < widths[0] + widths[1] + 6
    rounded, other = (label_of(box, (0,), np.array([score]))[1] for score in (0.874, 0.88))
    assert (rounded == label_of(box, (0,), np.array([0.87]))[1]).all()
    assert (other != rounded).any()


@pytest.mark.parametrize(("colour", "letters"), [((190, 190, 0), 255), ((190, 191, 0), 20), ((250, 0, 0), 255)])
def test_letters_stand_out_from_the_colour_of_the_label(colour, letters):
    (left, top, right, bottom), image = label_of([(400, 300, 500, 400)], style=Style.of(("car", "b"), [colour] * 2))
    inside_label = image[top + 1 : bottom, left + 1 : right]
    assert (inside_label == letters).all(2).any()
    assert not (inside_label == 275 - letters).all(2).any()
    columns = np.flatnonzero(np.abs(inside_label - colour).sum(2).any(0))
    assert columns[0] <= 4
    assert right - left - columns[-1] <= 7


@pytest.mark.parametrize(
    ("names", "lines"),
    [
        (("a", "b"), 1),
        (("n" * 40, "n" * 40), 1),
        (("n" * 200, "b"), 2),
        (("n" * 60, "m" * 50, "o" * 60), 3),
        (("n" * 200,), 1),
    ],
)
def test_the_legend_has_as_many_lines_as_it_needs(names, lines):
    colours = [(250, 0, 0), (0, 0, 250), (0, 160, 0)][: len(names)]
    corners = [(100 + 200 * i, 300, 150 + 200 * i, 350) for i in range(len(names))]
    objects = Objects(np.array(corners, float), np.arange(len(names)))
    style = Style.of(names, colours, labels=False)
    drawn = np.asarray(draw_objects(GREY, objects, style))
    assert drawn.shape == (700 + lines * 24, 900, 3)
    places = []
    for colour in colours:
        rows, columns = np.nonzero((drawn[700:] == colour).all(2))
        assert rows.max() - rows.min() == columns.max() - columns.min() == 15  # the letters' height
        assert abs(rows.mean() % 24 - 12) <= 1
        places.append((int(rows.mean() // 24), int(columns.min())))
    assert places[0] == (0, 4)
    assert places == sorted(set(places))
    assert {x for y, x in places if y} <= {4}
    ink = (drawn[700 : 24 + 700, 20:] < 100).all(2).any(0)
    assert 3 <= np.flatnonzero(ink)[0] <= 10


def test_unknown_and_void_segments_and_the_legend_of_those_there():
    style = Style.of(("Unlabeled", "road", "sky"), [(0, 0, 0), (200, 0, 0), (0, 0, 200)])
    pixels = np.full((80, 90, 3), 100, np.uint8)
    segments = np.zeros((80, 90), np.int64)
    assert draw_segments(pixels, segments, style).size == (630, 560)  # the background has no place in a legend
    segments[:, 60:] = 255
    assert draw_segments(pixels, segments, style).size == (630, 560)
    segments[:20, :30], segments[20:40, :30], segments[40:60, :30], segments[60:, :30] = 2, 3, 254, 300
    image = np.asarray(draw_segments(pixels, segments, style))
    assert image.shape == (560 + 19, 630, 3)
    tinted = [tuple(image[y * 7 + 70, 70]) for y in (0, 20, 40, 60)]
    assert tinted == [(60, 60, 140), *[(111, 111, 111)] * 3]
    assert tuple(image[10, 300]) == tuple(image[10, 600]) == (100, 100, 100)
    legend = image[560:]
    assert [(legend == colour).all(2).any() for colour in style.colours] == [False, False, True]
    large = segments.repeat(7, 0).repeat(7, 1)
    edges = np.zeros(large.shape, bool)
    edges[:, :-1] |= large[:, :-1] != large[:, 1:]
    edges[:-1] |= large[:-1] != large[1:]
    assert ((image[:560] == 255).all(2) == edges).all()


def test_halves_stand_beside_each_other_below_their_titles():
    for (left, right), letters, bar, gap in (
        (((900, 700), (900, 724)), 1.0, 32, 9),
        (((300, 200), (310, 100)), 1.0, 27, 6),
        (((300, 200), (300, 200)), 2.0, 53, 6),
    ):
        halves = [Image.new("RGB", size, colour) for size, colour in ((left, "red"), (right, "blue"))]
        sheet = np.asarray(side_by_side(*halves, ("M", "M"), letters))
        assert sheet.shape[:2] == (bar + max(left[1], right[1]), left[0] + gap + right[0])
        assert (sheet[bar : bar + left[1], : left[0]] == (255, 0, 0)).all()
        assert (sheet[bar : bar + right[1], left[0] + gap :] == (0, 0, 255)).all()
        assert (sheet[:, left[0] : left[0] + gap] == 255).all()
        ink = (sheet[:bar] < 100).all(2)
        starts = [np.flatnonzero(part.any(0))[0] for part in (ink[:, : left[0]], ink[:, left[0] + gap :])]
        assert 4 <= starts[0] == starts[1] <= 8
        rows = np.flatnonzero(ink.any(1))
        assert abs(rows.mean() - bar / 2) <= 2
        assert rows[-1] - rows[0] == pytest.approx(0.36 * bar, abs=2)
