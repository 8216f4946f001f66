"""Files that change what a detector's scores mean, by the size of its detections: written here, applied by predict.

``thresholds-N.json`` says from which score detections of a bin and class are kept. A detection's size is that of its
own box or mask, as the file's bins take it: on disk, as the network sees it, or relative to the picture. In the
evaluation that the file comes from, a match counts in its object's bin; detection and object of one match can lie on
both sides of a limit.

``calibration-N.json`` maps scores to probabilities by the size of the detection (`kernel.calibration`). Scores keep
their order within a bin, not between bins.

A threshold that the evaluation lacks (no objects, or a goal out of reach) is replaced by that of all classes in the
bin, then of the class over all sizes, then of all classes over all sizes; without any, detections are kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.errors import UserError
from mmms_plugin.size_ap import UNITS
from mmms_plugin.size_ap.bins import Bin, contains
from mmms_plugin.size_ap.kernel.calibration import mapped
from mmms_plugin.size_ap.resizing import KINDS, Resizing, Step, factors_of

ALL = "all"  # the bin of all sizes
DECIMALS = 5  # of scores in predictions.json, from which thresholds come
Scores = dict[str, float]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Limits:
    """A bin: limits of the area in px², or as shares of the picture's; ``high`` is None without limit."""

    name: str
    low: float
    high: float | None
    closed: bool = False


@dataclass(frozen=True)
class Sizes:
    """How the size of a detection is measured.

    Attributes:
        of: 'box' or 'mask'.
        unit: 'side', 'area' or 'relative'.
        bins: without that of all sizes.
        steps: what is done to the sizes of pictures or tiles before (`mmms_plugin.size_ap.resizing.Step`).
        tiles: (width, height) in px.
    """

    of: Literal["box", "mask"]
    unit: Literal["side", "area", "relative"]
    bins: tuple[Limits, ...]
    steps: tuple[Step, ...] = ()
    tiles: tuple[int, int] | None = None

    @classmethod
    def of_evaluation(
        cls, bins: Sequence[Bin], masks: bool, unit: str, resize: Any, tiles: tuple[int, int] | None
    ) -> Sizes:
        """Those of an evaluation; ``masks``: sizes are those of masks."""
        limits = tuple(Limits(b.name, b.low, None if math.isinf(b.high) else b.high, b.closed) for b in bins[1:])
        steps = resize.steps if isinstance(resize, Resizing) else ()
        return cls("mask" if masks else "box", UNITS[unit], limits, steps, tiles)  # type: ignore[arg-type]

    def names(self, boxes: Floats, areas: Floats | None, picture: tuple[int, int]) -> list[str]:
        """The bin of each detection, the lower one on a common limit; 'all' for those in none.

        Args:
            boxes: ``(n, 4)`` left, top, right, bottom in px.
            areas: ``(n,)`` of their masks in px², or None.
            picture: width and height in px.
        """
        sides = boxes[:, 2:] - boxes[:, :2]
        area = sides.prod(1) if self.of == "box" or areas is None else areas
        factors = factors_of(
            np.array([picture]), self.unit, Resizing(self.steps, "") if self.steps else None, self.tiles
        )
        area = area if factors is None else area * factors[0]
        bins = tuple(Bin(b.name, b.low, math.inf if b.high is None else b.high, b.closed, self.unit) for b in self.bins)
        inside = contains(bins, area)
        first = np.where(inside.any(0), inside.argmax(0), len(bins))
        return [[*(b.name for b in bins), ALL][i] for i in first.tolist()]


@dataclass(frozen=True)
class ScoreThresholds:
    """The content of a file of thresholds.

    Attributes:
        kind: says what the file is.
        goal, iou, run: what they were chosen for, at which IoU, and the run.
        scores: a hash of the run's scores.
        sizes: how sizes are measured.
        all_classes: score by bin.
        classes: score by class and bin.
    """

    sizes: Sizes
    all_classes: Scores
    classes: dict[str, Scores]
    goal: str = ""
    iou: float = 0.5
    run: str = ""
    scores: str = ""
    kind: Literal["mmms score thresholds"] = "mmms score thresholds"

    def keeps(
        self, names: Sequence[str], scores: Floats, boxes: Floats, areas: Floats | None, picture: tuple[int, int]
    ) -> Bools:
        """``(n,)`` which detections of one picture reach their threshold.

        Args:
            names: of their classes.
            scores: of the detections.
            boxes, areas, picture: as for `Sizes.names`.
        """
        bins = self.sizes.names(boxes, areas, picture)
        least = [self.least(name, bin_) for name, bin_ in zip(names, bins, strict=True)]
        return scores.round(DECIMALS) >= np.array(least, np.float64).round(DECIMALS)

    def least(self, name: str, bin_: str) -> float:
        """The lowest score that is kept of a class and bin; minus infinity for all."""
        own: Mapping[str, float] = self.classes.get(name, {})
        for table, key in ((own, bin_), (self.all_classes, bin_), (own, ALL), (self.all_classes, ALL)):
            if key in table:
                return table[key]
        return -math.inf

    @property
    def lowest(self) -> float:
        """No detection below this is kept: the lowest threshold, less the rounding of scores."""
        if ALL not in self.all_classes:
            return 0.0
        scores = [score for table in (self.all_classes, *self.classes.values()) for score in table.values()]
        return max(0.0, round(min(scores) - 10**-DECIMALS, DECIMALS))

    def to_json(self) -> str:
        """The file."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass(frozen=True)
class ScoreCalibration:
    """The content of a file of maps of scores.

    Attributes:
        kind: says what the file is.
        iou, run: at which IoU a detection was right, and the run.
        scores: a hash of the run's scores.
        sizes: how sizes are measured.
        maps: slope and offset by bin, 'all' for detections in no other.
    """

    sizes: Sizes
    maps: dict[str, tuple[float, float]]
    iou: float = 0.5
    run: str = ""
    scores: str = ""
    kind: Literal["mmms score calibration"] = "mmms score calibration"

    def apply(self, scores: Floats, boxes: Floats, areas: Floats | None, picture: tuple[int, int]) -> Floats:
        """``(n,)`` scores of one picture's detections after the map of their size; other arguments as for `Sizes`."""
        pairs = [self.maps.get(bin_, self.maps[ALL]) for bin_ in self.sizes.names(boxes, areas, picture)]
        slopes, offsets = np.array(pairs, np.float64).reshape(-1, 2).T
        return mapped(scores, slopes, offsets)

    def to_json(self) -> str:
        """The file."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_calibration(path: str | Path) -> ScoreCalibration:
    """Maps that ``mmms size-ap --calibration --out DIR`` wrote.

    Raises:
        UserError: another file, or maps and sizes that cannot be.
    """
    from mmms_plugin.coco.json_files import read_typed

    wanted = "must be a calibration-N.json that `mmms size-ap --calibration --out DIR` wrote"
    content = read_typed(path, "--calibration", ScoreCalibration, wanted)
    _check(content.sizes, f"--calibration {path}", wanted, set(content.maps))
    if ALL not in content.maps:
        raise UserError(f"--calibration {path}: maps has no 'all'; {wanted}")
    if not all(map(math.isfinite, (value for pair in content.maps.values() for value in pair))):
        raise UserError(f"--calibration {path}: a slope or offset is not a number; {wanted}")
    if min(slope for slope, _ in content.maps.values()) <= 0:
        raise UserError(f"--calibration {path}: a slope must be above 0, so that better scores stay better; {wanted}")
    return content


def read_thresholds(path: str | Path) -> ScoreThresholds:
    """Thresholds that ``mmms size-ap --thresholds --out DIR`` wrote.

    Raises:
        UserError: another file, or scores and sizes that cannot be.
    """
    from mmms_plugin.coco.json_files import read_typed

    wanted = "must be a thresholds-N.json that `mmms size-ap --thresholds --out DIR` wrote"
    content = read_typed(path, "--thresholds", ScoreThresholds, wanted)
    scores = [score for table in (content.all_classes, *content.classes.values()) for score in table.values()]
    _check(content.sizes, f"--thresholds {path}", wanted, {key for t in content.classes.values() for key in t})
    if not all(map(math.isfinite, scores)):
        raise UserError(f"--thresholds {path}: a score is not a number; {wanted}")
    return content


def read_both(
    calibration: str | Path | None, thresholds: str | Path | None
) -> tuple[ScoreCalibration | None, ScoreThresholds | None]:
    """The content of the files that are given.

    Raises:
        UserError: one of them cannot be read, or the thresholds are of the scores that the maps change.
    """
    maps = None if calibration is None else read_calibration(calibration)
    least = None if thresholds is None else read_thresholds(thresholds)
    if maps and least and maps.scores and maps.scores == least.scores:
        raise UserError(
            f"--thresholds {thresholds}: of the scores before --calibration {calibration}; find thresholds on "
            "predictions that mmms predict --calibration --score 0 makes"
        )
    return maps, least


def _check(sizes: Sizes, where: str, wanted: str, used: set[str]) -> None:
    names = [limits.name for limits in sizes.bins]
    unknown = next((name for name in used if name not in (*names, ALL)), None)
    if unknown is not None:
        raise UserError(f"{where}: {unknown!r} is not one of its bins; {wanted}")
    if len(set(names)) < len(names) or not all(
        0 <= b.low < (math.inf if b.high is None else b.high) for b in sizes.bins
    ):
        raise UserError(f"{where}: bins need different names and 0 <= low < high; {wanted}")
    if not all(step.kind in KINDS and step.width > 0 and step.height >= 0 for step in sizes.steps):
        raise UserError(f"{where}: sizes.steps holds a step that is not known; {wanted}")
    if sizes.tiles is not None and min(sizes.tiles) < 1:
        raise UserError(f"{where}: sizes.tiles must be at least 1 px; {wanted}")
