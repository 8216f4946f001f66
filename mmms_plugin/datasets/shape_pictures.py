"""Pictures of filled shapes, each class drawn at every scale: the data that comes with the package, after no paper.

A picture depends on (seed, split, index, size) alone, to the last bit and on every platform:
1. only ``Generator.random`` is drawn from PCG64: other methods may change their stream between NumPy releases (NEP 19);
2. per-pixel arithmetic uses only operations that IEEE 754 rounds correctly (+ - * / sqrt); cosines and powers, which
   libraries round differently, enter only through numbers that are rounded to coarse steps;
3. no drawing library is used, since their anti-aliasing differs between versions.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CLASSES = ("circle", "ring", "square", "triangle", "star")
SPLITS = ("train", "val")
# The index decides the kind of a picture, so that few pictures already hold every kind in the right proportion.
_OTHER_SCENES = {2: "single", 4: "crowded", 7: "single", 10: "empty", 12: "crowded", 13: "single"}
SCENES = tuple(_OTHER_SCENES.get(k, "mixed") for k in range(16))
SMALLEST = 10.0  # px, the nominal side of the smallest shape, whatever the size of the picture
SMALL = 24.0  # px, that of the largest shape where all are small
ROOM = 6144  # px² of the picture for each of the small shapes, at least
LARGEST = 0.72  # of the picture's side, the nominal side of the largest shape
_TRIES = 40
_MIN_AREA = 24  # visible px
_KEPT_BY_BORDER = 0.5  # share of a shape that must lie inside the picture
_KEPT_IN_SIGHT = 0.65  # share of it that shapes drawn later must leave visible
# Radius of each class per nominal side, chosen for areas of 0.6 to 0.9 side^2.
_REACH = {"circle": 0.53, "ring": 0.56, "square": 0.66, "triangle": 0.70, "star": 0.66}
_RING_HOLE = 0.45  # inner over outer radius
_HUES = 0.6  # of the hues between two classes, those that a class with colours of its own has
_STAR_WAIST = 0.48  # inner over outer radius

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Picture:
    """One picture and its objects.

    Attributes:
        image: ``(H, W, 3)`` uint8, RGB.
        ids: ``(H, W)`` uint8, 0 for background, k where object k is visible: the masks ``ids == k`` are disjoint.
        labels: index into ``CLASSES`` of object k at position k - 1.
        void: ``(H, W)`` bool, edge pixels whose colour is a mixture.
        scene: one of ``SCENES``, 'large' or 'small'.
    """

    image: NDArray[np.uint8]
    ids: NDArray[np.uint8]
    labels: tuple[int, ...]
    void: NDArray[np.bool_]
    scene: str


@dataclass(frozen=True)
class _Shape:
    """A shape in its own square window: signed distance in px, negative inside, and its colour and light."""

    label: int
    distance: Array
    reach: float
    colour: Array
    light: tuple[float, float]


def draw_picture(
    seed: int,
    split: str,
    index: int,
    size: int = 192,
    large: bool = False,
    small: bool = False,
    colours: bool = False,
) -> Picture:
    """Picture ``index`` of a split, ``size`` px wide and high.

    Args:
        seed, split, index: which picture; no other depends on them.
        size: px.
        large: show one or two large shapes.
        small: show many small shapes, of up to `SMALL` px, in larger pictures more, up to 100.
        colours: give each class colours of its own.

    Raises:
        ValueError: an unknown split, a negative seed or index, or a size below 32.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: allowed are {', '.join(SPLITS)}")
    for name, value, least in (("seed", seed, 0), ("index", index, 0), ("size", size, 32)):
        if value < least:
            raise ValueError(f"{name}={value}: must be at least {least}")
    sequence = np.random.SeedSequence((seed, SPLITS.index(split), index))
    rng = np.random.Generator(np.random.PCG64(sequence))
    scene = "large" if large else "small" if small else SCENES[index % len(SCENES)]
    canvas = _background(rng, size)
    ids = np.zeros((size, size), np.uint8)
    void = np.zeros((size, size), np.bool_)
    areas: list[int] = []
    labels: list[int] = []
    for side, label in _cast(rng, scene, size):
        shape = _make_shape(rng, label, side, colours)
        place = _find_place(rng, shape, ids, areas)
        if place is not None:
            areas.append(_paint(shape, place, canvas, ids, void, len(areas) + 1))
            labels.append(label)
    grain = (rng.random((size, size, 1)) - rng.random((size, size, 1))) * _between(rng, 4.0, 12.0)
    image = np.rint(np.clip(canvas + grain, 0.0, 255.0)).astype(np.uint8)
    return Picture(image, ids, tuple(labels), void, scene)


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(rng.random())


def _log_between(rng: np.random.Generator, low: float, high: float) -> float:
    """Log-uniform, to 1/64 px: the rounding hides how a platform's power function rounds."""
    return round(64.0 * low * math.pow(high / low, float(rng.random()))) / 64.0


def _cast(rng: np.random.Generator, scene: str, size: int) -> list[tuple[float, int]]:
    """(nominal side in px, label) of the shapes of a scene, in the order of drawing."""
    if scene == "empty":
        return []
    few = min(50, max(4, size * size // ROOM))
    low, high, least, most = {
        "mixed": (SMALLEST, LARGEST * size, 3, 8),
        "single": (0.64 * size, LARGEST * size, 1, 1),
        "large": (0.5 * size, LARGEST * size, 1, 2),
        "small": (SMALLEST, SMALL, few, 2 * few),
        "crowded": (SMALLEST, max(1.4 * SMALLEST, 0.14 * size), 12, 24),
    }[scene]
    count = least + int(rng.random() * (most - least + 1))
    first = int(rng.random() * len(CLASSES))
    sides = [_log_between(rng, low, high) for _ in range(count)]
    if scene == "mixed":
        sides[0] = _log_between(rng, 0.36 * size, high)  # else many pictures would have small shapes only
    # Roughly from large to small: a large shape that is drawn last finds no place among small ones.
    keys = [side * _between(rng, 0.6, 1.0) for side in sides]
    order = sorted(range(count), key=keys.__getitem__, reverse=True)
    return [(sides[k], (first + k) % len(CLASSES)) for k in order]


def _make_shape(rng: np.random.Generator, label: int, side: float, colours: bool) -> _Shape:
    reach = round(64.0 * side * _REACH[CLASSES[label]]) / 64.0
    half = math.ceil(reach) + 2
    shift = [round(64.0 * (float(rng.random()) - 0.5)) / 64.0 for _ in range(2)]
    steps = np.arange(-half, half + 1, dtype=np.float64)
    x, y = steps[None, :] - shift[0], steps[:, None] - shift[1]
    distance = _distance(CLASSES[label], reach, 2.0 * math.pi * float(rng.random()), x, y)
    hue, saturation, value = float(rng.random()), _between(rng, 0.45, 0.95), _between(rng, 0.40, 0.88)
    if colours:
        hue = (label + _HUES * hue) / len(CLASSES)
    colour = 255.0 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))
    light = (_between(rng, -0.18, 0.18), _between(rng, -0.18, 0.18))
    return _Shape(label, distance, reach, colour, light)


def _distance(name: str, reach: float, angle: float, x: Array, y: Array) -> Array:
    """Signed distance in px from points x (1, W), y (H, 1) to the outline of a shape around the origin."""
    if name in ("circle", "ring"):
        radius = np.sqrt(x * x + y * y)
        if name == "circle":
            return radius - reach
        half_width = 0.5 * (1.0 - _RING_HOLE) * reach
        return np.abs(radius - (reach - half_width)) - half_width
    corners = {"square": 4, "triangle": 3, "star": 10}[name]
    radii = [reach * (_STAR_WAIST if name == "star" and k % 2 else 1.0) for k in range(corners)]
    angles = [angle + 2.0 * math.pi * k / corners for k in range(corners)]
    points = [(math.cos(a) * r, math.sin(a) * r) for a, r in zip(angles, radii, strict=True)]
    return polygon_distance([(round(64.0 * px) / 64.0, round(64.0 * py) / 64.0) for px, py in points], x, y)


def polygon_distance(corners: list[tuple[float, float]], x: Array, y: Array) -> Array:
    """Signed distance, negative inside, from points x (1, W), y (H, 1) to a simple polygon; shape (H, W).

    The side of a point is decided without rounding if all coordinates are multiples of 1/64.
    """
    squared = np.full(np.broadcast(x, y).shape, np.inf)
    inside = np.zeros(squared.shape, np.bool_)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey, px, py = bx - ax, by - ay, x - ax, y - ay
        along = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0.0, 1.0)
        qx, qy = px - along * ex, py - along * ey
        squared = np.minimum(squared, qx * qx + qy * qy)
        to_the_left = (px * ey < py * ex) if ey > 0 else (px * ey > py * ex)
        inside ^= ((ay > y) != (by > y)) & to_the_left
    return np.where(inside, -1.0, 1.0) * np.sqrt(squared)


def _find_place(
    rng: np.random.Generator, shape: _Shape, ids: NDArray[np.uint8], areas: list[int]
) -> tuple[int, int] | None:
    """Top left corner of the window, or None if no try leaves this shape and the earlier ones visible enough."""
    size, window = ids.shape[0], shape.distance.shape[0]
    may_overlap, at_border = rng.random() < 0.25, rng.random() < 0.2
    out = math.ceil(shape.reach) if at_border else 0
    span = max(0, size - window + 4 + 2 * out)  # the window has 2 px of margin that may always lie outside
    low = (window - size + span) // 2
    areas_before = np.array([0, *areas])
    whole = int((shape.distance <= 0.0).sum())
    in_sight = np.bincount(ids.ravel(), minlength=len(areas) + 1)
    for _ in range(_TRIES):
        top, left = (int(rng.random() * (span + 1)) - low for _ in range(2))
        inside, outer = _clip(top, left, window, size)
        mask = shape.distance[inside] <= 0.0
        covered = np.bincount(ids[outer][mask], minlength=len(areas) + 1)
        if covered.sum() < max(_MIN_AREA, _KEPT_BY_BORDER * whole) or (covered[1:].any() and not may_overlap):
            continue
        left_over = in_sight[1:] - covered[1:]
        if (left_over >= np.maximum(_MIN_AREA, _KEPT_IN_SIGHT * areas_before[1:])).all():
            return top, left
    return None


def _clip(top: int, left: int, window: int, size: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of a window that lies in the picture, as slices of the window and of the picture."""
    spans = [(start, max(0, start), min(size, start + window)) for start in (top, left)]
    inner = [slice(low - start, high - start) for start, low, high in spans]
    outer = [slice(low, high) for _, low, high in spans]
    return (inner[0], inner[1]), (outer[0], outer[1])


def _paint(
    shape: _Shape,
    place: tuple[int, int],
    canvas: Array,
    ids: NDArray[np.uint8],
    void: NDArray[np.bool_],
    number: int,
) -> int:
    """Draw a shape with a soft light and a darker rim; return its area in px inside the picture."""
    window = shape.distance.shape[0]
    inner, outer = _clip(*place, window, ids.shape[0])
    distance = shape.distance[inner]
    cover = np.clip(0.5 - distance, 0.0, 1.0)
    steps = (np.arange(window, dtype=np.float64) - window // 2) / shape.reach
    light = 1.0 + shape.light[0] * steps[None, inner[1]] + shape.light[1] * steps[inner[0], None]
    rim = 1.0 - 0.22 * np.clip(1.0 + distance / (1.0 + 0.05 * shape.reach), 0.0, 1.0)
    paint = shape.colour * (light * rim)[..., None]
    canvas[outer] = canvas[outer] + (paint - canvas[outer]) * cover[..., None]
    void[outer] = np.where(cover > 0.0, cover < 1.0, void[outer])
    ids[outer] = np.where(distance <= 0.0, number, ids[outer])
    return int((distance <= 0.0).sum())


def _background(rng: np.random.Generator, size: int) -> Array:
    """(size, size, 3) in 0 to 255: a pale gradient of two colours with a cloudy texture."""
    hue = float(rng.random())
    colours = []
    for _ in range(2):
        tint = colorsys.hsv_to_rgb(hue % 1.0, _between(rng, 0.04, 0.22), _between(rng, 0.80, 0.98))
        colours.append(255.0 * np.array(tint))
        hue += _between(rng, 0.05, 0.3)
    steps = (np.arange(size, dtype=np.float64) + 0.5) / size
    slope = [_between(rng, -1.0, 1.0) for _ in range(2)]
    ramp = slope[0] * steps[None, :] + slope[1] * steps[:, None]
    low, high = sum(min(s, 0.0) for s in slope), sum(max(s, 0.0) for s in slope)
    ramp = (ramp - low) / (high - low + 1e-9)
    clouds = 14.0 * _clouds(rng, size, 4) + 8.0 * _clouds(rng, size, 13)
    return colours[0] + (colours[1] - colours[0]) * ramp[..., None] + clouds[..., None]


def _clouds(rng: np.random.Generator, size: int, cells: int) -> Array:
    """(size, size) in -0.5 to 0.5: random values on a grid of cells, interpolated bilinearly."""
    grid = rng.random((cells + 1, cells + 1)) - 0.5
    at = np.arange(size, dtype=np.float64) * cells / size
    near = at.astype(np.int64)
    part = at - near
    rows = grid[near] + (grid[near + 1] - grid[near]) * part[:, None]
    return rows[:, near] + (rows[:, near + 1] - rows[:, near]) * part[None, :]
