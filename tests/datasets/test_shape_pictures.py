"""A picture: the same everywhere, shapes that are what their class says, visible masks that hold together."""

from __future__ import annotations

import colorsys
import hashlib
import math

import numpy as np
import pytest

from mmms_plugin.datasets.shape_pictures import CLASSES, SCENES, draw_picture, polygon_distance


@pytest.mark.parametrize(
    ("seed", "size", "large", "count", "expected"),
    [
        (7, 96, False, 16, "eba6eee532084cc6cfa22721a1735eb0d50c9424c6d9f39f6a4793bbe033b741"),
        (0, 32, False, 5, "3f375aeec307de9c62bea56e6bff33e07b8be06a881830f6c30ec8586e704603"),
        (1, 191, False, 5, "5d218c0cab3bca6c4e750d584c9b5317d1437dbb6a5af14458103c27bac7764a"),
        (2, 128, True, 4, "547399f9844453c972fa6f50842acbdd85608104616386ac277aba06eafd7be7"),
    ],
)
def test_pictures_are_pinned_to_the_bit(seed: int, size: int, large: bool, count: int, expected: str) -> None:
    """The first also seen to hold on Python 3.10 with NumPy 1.24, 3.12 with 2.0, and without AVX."""
    digest = hashlib.sha256()
    for split in ("train", "val"):
        for index in range(count):
            picture = draw_picture(seed, split, index, size, large)
            for part in (picture.image, picture.ids, picture.void):
                digest.update(part.tobytes())
            digest.update(bytes(picture.labels))
    assert digest.hexdigest() == expected


def test_no_two_pictures_are_alike() -> None:
    places = [(seed, split, index) for seed in (0, 1) for split in ("train", "val") for index in range(20)]
    seen = {draw_picture(*place, 64).image.tobytes() for place in places}
    assert len(seen) == len(places)


def test_scenes_hold_what_they_are_named_for() -> None:
    for index in range(48):
        picture = draw_picture(0, "train", index)
        count = len(picture.labels)
        low, high = {"empty": (0, 0), "single": (1, 1), "mixed": (2, 8), "crowded": (9, 24)}[picture.scene]
        assert low <= count <= high, (index, picture.scene, count)
        areas = np.bincount(picture.ids.ravel(), minlength=count + 1)
        assert len(areas) == count + 1
        assert areas[1:].min(initial=24) >= 24
        if picture.scene == "single":
            assert areas[1] > 64**2  # half of it may lie outside
    for index in range(16):
        picture = draw_picture(0, "train", index, large=True)
        assert picture.scene == "large"
        assert 1 <= len(picture.labels) <= 2
    for size, few in ((64, 4), (192, 6), (400, 26)):
        picture = draw_picture(0, "train", 1, size, small=True)
        assert few / 2 < len(picture.labels) <= 2 * few
        areas = np.bincount(picture.ids.ravel())[1:]
        assert areas.min() >= 24
        assert areas.max() <= 24**2 * 2


def test_polygon_distance_is_that_of_a_densely_sampled_outline() -> None:
    star = [(30.5 + r * math.cos(a), 28.25 + r * math.sin(a)) for a, r in _star(21.0)]
    x, y = np.arange(60.0)[None, :], np.arange(56.0)[:, None]
    found = polygon_distance(star, x, y)
    outline = []
    for (ax, ay), (bx, by) in zip(star, star[1:] + star[:1], strict=True):
        outline += [(ax + (bx - ax) * t, ay + (by - ay) * t) for t in np.linspace(0, 1, 400)]
    points = np.stack(np.broadcast_arrays(x, y), -1).reshape(-1, 1, 2)
    expected = np.sqrt(((points - np.array(outline)) ** 2).sum(-1)).min(1).reshape(found.shape)
    np.testing.assert_allclose(np.abs(found), expected, atol=2e-2)
    # winding number: the angles under which the edges are seen add up to 2 pi inside and to 0 outside
    angles = np.unwrap(np.arctan2(np.array(outline)[:, 1] - points[..., 1], np.array(outline)[:, 0] - points[..., 0]))
    turns = np.abs(angles[:, -1] - angles[:, 0]).reshape(found.shape)
    clear = expected > 0.1
    np.testing.assert_array_equal((found < 0)[clear], (turns > math.pi)[clear])


def _star(radius: float) -> list[tuple[float, float]]:
    return [(0.3 + math.pi * k / 5, radius * (0.48 if k % 2 else 1.0)) for k in range(10)]


def test_the_outline_tells_the_class() -> None:
    """Share of the circle round it, and the hole, as geometry says, for the lone large shapes."""
    expected = {
        "circle": 1.0,
        "ring": 1.0 - 0.45**2,
        "square": 2.0 / math.pi,
        "triangle": 3 * math.sqrt(3) / 4 / math.pi,
        "star": 10 * 0.5 * 0.48 * math.sin(math.pi / 5) / math.pi,
    }
    seen = set()
    for index in range(160):
        if SCENES[index % len(SCENES)] != "single":
            continue
        picture = draw_picture(3, "train", index, 256)
        mask = picture.ids == 1
        if mask[[0, -1]].any() or mask[:, [0, -1]].any():
            continue  # cut by the border
        rows, columns = np.nonzero(mask)
        centre_y, centre_x = rows.mean(), columns.mean()
        radius = np.sqrt((rows - centre_y) ** 2 + (columns - centre_x) ** 2).max() + 0.5
        name = CLASSES[picture.labels[0]]
        assert mask.sum() / (math.pi * radius**2) == pytest.approx(expected[name], rel=0.06), name
        assert mask[round(centre_y), round(centre_x)] == (name != "ring")
        seen.add(name)
    assert seen == set(CLASSES)


def test_void_is_a_thin_line_along_the_edges_in_sight() -> None:
    for index in (0, 1, 4):
        picture = draw_picture(0, "val", index)
        ids = picture.ids.astype(int)
        for reach, allowed in ((1, 0.01), (2, 0.0)):  # px; a sharp tip fades out beyond its last whole pixel
            near_edge = np.zeros(ids.shape, bool)
            for down in range(-reach, reach + 1):
                for right in range(-reach, reach + 1):
                    near_edge |= np.roll(ids, (down, right), (0, 1)) != ids
            assert (picture.void & ~near_edge)[2:-2, 2:-2].sum() <= allowed * picture.void.sum()
        assert 0.3 * near_edge.sum() > picture.void.sum() > 0.1 * near_edge.sum()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, "test", 0), "split='test': allowed are train, val"),
        ((-1, "val", 0), "seed=-1: must be at least 0"),
        ((0, "val", -2), "index=-2: must be at least 0"),
        ((0, "val", 0, 31), "size=31: must be at least 32"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_picture(*arguments)


def test_classes_may_have_colours_of_their_own() -> None:
    """Everything else of the picture stays; hues of other classes are at least 0.08 away."""
    for index in range(8):
        plain, picture = (draw_picture(0, "train", index, 96, colours=colours) for colours in (False, True))
        assert np.array_equal(plain.ids, picture.ids)
        assert plain.labels == picture.labels
        for k, label in enumerate(picture.labels, 1):
            inside = picture.image[(picture.ids == k) & ~picture.void]
            if len(inside) >= 20:
                hue = colorsys.rgb_to_hsv(*(inside.mean(0) / 255))[0]
                assert label / 5 - 0.04 < (hue + 0.04) % 1 - 0.04 < (label + 0.6) / 5 + 0.04
