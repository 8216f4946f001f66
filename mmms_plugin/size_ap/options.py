"""The options of an evaluation; see ``mmms size-ap --help``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mmms_plugin.errors import UserError
from mmms_plugin.options import CommandOptions, option
from mmms_plugin.size_ap import UNITS

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

    from mmms_plugin.coco.objects import GroundTruth
    from mmms_plugin.size_ap.kernel.operating_points import Goal
    from mmms_plugin.size_ap.resizing import AnyResizing

IOU_TYPES, AREAS = ("bbox", "segm"), ("annotation", "box", "mask")
BINS, EVALUATION, INTERVALS, OUTPUT = "bins", "evaluation", "intervals", "output"  # headings of --help
PIPELINE = "pipeline"  # as the resizing of metrics: what the test pipeline did
CONFUSION_IOU = 0.5
SUSPECTS = 100  # that --suspects lists
MOST_CONFIDENCE = 0.9999  # more cannot be resolved by replicates


def bins_text(bins: str | Sequence[str | float]) -> str:
    """Bins as the command takes them, also from a list of limits or of ``name=low:high``."""
    return ",".join(map(str, bins)) if isinstance(bins, list | tuple) else bins  # type: ignore[return-value]


def parse_resize(text: str) -> tuple[int, int] | str:
    """``1333x800`` as width and height; any other text, the name of a config, as it is.

    Raises:
        UserError: numbers in another form.
    """
    if re.fullmatch(r"[-+\d.,x×* ]*", text):
        return _parse_sides(text, "--resize", "WIDTHxHEIGHT, such as 1333x800, or a config", one=False)
    return text


def parse_tiles(text: str) -> tuple[int, int]:
    """Width and height in px from ``640`` or ``1024x512``.

    Raises:
        UserError: another form.
    """
    return _parse_sides(text, "--tiles", "a side in px, or WIDTHxHEIGHT, such as 640 or 1024x512", one=True)


def _parse_sides(text: str, option: str, allowed: str, one: bool) -> tuple[int, int]:
    sides = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text)
    if not sides or not (sides[2] or one):
        raise UserError(f"{option} {text}: must be {allowed}")
    return int(sides[1]), int(sides[2] or sides[1])


def sides_of(value: Any, parse: Callable[[str], Any]) -> Any:
    """A size that Python code gives as text, number or pair, as the command's option is read."""
    if isinstance(value, list | tuple) and len(value) == 2:
        value = f"{value[0]}x{value[1]}"
    return parse(str(value)) if isinstance(value, str | int | float) else value


def _iou_thresholds() -> tuple[float, ...]:
    from mmms_plugin.size_ap.kernel.matching import IOU_THRESHOLDS

    return IOU_THRESHOLDS


def bins_option(group: str) -> Any:
    """The option ``--bins`` of every command, under a heading of its help."""
    return option(
        default="coco", group=group,
        help="bins of object size: coco, tiny (= tinyperson), ai-tod, soda, quantiles:N, limits such as 0,16,32,inf, "
        "or NAME=LOW:HIGH,... such as tiny=0:16,small=16:32,large=32:inf (default: coco; 0,0.05,0.2,1 if relative)",
    )  # fmt: skip


def bin_unit_option(group: str) -> Any:
    """The option ``--bin-unit``, likewise."""
    return option(
        choices=tuple(UNITS), default="side", group=group,
        help="unit of custom limits and quantiles: side = sqrt(area) in px (= pixels), area in px², or relative = "
        "sqrt(area) over sqrt(area of the picture), from 0 to 1",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options(CommandOptions):
    """How to evaluate.

    Attributes:
        bins, bin_unit, allow_gaps, allow_overlaps: see `mmms_plugin.size_ap.bins.resolve_bins`.
        replicates: of the bootstrap, 0 for no intervals.
        resize: width and height in px that pictures are made to fit, or any `Resizing`; the command takes a config too.
        tiles: width and height in px.
        thresholds: of IoU.
        operating: also find score thresholds.
        sweep: also evaluate AP against continuous size.
        progress: show a progress bar.
    """

    bins: str = bins_option(BINS)
    bin_unit: str = bin_unit_option(BINS)
    resize: Any = option(
        metavar="WxH|CONFIG", reader=parse_resize, group=BINS,
        help="sizes of objects as the network sees them: pictures are made to fit this width and height in px, such as "
        "1333x800, or are resized as a config's test pipeline does (default: sizes on disk)",
    )  # fmt: skip
    tiles: tuple[int, int] | None = option(
        metavar="SIZE", reader=parse_tiles, group=BINS,
        help="the network sees tiles of this side in px, or WIDTHxHEIGHT: --resize is applied to tiles, and relative "
        "sizes are shares of the tile (default: whole pictures)",
    )  # fmt: skip
    allow_gaps: bool = option(default=False, group=BINS, help="accept sizes that are in no bin")
    allow_overlaps: bool = option(default=False, group=BINS, help="accept sizes that are in several bins")
    area: str = option(
        choices=AREAS, default="annotation", group=BINS,
        help="an object's size: the 'area' field of its annotation, as in pycocotools, its box, or its mask",
    )  # fmt: skip
    iou_type: str = option(choices=IOU_TYPES, default="bbox", group=EVALUATION, help="overlap of boxes or of masks")
    max_dets: int = option(
        default=100, least=1, most=10**6, metavar="N", group=EVALUATION,
        help="largest number of detections per image and class that count",
    )  # fmt: skip
    errors: bool = option(
        "--no-errors", default=True, group=EVALUATION,
        help="do not evaluate the cost of each type of error (TIDE), which takes longest",
    )  # fmt: skip
    score_threshold: float = option(
        default=0.5, metavar="S", group=EVALUATION,
        help="lowest score of detections that count in --confusion, and at which a class counts as predicted in an "
        "image, for multi-label F1 in comparisons",
    )  # fmt: skip
    confusion: float | None = option(
        nargs="?", const=CONFUSION_IOU, above=0, most=1, metavar="IOU", group=EVALUATION,
        help="also count which class objects of each size are taken for, by detections of at least this IoU (0.5 if "
        "none is given)",
    )  # fmt: skip
    operating: bool = option(
        "--thresholds", default=False, group=EVALUATION,
        help="also find the score from which to keep detections, for every bin and class: that of the highest F1 at "
        "IoU 0.5, or as --precision or --recall ask; with --out also as a file for mmms predict --thresholds",
    )  # fmt: skip
    precision: float | None = option(
        metavar="P", above=0, most=1, group=EVALUATION,
        help="with --thresholds: reach this precision, from 0 to 1, with the highest recall",
    )  # fmt: skip
    recall: float | None = option(
        metavar="R", above=0, most=1, group=EVALUATION,
        help="with --thresholds: reach this recall, from 0 to 1, with the highest score",
    )  # fmt: skip
    calibration: bool = option(
        default=False, group=EVALUATION,
        help="also evaluate whether scores are probabilities, for every bin and class (calibration error at IoU 0.5), "
        "and fit a map for each size on half of the images; with --out also as a file for mmms predict --calibration",
    )  # fmt: skip
    suspects: int = option(
        nargs="?", const=SUSPECTS, default=0, least=0, most=100_000, metavar="N", group=OUTPUT,
        help="also list the N annotations that the models of --pred contradict most (100 if none is given): objects "
        "that are missing, boxes that are off, wrong classes; with --out as suspects.html, .csv, and .json for "
        "annotation tools (default: 0)",
    )  # fmt: skip
    replicates: int = option(
        "--bootstrap", default=0, least=0, most=10**5, metavar="N", group=INTERVALS,
        help="replicates of the image bootstrap; 0 for no intervals (default: 0)",
    )  # fmt: skip
    confidence: float = option(
        default=0.95, above=0, most=MOST_CONFIDENCE, metavar="P", group=INTERVALS, help="confidence of intervals"
    )
    seed: int = option(default=0, least=0, most=2**32 - 1, group=INTERVALS, help="random seed of the bootstrap")
    thresholds: tuple[float, ...] = field(default_factory=_iou_thresholds)
    sweep: bool = True
    progress: bool = False

    @property
    def masks(self) -> bool:
        """Whether segmentations are needed."""
        return self.iou_type == "segm" or self.area == "mask"

    @property
    def goal(self) -> Goal:
        """Of score thresholds."""
        from mmms_plugin.size_ap.kernel.operating_points import Goal

        for name in ("precision", "recall"):
            if (value := getattr(self, name)) is not None:
                return Goal(name, value)
        return Goal()

    @property
    def unit(self) -> str:
        """Of custom limits: 'side', 'area' or 'relative'."""
        return UNITS[self.bin_unit]

    @property
    def resizing(self) -> AnyResizing | None:
        """What is done to pictures or tiles; None for nothing.

        Raises:
            UserError: a config's name, which only the command reads.
        """
        from mmms_plugin.size_ap.resizing import Measured, Resizing

        if self.resize is None or isinstance(self.resize, Resizing | Measured):
            return self.resize
        if isinstance(self.resize, str):
            raise UserError(
                f"resize={self.resize!r}: must be WIDTHxHEIGHT, (width, height), or what "
                "mmms_plugin.config.resizing.pipeline_resizing returns for a config"
            )
        return Resizing.fit(*self.resize)

    @property
    def sight(self) -> dict[str, Any]:
        """Arguments of functions that need to know how the network sees sizes: unit, resize and tiles."""
        return dict(unit=self.unit, resize=self.resizing, tiles=self.tiles)

    def factors(self, truth: GroundTruth) -> NDArray[float64] | None:
        """``(images,)`` by which areas in each of ``truth.image_ids`` are multiplied; None for 1 everywhere.

        Raises:
            UserError: the sizes of pictures are needed and missing.
        """
        from mmms_plugin.size_ap.resizing import area_factors

        return area_factors(truth, **self.sight)

    @property
    def seen(self) -> str:
        """How sizes differ from those on disk, for the reader; empty if they do not."""
        from mmms_plugin.size_ap.resizing import describe_seen

        return describe_seen(**self.sight)

    def for_rules_of(self, truth: GroundTruth) -> Options:
        """These options with the data set's own limit of detections per image and class, if it is higher (LVIS)."""
        from mmms_plugin.coco import lvis

        return replace(self, max_dets=max(self.max_dets, lvis.DETECTIONS)) if truth.federated else self

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("bins", "bin_unit", "area", "iou_type"):
            if not isinstance(getattr(self, name), str):
                flag = f"--{name.replace('_', '-')}"
                raise UserError(f"{flag} {getattr(self, name)}: must be a text, as on the command line")
        if math.isnan(self.score_threshold):
            raise UserError("--score-threshold nan: must be a number")
        goals = [f"--{name}" for name in ("precision", "recall") if getattr(self, name) is not None]
        if goals and not self.operating:
            raise UserError(f"{goals[0]}: needs --thresholds")
        if len(goals) > 1:
            raise UserError("--precision and --recall: give one of them")
        if not self.thresholds or not all(0 < t <= 1 for t in self.thresholds):
            raise UserError(f"thresholds={self.thresholds}: must be at least one number, above 0 and at most 1")
