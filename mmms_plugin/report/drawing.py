"""Objects and segmentations drawn over a picture, so that the picture stays visible.

1. A label stands outside its object and covers less than a tenth of any object's box; if there is no such place, or the
   object is tiny, it is omitted. Colours show the class, with a legend below the picture.
2. Small pictures are enlarged and very large ones reduced, so that outlines and letters have a readable size.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as rle

from mmms_plugin.coco.frames import moved
from mmms_plugin.files import written_whole

SMALLEST, LARGEST = 640, 3000  # px: the longer side of a drawing
TINY = 10  # px of the drawing: objects whose longer side is smaller get no label
FILLED = 16  # px of the drawing: objects whose longer side is smaller get only an outline
COVERED = 0.1  # share of an object's box that a label may cover
OPACITY = 0.4
VOID, UNTINTED = 255, ("background", "unlabeled", "unlabelled")
PAPER, INK, VOID_COLOUR = (255, 255, 255), (20, 20, 20), (128, 128, 128)
Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Objects:
    """The objects in one picture, predicted or annotated.

    Attributes:
        boxes: [N, 4], left, top, right and bottom in px.
        labels: N class indices.
        scores: N scores; None for ground truth.
        masks: N masks, each a COCO RLE or a boolean array [height, width]; None if there are only boxes.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None
    masks: Sequence[Mapping[str, Any] | np.ndarray] | None = None


@dataclass(frozen=True)
class Style:
    """Names and colours of the classes, whether to label objects, and a factor for the size of letters."""

    classes: tuple[str, ...]
    colours: tuple[Colour, ...]
    labels: bool = True
    letters: float = 1.0

    @classmethod
    def of(cls, classes: Sequence[str], palette: Any = None, labels: bool = True, letters: float = 1.0) -> Style:
        """With a palette, N triples of 0 to 255, if it has enough colours; else with distinct hues."""
        fits = isinstance(palette, list | tuple) and len(palette) >= len(classes)
        colours = [tuple(int(v) for v in colour) for colour in palette] if fits else distinct_colours(len(classes))
        return cls(tuple(classes), tuple(colours), labels, letters)  # type: ignore[arg-type]


def distinct_colours(count: int) -> list[Colour]:
    """Bright RGB colours, whose hues are steps of the golden angle."""
    hues = [(0.02 + 0.381966 * i) % 1 for i in range(count)]
    shades = [colorsys.hsv_to_rgb(hue, 0.85, 0.8 if i % 2 else 0.95) for i, hue in enumerate(hues)]
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in shades]


def draw_objects(pixels: np.ndarray, objects: Objects, style: Style) -> Image.Image:
    """Draw outlines, fillings and labels of objects over ``pixels``, [height, width, 3] 8-bit RGB, with a legend."""
    scale = _scale(pixels)
    canvas = np.asarray(_resized(pixels, scale)).copy()
    boxes = np.asarray(objects.boxes, dtype=float).reshape(-1, 4) * scale
    order = np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), kind="stable")  # small ones on top
    for i in order:
        mask = None if objects.masks is None else objects.masks[i]
        _draw_shape(canvas, boxes[i], mask, scale, style.colours[objects.labels[i]])
    image = Image.fromarray(canvas)
    if style.labels:
        colours = [style.colours[k] for k in objects.labels]
        font = _font(_letters(image, style.letters))
        _draw_labels(image, boxes, order, _texts(objects, style), colours, font)
    return _with_legend(image, [int(k) for k in np.unique(objects.labels)], style)


def draw_segments(pixels: np.ndarray, segments: np.ndarray, style: Style) -> Image.Image:
    """Draw a tint and a contour for every class over ``pixels``; background and void are not tinted.

    Args:
        pixels: [height, width, 3] 8-bit RGB.
        segments: [height, width] class indices; 255 is void.
    """
    scale = _scale(pixels)
    picture = _resized(pixels, scale)
    large = np.asarray(Image.fromarray(segments.astype(np.int32)).resize(picture.size, Image.Resampling.NEAREST))
    table = np.full((max(VOID, int(large.max())) + 1, 3), VOID_COLOUR, dtype=float)
    table[: len(style.colours)] = style.colours
    opacity = np.full(len(table), OPACITY)
    opacity[VOID] = 0
    opacity[[k for k, name in enumerate(style.classes) if name.lower() in UNTINTED]] = 0
    share = opacity[large][..., None]
    canvas = (1 - share) * np.asarray(picture) + share * table[large]
    canvas[_edges(large)] = 255
    present = [int(k) for k in np.unique(large) if k < len(style.classes) and opacity[k]]
    return _with_legend(Image.fromarray(canvas.astype(np.uint8)), present, style)


def draw_caption(pixels: np.ndarray, lines: Sequence[str]) -> Image.Image:
    """Draw a picture, [height, width, 3] 8-bit RGB, above lines of text."""
    image = _resized(pixels, _scale(pixels))
    font = _font(_letters(image))
    line = round(1.6 * font.size)
    sheet = Image.new("RGB", (image.size[0], image.size[1] + line * len(lines)), PAPER)
    sheet.paste(image, (0, 0))
    for i, text in enumerate(lines):
        ImageDraw.Draw(sheet).text((4, image.size[1] + (i + 0.5) * line), text, font=font, fill=INK, anchor="lm")
    return sheet


def side_by_side(left: Image.Image, right: Image.Image, titles: tuple[str, str], letters: float = 1.0) -> Image.Image:
    """Join two drawings of one picture side by side, each below its title; ``letters`` as in ``Style``."""
    font = _font(round(1.15 * _letters(left, letters)))
    bar = round(1.9 * font.size)
    gap = max(6, left.size[0] // 100)
    sheet = Image.new("RGB", (left.size[0] + gap + right.size[0], bar + max(left.size[1], right.size[1])), PAPER)
    for image, title, x in ((left, titles[0], 0), (right, titles[1], left.size[0] + gap)):
        ImageDraw.Draw(sheet).text((x + 4, bar / 2), title, font=font, fill=INK, anchor="lm")
        sheet.paste(image, (x, bar))
    return sheet


def stacked(images: Sequence[Image.Image]) -> Image.Image:
    """Join drawings one below the other."""
    gap = 12
    sheet = Image.new("RGB", (max(i.width for i in images), sum(i.height + gap for i in images) - gap), PAPER)
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height + gap
    return sheet


def save_drawing(image: Image.Image, path: Path) -> None:
    """Write a drawing as JPEG or PNG, by its suffix, completely or not at all."""
    with written_whole(path) as temporary:
        image.save(temporary, format="JPEG" if path.suffix == ".jpg" else "PNG", quality=92)


def _scale(pixels: np.ndarray) -> float:
    side = max(pixels.shape[:2])
    if side > LARGEST:
        return LARGEST / side
    return float(min(8, max(1, round(SMALLEST / side))))


def _resized(pixels: np.ndarray, scale: float) -> Image.Image:
    height, width = pixels.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def _letters(image: Image.Image, factor: float = 1.0) -> int:
    """Height of the letters in a drawing."""
    return round(factor * max(12, max(image.size) / 60))


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)  # type: ignore[return-value]


def _part_of(mask: Mapping[str, Any] | np.ndarray, margin: int) -> tuple[np.ndarray, int, int] | None:
    """The pixels of a mask around its object, their first column and row; None if it is empty.

    Args:
        mask: as in ``Objects``; run lengths are decoded there only.
        margin: px around the object, as far as the picture goes.
    """
    run_lengths = mask if isinstance(mask, Mapping) else rle.encode(np.asfortranarray(np.asarray(mask, np.uint8)))
    x, y, wide, high = (int(side) for side in rle.toBbox(run_lengths))
    if not wide or not high:
        return None
    height, width = run_lengths["size"]
    left, top = max(0, x - margin), max(0, y - margin)
    right, bottom = min(width, x + wide + margin), min(height, y + high + margin)
    return rle.decode(moved(dict(run_lengths), left, top, bottom - top, right - left)).astype(bool), left, top


def _draw_shape(
    canvas: np.ndarray, box: np.ndarray, mask: Mapping[str, Any] | np.ndarray | None, scale: float, colour: Colour
) -> None:
    """Draw the mask with a contour around it, or the outline of the box if there is no mask."""
    height, width = canvas.shape[:2]
    thick = 1 if max(box[2:] - box[:2]) < FILLED else max(2, round(max(height, width) / 500))
    found = None if mask is None else _part_of(mask, 1 + int(np.ceil((thick + 1) / scale)))
    if found is None:
        frame = (*(np.floor(box[:2]) - thick), *(np.ceil(box[2:]) + thick))
        image = Image.fromarray(canvas)
        ImageDraw.Draw(image).rectangle(frame, outline=colour, width=thick)
        canvas[:] = np.asarray(image)
        return
    part, left, top = found
    y, x = round(top * scale), round(left * scale)
    size = (round((left + part.shape[1]) * scale) - x, round((top + part.shape[0]) * scale) - y)
    large = np.asarray(Image.fromarray(part).resize((max(1, size[0]), max(1, size[1])), Image.Resampling.NEAREST))
    target = canvas[y : y + large.shape[0], x : x + large.shape[1]]
    large = large[: target.shape[0], : target.shape[1]]
    if max(box[2:] - box[:2]) >= FILLED:
        target[large] = (1 - OPACITY) * target[large] + OPACITY * np.asarray(colour)
    target[_grown(large, thick) & ~large] = colour


def _grown(mask: np.ndarray, steps: int) -> np.ndarray:
    """The mask grown by ``steps`` pixels on every side."""
    for _ in range(steps):
        padded = np.pad(mask, 1)
        mask = padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return mask


def _edges(segments: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour has another class."""
    edges = np.zeros(segments.shape, bool)
    edges[:, :-1] |= segments[:, :-1] != segments[:, 1:]
    edges[:-1] |= segments[:-1] != segments[1:]
    return edges


def _texts(objects: Objects, style: Style) -> list[str]:
    """Labels: name and score; for ground truth only the name, with a single class only the score."""
    names = ["" if len(style.classes) == 1 else style.classes[k] for k in objects.labels]
    if objects.scores is None:
        return names
    return [f"{name} {score:.2f}".strip() for name, score in zip(names, objects.scores, strict=True)]


def _draw_labels(
    image: Image.Image, boxes: np.ndarray, order: np.ndarray, texts: list[str], colours: list[Colour], font: Any
) -> None:
    """Label objects, large ones first, if there is room."""
    draw = ImageDraw.Draw(image)
    taken: NDArray[np.float64] = np.zeros((0, 4))
    for i in order:
        if not texts[i] or max(boxes[i, 2:] - boxes[i, :2]) < TINY:
            continue
        width = draw.textlength(texts[i], font=font) + 4
        place = _free_place(boxes[i], (width, 1.25 * font.size), boxes, taken, image.size)
        if place is not None:
            taken = np.vstack([taken, place])
            draw.rectangle(place, fill=colours[i])
            dark = sum(colours[i]) > 380
            middle = (place[1] + place[3]) / 2
            draw.text((place[0] + 2, middle), texts[i], font=font, fill=INK if dark else PAPER, anchor="lm")


def _free_place(
    box: np.ndarray, size: tuple[float, float], boxes: np.ndarray, taken: np.ndarray, limits: tuple[int, int]
) -> Box | None:
    """A place for a label of ``size`` at ``box``: within the picture, not on another label or on an object."""
    width, height = size
    left, top, right, bottom = box
    corners = [(left, top - height - 3), (right - width, top - height - 3), (left, bottom + 3),
               (right - width, bottom + 3), (right + 3, top), (left - width - 3, top), (left + 2, top + 2)]  # fmt: skip
    for x, y in corners:
        place = (x, y, x + width, y + height)
        if x < 0 or y < 0 or place[2] > limits[0] or place[3] > limits[1]:
            continue
        areas = np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1)
        if (_overlaps(place, boxes) <= COVERED * areas).all() and not _overlaps(place, taken).any():
            return place
    return None


def _overlaps(place: Box, boxes: np.ndarray) -> np.ndarray:
    """The area that ``place`` shares with each of ``boxes`` [N, 4]."""
    sides = np.minimum(boxes[:, 2:], place[2:]) - np.maximum(boxes[:, :2], place[:2])
    return np.prod(np.maximum(sides, 0), axis=1)


def _with_legend(image: Image.Image, present: list[int], style: Style) -> Image.Image:
    """The drawing above a legend of the classes in it."""
    font = _font(_letters(image, style.letters))
    line, x, y, places = round(1.6 * font.size), 4, 0, []
    for k in present:
        width = round(1.4 * font.size + font.getlength(style.classes[k]) + font.size)
        if x > 4 and x + width > image.size[0]:
            x, y = 4, y + line
        places.append((x, y, k))
        x += width
    sheet = Image.new("RGB", (image.size[0], image.size[1] + (y + line if places else 0)), PAPER)
    sheet.paste(image, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for x, y, k in places:
        top = image.size[1] + y + line / 2
        draw.rectangle((x, top - font.size / 2, x + font.size, top + font.size / 2), fill=style.colours[k])
        draw.text((x + 1.4 * font.size, top), style.classes[k], font=font, fill=INK, anchor="lm")
    return sheet
