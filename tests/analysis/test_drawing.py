"""Drawings: small objects stay visible, pictures show through segmentations, halves have titles, files their names."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from mmms_plugin.analysis import drawing
from mmms_plugin.analysis.drawing import Objects, Style, draw_objects, draw_segments, save_drawing, side_by_side

STYLE = Style.of(("car", "person"), [(250, 0, 0), (0, 0, 250)])
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
