"""Advice on a detector: from the sizes of a data set's objects and the detector's geometry to what to change, and why.

Objects that a detector cannot see well are smaller than its cells, off its anchors, or wider than its receptive field.
All lengths are px of the network's input, so after resizing. The size bins are by default COCO's, for the pictures on
disk, so that the numbers stand beside AP_S, AP_M and AP_L.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.errors import counted
from mmms_plugin.size_ap.bins import Bin, contains, resolve_bins
from mmms_plugin.size_ap.object_sizes import best_scale, off_anchors

MANY = 0.05  # share of the objects below a cell that calls for a change
FAR = 0.10  # share of the objects beyond the receptive field at which layers that see farther are expected to help
GAIN = 0.02  # share of the objects that new layers must win
# Share of the objects that new anchors must win. Both experiments in ANCHORS gained about 0.001 AP for each per cent of
# the objects: 0.12 for 100, and 0.011 for 11, which is what pairs of trainings differ by. 20 would gain twice as much.
ANCHOR_GAIN = 0.20
ENOUGH, ENOUGH_CELLS = 32.0, 4  # px, and finest cells: the sides of objects in the smaller pictures of SMALLER
SHRUNK = 3.0  # largest factor by which pictures are made smaller there
SAVING = 0.25  # share of the multiply-adds for which another size is worth a comparison
# Tiles are advised where pictures become at most SHRINKING times as large, and MANY_SMALL of their objects smaller than
# SMALL px, the side of COCO's small ones.
SHRINKING, SMALL, MANY_SMALL = 2 / 3, 32.0, 0.25
LARGEST = 2.0  # largest factor of the input size that is advised, before rounding
STEP = 32  # px; input sizes are multiples of it
RULE = "rule of thumb"
NUCLEI = (
    "experiment: on 1,632 small, 788 medium and 2 large cells, PSConv from scratch lost 0.027 box AP against the plain "
    "layers"
)
FAR_OBJECTS = (
    "experiment: three pairs of trainings on generated objects of 96 px and more, one-stage detector, field of 61 px: "
    "box AP 0.542 with plain layers, 0.745 with PSConv (AP_L 0.524 to 0.812, AP_M as it was); in pictures of a third "
    "of the side, 0.744 with plain layers at a ninth of the cost"
)
FAR_OBJECTS_TWO_STAGE = (
    "experiment: three pairs of trainings on generated objects of 96 px and more, field of 61 px: box AP of a "
    "one-stage detector 0.542 with plain layers, 0.745 with PSConv; of a two-stage one, whose second stage sees whole "
    "proposals, 0.497 and 0.621, not settled (+0.124 ± 0.122)"
)
SMALLER = (
    "experiment on other data, three trainings each, one-stage detector: generated objects of 96 px and more, box AP "
    "0.542; at a third of the side, anchors too, 0.744 at a ninth of the multiply-adds"
)
ANCHORS = (
    "experiments on other data, three pairs of trainings each: generated objects with anchors of a third of their "
    "size, 99.7% to 0.0% off, box AP 0.428, with advised scales 0.548 (+0.120 ± 0.030); nuclei of some 20 px, 27.6% "
    "to 16.2%, 0.374 and 0.385 (+0.011 ± 0.012, not settled)"
)
TABLE_7 = (
    "published experiment: PSConv, Table 7, COCO, pre-trained Mask R-CNN with ResNet-50: AP_L 48.1 to 51.3, AP_S 21.9 "
    "to 24.1"
)
PLAIN_WEIGHTS = (
    "experiment against it: put into a network with ImageNet weights of plain layers, three pairs on nuclei, PSConv "
    "lost 0.085 ± 0.032 box AP; use weights trained with it, or train from scratch"
)


@dataclass(frozen=True)
class Objects:
    """Objects of a data set, crowds left out.

    Attributes:
        areas: ``[n]`` that place objects in bins: px² on disk, unless other sizes are asked for.
        boxes: ``[n, 2]`` width and height in px of the network's input.
        pictures: number of pictures.
        enlarged: factor by which resizing makes pictures larger than on disk, the median.
        factors: ``[n]`` that of each object's picture; None if it is the same for all.
    """

    areas: NDArray[np.float64]
    boxes: NDArray[np.float64]
    pictures: int
    enlarged: float = 1.0
    factors: NDArray[np.float64] | None = None

    @property
    def on_disk(self) -> NDArray[np.float64]:
        """``[n]`` sides in px on disk."""
        return self.sides / (self.enlarged if self.factors is None else self.factors)

    @property
    def sides(self) -> NDArray[np.float64]:
        """``[n]`` square roots of the boxes' areas."""
        return np.sqrt(self.boxes.prod(1))

    def scaled(self, factor: float) -> Objects:
        """The same objects in pictures resized by ``factor``."""
        factors = None if self.factors is None else self.factors * factor
        return replace(self, boxes=self.boxes * factor, enlarged=self.enlarged * factor, factors=factors)


@dataclass(frozen=True)
class Geometry:
    """The geometry of a detector.

    Attributes:
        strides: of the maps that it predicts from.
        anchors: ``[k, 4]`` as in `mmms_plugin.size_ap.object_sizes`; None without anchors.
        field: effective receptive field of the deepest stage, two standard deviations to each side.
        theoretical: receptive field of the same stage; None if it is wider than the strips it is measured on.
        size: (width, height) that pictures are resized to fit.
    """

    strides: tuple[int, ...]
    anchors: NDArray[np.float64] | None
    field: float
    theoretical: int | None
    size: tuple[int, int]


@dataclass(frozen=True)
class Shares:
    """The objects of one size.

    Attributes:
        name: of the size.
        objects: number of objects.
        below_cell: share that is smaller than the smallest cell.
        off_anchors: share that no anchor fits; None without anchors.
        beyond_field: share that is wider or higher than the receptive field.
    """

    name: str
    objects: int
    below_cell: float
    off_anchors: float | None
    beyond_field: float


def shares(objects: Objects, geometry: Geometry, bins: Sequence[Bin] | None = None) -> list[Shares]:
    """For all objects, then for those of each bin, by default COCO's; sizes without objects are omitted."""
    bins = tuple(bins or resolve_bins("coco").bins)
    rows = zip(bins, contains(bins, objects.areas), strict=True)
    return [
        Shares(
            bin_.name,
            int(inside.sum()),
            float((objects.sides[inside] < min(geometry.strides)).mean()),
            None if geometry.anchors is None else off_anchors(objects.boxes[inside], geometry.anchors),
            float((objects.boxes[inside].max(1) > geometry.field).mean()),
        )
        for bin_, inside in rows
        if inside.any()
    ]


def share_beyond(objects: Objects, field: float) -> float:
    """Share of the objects that are wider or higher than a receptive field."""
    return float((objects.boxes.max(1) > field).mean())


@dataclass(frozen=True)
class Options:
    """What can be changed in a config.

    Attributes:
        scales: key of the anchors' scale and its configured values; None without such a key.
        finer: changes that add a level of half the stride; None if the detector does not allow it.
        finer_anchors: of the detector with this level, as `Geometry.anchors`.
        plain: changes that replace multi-scale layers by plain ones; None if the layers are plain already.
        multi_scale: changes that replace plain layers by PSConv; None if the backbone does not take them.
        multi_scale_field: measures the effective receptive field with PSConv, px, if the advice depends on it.
        other_layers: name of a multi-scale backbone without a plain form here, '' for none.
        two_stage: whether a second stage sees the whole of each proposal, whatever the receptive field of a cell.
    """

    scales: tuple[str, tuple[float, ...]] | None = None
    finer: Mapping[str, Any] | None = None
    finer_anchors: NDArray[np.float64] | None = None
    plain: Mapping[str, Any] | None = None
    multi_scale: Mapping[str, Any] | None = None
    multi_scale_field: Callable[[], float] = float
    other_layers: str = ""
    two_stage: bool = False


@dataclass(frozen=True)
class Advice:
    """One change, or the advice to change nothing.

    Attributes:
        topic: the part that it is about.
        what: the change.
        why: the reason with its figures.
        evidence: what supports it.
        changes: new values of the config by their dotted keys.
        size: new input size, (width, height) in px.
    """

    topic: str
    what: str
    why: str
    evidence: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None


def advise(objects: Objects, geometry: Geometry, options: Options) -> list[Advice]:
    """The advice for a detector, in the order of its parts.

    Args:
        objects: of the data set.
        geometry: of the detector with plain layers.
        options: changes that its config allows.
    """
    total = shares(objects, geometry)[0]
    small, factor = _small_objects(objects, geometry, options, total)
    if any(item.topic == "levels" for item in small):
        strides = (min(geometry.strides) // 2, *geometry.strides)
        geometry = replace(geometry, strides=strides, anchors=options.finer_anchors)
    seen = objects.scaled(factor)
    advice = [*small, _tiles(objects, geometry), _anchors(seen, geometry, options), _layers(seen, geometry, options)]
    return [item for item in advice if item is not None]


def _small_objects(objects: Objects, geometry: Geometry, options: Options, total: Shares) -> tuple[list[Advice], float]:
    """Advice on finer cells and larger pictures, and the factor by which pictures grow."""
    stride, changes = min(geometry.strides), []
    text = f"{total.below_cell:.1%} of {_objects(total.objects)} are smaller than one cell of {stride} px"
    if total.below_cell < MANY:
        return [_kept_size(objects, geometry, options, text)], 1.0
    if options.finer is not None:
        stride //= 2
        left = float((objects.sides < stride).mean())
        why = f"{text}; with cells of {stride} px it is {left:.1%}"
        changes.append(Advice("levels", f"add a level of stride {stride}", why, RULE, options.finer))
        if left < MANY:
            return changes, 1.0
        text = f"{left:.1%} of {_objects(total.objects)} are smaller than one cell of {stride} px even then"
    factor = min(LARGEST, max(1.0, stride / _smallest(objects)))
    width, height = _resized(geometry.size, factor)
    factor = min(width / geometry.size[0], height / geometry.size[1])
    left = float((objects.scaled(factor).sides < stride).mean())
    why = f"{text}; in pictures of {width} x {height} px {left:.1%} are smaller than {stride} px"
    changes.append(Advice("input size", f"pictures of {width} x {height} px", why, RULE, size=(width, height)))
    return changes, factor


def _kept_size(objects: Objects, geometry: Geometry, options: Options, text: str) -> Advice:
    """The advice to keep the input size, with a smaller one if the objects are large enough for it."""
    side = max(ENOUGH, ENOUGH_CELLS * min(geometry.strides))
    factor = max(side / _smallest(objects), 1 / SHRUNK, 1 / objects.enlarged if objects.enlarged > 1 else 0)
    width, height = _resized(geometry.size, min(1.0, factor))
    saved = 1 - width * height / (geometry.size[0] * geometry.size[1])
    if saved < SAVING:
        return Advice("input size", "keep the input size and the finest level", text, RULE)
    left = _smallest(objects.scaled(min(width / geometry.size[0], height / geometry.size[1])))
    if objects.enlarged > 1:
        text += f"; pictures are enlarged {objects.enlarged:.3g} times, which adds no detail"
    text += f"; in pictures of {width} x {height} px, {1 - MANY:.0%} of them are still {left:.0f} px and more"
    without = ", the second stage apart" if options.two_stage else ""
    what = f"keep the input size, or save {saved:.0%} of the multiply-adds{without}, with --image-size {width}x{height}"
    return Advice("input size", what, text, SMALLER)


def _tiles(objects: Objects, geometry: Geometry) -> Advice | None:
    """The advice to cut pictures into tiles, where resizing makes many objects small."""
    below = float((objects.sides < SMALL).mean())
    left = float((objects.on_disk < SMALL).mean())
    if objects.enlarged > SHRINKING or below < MANY_SMALL or below - left < MANY:
        return None
    why = (
        f"resizing leaves pictures {objects.enlarged:.0%} of their side, and {below:.1%} of "
        f"{_objects(len(objects.boxes))} smaller than {SMALL:.0f} px; on tiles, at their own size, it is {left:.1%}"
    )
    what = f"compare --tiles {min(geometry.size)}, in mmms train and mmms test, with whole pictures"
    return Advice("tiles", what, why, RULE)


def _smallest(objects: Objects) -> float:
    """The side that all but a few objects have: the side of an object."""
    return max(float(np.quantile(objects.sides, MANY, method="lower")), 1e-6)


def _resized(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """An input size, in steps; rounded up, so that no object is smaller than the factor makes it."""
    width, height = (ceil(side * factor / STEP - 1e-9) * STEP for side in size)
    return width, height


def _objects(count: int) -> str:
    return f"the {counted(count, 'object')}"


def _anchors(objects: Objects, geometry: Geometry, options: Options) -> Advice | None:
    if geometry.anchors is None:
        return None
    off = shares(objects, geometry)[0].off_anchors or 0.0
    scale, left = best_scale(objects.boxes, geometry.anchors)
    text = f"{off:.1%} of the objects have an IoU below 0.5 with every anchor, as a mean over where they may lie"
    won = max(0.0, off - left)
    if won < ANCHOR_GAIN or options.scales is None:
        why = f"{text}; other scales would leave {min(off, left):.1%}, a gain of {100 * won:.1f} points"
        if won < GAIN or options.scales is None:
            return Advice("anchors", "keep the anchors", why, RULE)
        why += f"; below {100 * ANCHOR_GAIN:.0f} points, the gain in AP is within what trainings differ by"
        return Advice("anchors", "keep the anchors", why, ANCHORS)
    key, old = options.scales
    new = [round(value * scale, 3) for value in old]
    why = f"{text}; with {scale:.3g} times their size it is {left:.1%}, a gain of {100 * won:.1f} points"
    value = new[0] if key.endswith("octave_base_scale") else new
    return Advice("anchors", f"anchor scales {new} in place of {list(old)}", why, ANCHORS, {key: value})


def _layers(objects: Objects, geometry: Geometry, options: Options) -> Advice:
    beyond = share_beyond(objects, geometry.field)
    theory = "more" if geometry.theoretical is None else f"{geometry.theoretical} px"
    text = (
        f"{beyond:.1%} of the objects are wider or higher than the effective receptive field of plain layers, "
        f"{geometry.field:.0f} px at the deepest stage ({theory} in theory)"
    )
    if beyond < FAR:
        what = "no multi-scale layer: none is expected to help"
        if options.plain is not None:
            what = "plain layers in place of the multi-scale ones, which are not expected to help"
        elif options.other_layers:
            what = f"a plain backbone in place of {options.other_layers} is worth a comparison: no gain is expected"
        return Advice("layers", what, text, NUCLEI, options.plain or {})
    smaller = _smaller_pictures(objects, geometry)
    if options.multi_scale is None:
        what = f"keep {options.other_layers}" if options.other_layers else "a deeper backbone, or one with Elastic"
        return Advice("backbone", what, f"{text}; {smaller}", RULE)
    field = options.multi_scale_field()
    left = share_beyond(objects, field)
    if beyond - left < GAIN:
        text += f"; with PSConv it would be {field:.0f} px and {left:.1%}; {smaller}"
        return Advice("layers", "no PSConv: it would see no more of them", text, RULE)
    why = f"{text}; with PSConv, pattern (1, 2, 1, 4), it is {field:.0f} px and {left:.1%}; {smaller}"
    evidence = FAR_OBJECTS_TWO_STAGE if options.two_stage else FAR_OBJECTS
    return Advice(
        "layers", "PSConv in the backbone", why, f"{evidence}; {TABLE_7}; {PLAIN_WEIGHTS}", options.multi_scale
    )


def _smaller_pictures(objects: Objects, geometry: Geometry) -> str:
    """The other remedy, smaller pictures, in words."""
    factor = geometry.field / float(np.quantile(objects.boxes.max(1), 1 - FAR))
    width, height = (max(STEP, int(side * factor / STEP) * STEP) for side in geometry.size)
    lost = float((objects.scaled(factor).sides < min(geometry.strides)).mean())
    return f"instead, pictures of {width} x {height} px bring 90 % inside and leave {lost:.1%} below one cell ({RULE})"
