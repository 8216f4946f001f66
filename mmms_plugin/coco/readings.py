"""Predictions that fit the ground truth far better if their numbers are read in another way.

A wrong layout gives a low AP and no error: boxes as corners, shares or centres, classes that count from 0 instead of 1,
ids of other images. The evidence is the ground truth itself: in an image with ``n`` objects, the ``n`` predictions with
the best scores of almost any trained detector are often on an object, those of a wrong reading almost never. Numbers
are always read as the format says; a note names the better reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco.mending import NORMALISED
from mmms_plugin.coco.objects import GroundTruth, positions
from mmms_plugin.coco.records import Columns, few
from mmms_plugin.coco.references import ImageNames
from mmms_plugin.coco.rle import mask_boxes
from mmms_plugin.coco.run_lengths import Masks

IMAGES, PAIRS = 200, 10_000  # to judge from, at most: images, and pairs of a prediction and an object
ON_OBJECT = 0.5  # IoU
GOOD = 0.6  # share of predictions on an object that no other reading can beat by far
ENOUGH = {
    3: 0.75,
    5: 0.2,
    20: 0.08,
}  # predictions on an object that are no accident, by their number: their least share of all
ENOUGH_CLASSES = 5  # the same of predictions whose classes are compared
ENOUGH_EXCHANGED, EXCHANGED = 20, 0.8  # the same of classes that may be any other, and the least share that then fit
TIMES, MORE = 3, 0.3  # by which a far better share is higher: so many times, or so much
FARTHEST_SHARE = 4.0  # larger numbers are not shares of an image
SIDES = (300, 320, 416, 448, 512, 640, 768, 800, 1024, 1280)  # px, of networks' inputs
LONG_SHORT = (1333, 800)  # px, that mmdet's configs resize to
FACTORS = {"half": 2.0, "twice": 0.5}  # of images of such a size
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Boxes = Callable[[Floats], Floats]  # four numbers [n, 4] to x y width height


def _from_corners(numbers: Floats) -> Floats:
    return np.concatenate([numbers[:, :2], numbers[:, 2:] - numbers[:, :2]], 1)


def _from_centres(numbers: Floats) -> Floats:
    return np.concatenate([numbers[:, :2] - numbers[:, 2:] / 2, numbers[:, 2:]], 1)


SWAPPED = [1, 0, 3, 2]
LAYOUTS: dict[str, Boxes] = {
    "x y width height": lambda numbers: numbers,
    "x1 y1 x2 y2": _from_corners,
    "x_centre y_centre width height": _from_centres,
    "y x height width": lambda numbers: numbers[:, SWAPPED],
    "y1 x1 y2 x2": lambda numbers: _from_corners(numbers)[:, SWAPPED],
    "x1 x2 y1 y2": lambda numbers: _from_corners(numbers[:, [0, 2, 1, 3]]),
    "y_centre x_centre height width": lambda numbers: _from_centres(numbers)[:, SWAPPED],
}
ADVICE = "; if so, change the file"
OF_IMAGES = ("image_id", "filename")  # keys of `Columns.instead`
PIXELS, SHARES = "in pixels", "as shares of the image"
WRITTEN = {"coco": ("x y width height", PIXELS), "voc": ("x1 y1 x2 y2", PIXELS),
           "yolo": ("x_centre y_centre width height", SHARES)}  # fmt: skip


@dataclass(frozen=True)
class Placing:
    """Which image every prediction is in, -1 for none; other readings of ids are by image, of which there are fewer.

    Attributes:
        place: ``(n,)`` place in the ground truth's images, as the file states it.
        images: ``(images + 1,)`` for each image, and last for none, the image that is meant.
    """

    place: Ints
    images: Ints

    @classmethod
    def as_stated(cls, place: Ints, images: int) -> Placing:
        return cls(place, np.append(np.arange(images), -1))

    def moved(self, images: Ints) -> Placing:
        """With another image, or -1, instead of each."""
        return Placing(self.place, np.append(images, -1)[self.images])

    def at(self, chosen: Ints | slice) -> Ints:
        """The images of some predictions."""
        return self.images[self.place[chosen]]

    def inside(self, wanted: NDArray[np.bool_]) -> Ints:
        """The predictions in images that are ``wanted``."""
        return np.flatnonzero(np.append(wanted, False)[self.images][self.place])


@dataclass(frozen=True)
class _Sample:
    """The best predictions in some images, and every pair of one and an object of its image.

    Attributes:
        placing, scores: images and scores of the predictions of the file.
        chosen: ``(n,)`` places of the predictions.
        prediction, object_: ``(pairs,)``, by prediction; places in ``chosen`` and in the ground truth.
        boxes: ``(pairs, 4)`` of the objects.
        starts: ``(n,)`` the first pair of each prediction.
    """

    placing: Placing
    scores: Floats
    chosen: Ints
    prediction: Ints
    object_: Ints
    boxes: Floats
    starts: Ints


class Judge:
    """Compares readings of one file of predictions.

    Args:
        truth: the data set.
        place: ``(n,)`` the image of each prediction, its place in ``truth.image_ids``.
        scores: ``(n,)``.
    """

    def __init__(self, truth: GroundTruth, place: Ints, scores: Floats) -> None:
        self.truth, self.scores = truth, scores
        self.placing = Placing.as_stated(place, len(truth.image_ids))
        counted = np.flatnonzero(~truth.iscrowd & (truth.boxes[:, 2:] > 0).all(1))
        image = positions(truth.image_id[counted], truth.image_ids)
        order = np.argsort(image, kind="stable")
        self.objects, objects = counted[order], np.bincount(image, minlength=len(truth.image_ids))
        self.first = np.cumsum(objects) - objects  # of each image in ``self.objects``
        filled = np.flatnonzero(objects)
        some = filled[np.linspace(0, len(filled) - 1, min(IMAGES, len(filled))).round().astype(np.int64)]
        most = np.minimum(objects[some], np.maximum(PAIRS // objects[some], 1))
        some = some[np.cumsum(most * objects[some]) <= max(PAIRS, int(most[:1].sum() * objects[some[:1]].sum()))]
        self.objects_of = objects
        self.most = np.zeros_like(objects)  # predictions of each image to judge from
        self.most[some] = most[: len(some)]

    def elsewhere(self, placing: Placing) -> Judge:
        """A judge of the same predictions, in other images."""
        other = copy(self)
        other.placing = placing
        return other

    def sample(self, placing: Placing | None = None, scores: Floats | None = None) -> _Sample:
        """The predictions to judge, by other images or scores if these are given."""
        placing, scores = self.placing if placing is None else placing, self.scores if scores is None else scores
        inside = placing.inside(self.most > 0)
        order = inside[np.lexsort((-scores[inside], placing.at(inside)))]
        ordered = placing.at(order)
        starts = np.flatnonzero(np.diff(ordered, prepend=-1))
        rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        chosen = order[rank < self.most[ordered]]
        image = placing.at(chosen)
        objects = self.objects_of[image]
        starts = np.cumsum(objects) - objects
        prediction = np.repeat(np.arange(len(chosen)), objects)
        within = np.arange(len(prediction)) - np.repeat(starts, objects)
        object_ = self.objects[self.first[image][prediction] + within]
        boxes = np.take(self.truth.boxes, object_, axis=0)
        return _Sample(placing, scores, chosen, prediction, object_, boxes, starts)

    @staticmethod
    def on_objects(sample: _Sample, boxes: Floats) -> NDArray[np.bool_]:
        """``(pairs,)`` whether a prediction is on an object; ``boxes`` of the sample are x y width height, px."""
        return _fit(np.take(boxes, sample.prediction, axis=0), sample.boxes)


def _fit(ours: Floats, theirs: Floats) -> NDArray[np.bool_]:
    """``(n,)`` whether pairs of boxes x y width height have an IoU of at least 0.5."""
    common, area, object_area = (np.ones(len(ours)) for _ in range(3))
    for low, side in ((0, 2), (1, 3)):  # by column: NumPy's reductions of rows of two take ten times as long
        start, other, length, other_length = ours[:, low], theirs[:, low], ours[:, side], theirs[:, side]
        shared = np.minimum(start + length, other + other_length) - np.maximum(start, other)
        common *= np.maximum(shared, 0)
        area *= np.maximum(length, 0)
        object_area *= other_length
    return common >= ON_OBJECT * (area + object_area - common)


def boxes_off_masks(boxes: Floats, has_box: NDArray[np.bool_], masks: Masks) -> str:
    """How many boxes, of some, do not lie around their masks, in words; empty if most do."""
    stated = np.flatnonzero(has_box)
    some = stated[np.linspace(0, len(stated) - 1, min(IMAGES, len(stated))).round().astype(np.int64)]
    around = mask_boxes(masks.at(some))
    solid = ((around[:, 2:] > 1) | (boxes[some, 2:] > 2)).all(1)  # not of boxes and masks that are a speck
    off = ~_fit(boxes[some[solid]], around[solid])
    if len(off) < min(ENOUGH) or 2 * off.sum() <= len(off):
        return ""
    return f"{off.sum()} of {len(off)} have an IoU below {ON_OBJECT:g} with the box around their mask"


def _hits(sample: _Sample, pairs: NDArray[np.bool_]) -> int:
    """The number of predictions with such a pair."""
    return int(np.logical_or.reduceat(pairs, sample.starts).sum()) if len(sample.starts) else 0


def misread(truth: GroundTruth, columns: Columns, place: Ints, kind: str) -> tuple[tuple[str, ...], bool]:
    """Notes on readings that fit far better than that of the format, and whether the boxes are beyond doubt.

    Args:
        truth: the data set.
        columns: predictions with its ids.
        place: ``(n,)`` the image of each, its place in ``truth.image_ids``.
        kind: of the file, a key of `WRITTEN`.
    """
    judge = Judge(truth, place, columns.score)
    sample = judge.sample()
    if len(sample.chosen) < min(ENOUGH):
        return (), False
    given = _Reading("", judge, sample, lambda chosen: columns.boxes[chosen])
    if given.share >= GOOD:
        return _other_classes(given, columns, kind), True
    trials = [("as they are", _images_and_scores(judge, columns))]
    if kind == "yolo" and any(columns.segmentations or ()):
        trials.insert(0, ("as class x1 y1 x2 y2 ... confidence", _polygons(judge, columns)))
    elif columns.has_box.all():
        words = _words(kind, *WRITTEN[kind])
        trials = [(words, _boxes(judge, columns, kind)), *trials, (words, _boxes_elsewhere(judge, columns, kind))]
    for written, readings in trials:
        best = max(readings, key=lambda reading: reading.share, default=given)
        if best.far_better_than(given):
            before = f"read {written}, {given.share:.0%} of the best-scored lie on an object"
            note = f"predictions may mean something else: {before}; read {best.words}, {best.share:.0%}{ADVICE}"
            return (note, *_other_classes(best, columns, kind)), True
    return _other_classes(given, columns, kind), False


class _Reading:
    """One way to read the file.

    Attributes:
        words: that name it.
        boxes_of: the boxes of predictions, x y width height in px, from their places.
        pairs: ``(pairs,)`` of the sample, whether the prediction is on the object.
        hits: number of predictions on an object.
        share: of all in the sample.
    """

    def __init__(self, words: str, judge: Judge, sample: _Sample, boxes_of: Callable[[Ints], Floats]) -> None:
        self.words, self.judge, self.sample, self.boxes_of = words, judge, sample, boxes_of
        self.pairs = judge.on_objects(sample, boxes_of(sample.chosen))
        self.hits = _hits(sample, self.pairs)
        self.share = self.hits / max(len(sample.chosen), 1)

    def far_better_than(self, other: _Reading) -> bool:
        """Whether this cannot be chance: neither of a bad model nor of boxes that fit the objects of any image."""
        enough = any(self.hits >= hits and self.share >= least for hits, least in ENOUGH.items())
        return (
            enough
            and self.share >= min(TIMES * other.share, other.share + MORE)
            and self.share >= TIMES * self._share_elsewhere()
        )

    def _share_elsewhere(self) -> float:
        """The share of the same predictions on the objects of the next image."""
        some, following = np.flatnonzero(self.judge.most), np.full(len(self.judge.most), -1)
        following[some] = np.roll(some, -1) if len(some) > 1 else -1
        sample = self.judge.sample(self.sample.placing.moved(following), self.sample.scores)
        return _Reading("", self.judge, sample, self.boxes_of).share if len(sample.chosen) else 0.0


def _words(kind: str, layout: str, unit: str, first: bool = False) -> str:
    """A layout as the format's users write it; ``first``: YOLO's confidence comes before the box."""
    if kind == "yolo":
        return f"as class {'confidence ' * first}{layout}{' confidence' * (not first)}, {unit[3:]}"
    return f"as [{', '.join(layout.split())}] {unit}"


def _boxes(judge: Judge, columns: Columns, kind: str, resized: bool = True) -> Iterator[_Reading]:
    """Other layouts, units and places of the confidence; ``resized``: also pixels of resized images."""
    sizes = judge.truth.image_sizes.astype(np.float64)  # of images; of all predictions they would take long
    numbers = columns.boxes  # as in the file
    if kind == "voc":
        numbers = np.concatenate([numbers[:, :2] + 1, numbers[:, :2] + numbers[:, 2:]], 1)
    if kind == "yolo":
        numbers = (
            np.concatenate([numbers[:, :2] + numbers[:, 2:] / 2, numbers[:, 2:]], 1)
            / sizes[judge.placing.at(slice(None))][:, [0, 1, 0, 1]]
        )
    orders = [(numbers, columns.score, False)]
    if kind == "yolo":
        orders += [(np.column_stack([numbers[:, 1:], columns.score]), numbers[:, 0], True)]
    for four, scores, first in orders:
        sample = judge.sample(scores=scores)
        for layout, from_numbers in LAYOUTS.items():
            for unit, px_of in _units(
                four[sample.chosen], sizes[judge.placing.at(sample.chosen)], resized and layout[0] == "x"
            ):
                if first or (layout, unit) != WRITTEN[kind]:

                    def boxes_of(chosen: Ints, four=four, from_numbers=from_numbers, px_of=px_of) -> Floats:  # type: ignore[no-untyped-def]
                        return px_of(from_numbers(four[chosen]), sizes[judge.placing.at(chosen)])

                    yield _Reading(_words(kind, layout, unit, first), judge, sample, boxes_of)


def _units(numbers: Floats, size: Floats, resized: bool) -> Iterator[tuple[str, Callable[[Floats, Floats], Floats]]]:
    """Units that the numbers may have, and boxes in px from boxes in that unit and ``(n, 2)`` sizes of images.

    Args:
        numbers: ``(n, 4)`` as in the file.
        size: ``(n, 2)`` width and height of the images, 0 if unknown.
        resized: also pixels of resized images.
    """
    if numbers.max(initial=0) > NORMALISED:
        yield PIXELS, lambda boxes, _: boxes
    if not (size > 0).all():
        return
    if numbers.max(initial=0) <= FARTHEST_SHARE:
        yield SHARES, lambda boxes, size: boxes * np.tile(size, 2)
        return
    yield "in thousandths of the image", lambda boxes, size: boxes * np.tile(size, 2) / 1000
    yield "in per cent of the image", lambda boxes, size: boxes * np.tile(size, 2) / 100
    for side in SIDES if resized else ():
        yield f"in pixels of images resized to fit {side} px", partial(_resized, side)
        yield f"in pixels of images padded to {side} x {side} px", partial(_padded, side)
        yield f"in pixels of images stretched to {side} x {side} px", partial(_stretched, side)
    if resized:
        yield "in pixels of images resized to fit {} x {} px".format(*LONG_SHORT), _fitted
        for size_of, factor in FACTORS.items():
            yield f"in pixels of images of {size_of} the size", partial(_multiplied, factor)


def _resized(side: int, boxes: Floats, size: Floats) -> Floats:
    return boxes * size.max(1, keepdims=True) / side


def _fitted(boxes: Floats, size: Floats) -> Floats:
    factor = np.minimum(LONG_SHORT[0] / size.max(1, keepdims=True), LONG_SHORT[1] / size.min(1, keepdims=True))
    return boxes / factor


def _multiplied(factor: float, boxes: Floats, size: Floats) -> Floats:
    return boxes * factor


def _padded(side: int, boxes: Floats, size: Floats) -> Floats:
    longest = size.max(1, keepdims=True)
    border = (longest - size) / 2
    return boxes * longest / side - np.concatenate([border, np.zeros_like(border)], 1)


def _stretched(side: int, boxes: Floats, size: Floats) -> Floats:
    return boxes * np.tile(size, 2) / side


def _polygons(judge: Judge, columns: Columns) -> Iterator[_Reading]:
    """YOLO's polygons with the confidence before them."""
    sizes, polygons = (
        judge.truth.image_sizes[judge.placing.at(slice(None))].astype(np.float64),
        columns.segmentations or (),
    )
    if not all(polygons):
        return
    first = np.array([polygon[0][0] for polygon in polygons]) / sizes[:, 0]

    def boxes_of(chosen: Ints) -> Floats:
        rows = []
        for i in chosen.tolist():
            shares = np.append(np.reshape(polygons[i][0], (-1, 2)) / sizes[i], columns.score[i])[1:].reshape(-1, 2)
            low, high = shares.min(0) * sizes[i], shares.max(0) * sizes[i]
            rows.append([*low, *(high - low)])
        return np.array(rows, np.float64).reshape(-1, 4)

    yield _Reading("as class confidence x1 y1 x2 y2 ...", judge, judge.sample(scores=first), boxes_of)


def _images_and_scores(judge: Judge, columns: Columns) -> Iterator[_Reading]:
    """Other images for the same ids, and scores of which the lowest is the best."""
    for words, placing in _placings(judge, columns):
        yield _Reading(words, judge, judge.sample(placing), lambda chosen: columns.boxes[chosen])
    reverse = judge.sample(scores=-columns.score)
    yield _Reading("with low scores as the better ones", judge, reverse, lambda chosen: columns.boxes[chosen])


def _boxes_elsewhere(judge: Judge, columns: Columns, kind: str) -> Iterator[_Reading]:
    """Other layouts and other images at once, of which only very good ones count: these are many."""
    for words, placing in _placings(judge, columns):
        for reading in _boxes(judge.elsewhere(placing), columns, kind, resized=False):
            if reading.share >= GOOD / 2:
                reading.words += f", {words}"
                yield reading


def _placings(judge: Judge, columns: Columns) -> Iterator[tuple[str, Placing]]:
    """Other images for the same ids."""
    truth, own, count = judge.truth, judge.placing, len(judge.truth.image_ids)
    ids, images, used = truth.image_ids, np.arange(count), np.zeros(count + 1, np.bool_)
    used[own.images[own.place]] = True
    for key, other in columns.instead.items():
        if key in OF_IMAGES:
            place = positions(other, ids)
            if (place != own.place).any():
                yield f"by {key}", Placing.as_stated(place, count)
    for words, meant in (
        ("with image ids one higher", positions(ids + 1, ids)),
        ("with image ids one lower", positions(ids - 1, ids)),
        ("as those of the next image", images + 1),
        ("as those of the image before", images - 1),
        ("with image ids as places in the list of images, from 0", ids),
        ("with image ids as places in the list of images, from 1", ids - 1),
        ("with image ids as the numbers in file names", _named_by_number(truth)),
    ):
        meant = np.where((meant >= 0) & (meant < count), meant, -1)
        if (used[:-1] & (meant != images)).any():
            yield words, own.moved(meant)


def _named_by_number(truth: GroundTruth) -> Ints:
    """For the id of each image, the place of the image whose file name is this number, -1 for none."""
    numbered = ImageNames(truth.file_names, truth.image_ids).numbered()
    numbers = [number for number in numbered if number < 2**63]
    images = np.array([numbered[number] for number in numbers], np.int64)
    places = np.append(positions(images, truth.image_ids), -1)
    return places[positions(truth.image_ids, np.array(numbers, np.int64))]


def _other_classes(reading: _Reading, columns: Columns, kind: str) -> tuple[str, ...]:
    """A note if the predictions on objects have the objects' classes only when class ids are read in another way."""
    truth, sample = reading.judge.truth, reading.sample
    if reading.hits < ENOUGH_CLASSES or len(truth.category_ids) < 2:
        return ()
    ids = columns.category_id[sample.chosen]
    own = positions(ids, truth.category_ids)
    objects = positions(truth.category_id[sample.object_], truth.category_ids)

    def right(classes: Ints) -> int:
        return _hits(sample, reading.pairs & (classes[sample.prediction] == objects))

    before = right(own)
    readings = list(_classes(truth, ids, kind))
    if "category_id" in columns.instead:
        stated = positions(columns.instead["category_id"][sample.chosen], truth.category_ids)
        readings.insert(0, ("by category_id", stated))
    after, words = max(((right(classes), words) for words, classes in readings), key=lambda trial: trial[0])
    enough = max(ENOUGH_CLASSES, reading.hits / 2, before + MORE * reading.hits)
    if after < enough and reading.hits >= ENOUGH_EXCHANGED:
        words, classes = _exchanged(truth, own[sample.prediction[reading.pairs]], objects[reading.pairs])
        after, enough = right(classes[own]), max(enough, EXCHANGED * reading.hits)
    if after < enough:
        return ()
    shares = [f"{count / reading.hits:.0%}" for count in (before, after)]
    written = f"as they are, {shares[0]} of the best-scored on an object have its class"
    return (f"classes may be numbered in another way: {written}; taken {words}, {shares[1]}{ADVICE}",)


def _exchanged(truth: GroundTruth, own: Ints, objects: Ints) -> tuple[str, Ints]:
    """The class of most objects that the predictions of each class lie on, if no two classes share one.

    Args:
        truth: the data set.
        own, objects: classes of the predictions and objects of some pairs, as places in its categories.

    Returns:
        What it is called, and a class for every class.
    """
    count = len(truth.category_ids)
    pairs, times = np.unique(own * count + objects, return_counts=True)
    pairs = pairs[np.argsort(times, kind="stable")]
    classes = np.arange(count)
    classes[pairs // count] = pairs % count  # the last of equal places, the most frequent, stays
    if len(set(classes[np.unique(own)].tolist())) < len(np.unique(own)):
        return "", np.arange(count)
    names = truth.category_names
    changed = [f"{names[i]} as {names[classes[i]]}" for i in np.unique(own).tolist() if classes[i] != i]
    return f"with exchanged names ({few(changed)})", classes


def _classes(truth: GroundTruth, ids: Ints, kind: str) -> Iterator[tuple[str, Ints]]:
    """Other meanings of class ids, as places in the ground truth's categories, -1 for none."""
    count, by_id = len(truth.category_ids), np.argsort(truth.category_ids)
    rank = np.argsort(by_id)[positions(ids, truth.category_ids)]
    for words, other in (("as the next class", rank + 1), ("as the class before", rank - 1)):
        yield words, np.where((other >= 0) & (other < count), by_id[other.clip(0, count - 1)], -1)
    orders = (
        ("by id", by_id),
        ("as the ground truth lists them", np.arange(count)),
        ("by name", np.argsort(truth.category_names, kind="stable")),
    )
    for words, order in orders:
        yield f"in the order of the classes {words}", order[rank]
        for base in (0, 1) if kind == "coco" else ():
            slot = ids - base
            inside = (slot >= 0) & (slot < count)
            yield f"as numbers from {base} of the classes {words}", np.where(inside, order[slot * inside], -1)
