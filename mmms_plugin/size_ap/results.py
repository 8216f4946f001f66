"""The results of an evaluation by object size: plain frozen records, written as JSON in full precision.

A figure that is undefined (a bin or class without objects) is None: ``null`` in JSON, empty in CSV, "n/a" in tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco.formats import AUTO, Source
from mmms_plugin.errors import counted
from mmms_plugin.report.tables import percent
from mmms_plugin.size_ap.bins import Bin

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawn
    from pandas import DataFrame

    from mmms_plugin.coco.objects import GroundTruth, Method
    from mmms_plugin.size_ap.options import Options as EvaluationOptions

METRICS = ("ap", "ap50", "ap75", "ar")
ERROR_TYPES = ("classification", "localisation", "both", "duplicate", "background", "missed")
POINT = ("score", "precision", "recall", "f1")  # figures of a threshold
Figure = float | None


@dataclass(frozen=True)
class Interval:
    """A bias-corrected bootstrap interval; limits are None where the figure is undefined in most replicates."""

    low: Figure
    high: Figure


@dataclass(frozen=True)
class ErrorShare:
    """One type of error in one bin (`mmms_plugin.size_ap.kernel.error_types`).

    Attributes:
        count: errors of the type.
        gain: AP50 gained if they were fixed; None in a bin without objects.
        interval: of the gain; None without bootstrap.
    """

    count: int
    gain: Figure
    interval: Interval | None = None


@dataclass(frozen=True)
class BinResult:
    """The figures of one bin.

    ``intervals`` maps names of `METRICS` to intervals, empty without bootstrap; ``errors`` maps names of `ERROR_TYPES`
    to their cost, empty if not requested. ``ap_draws`` is AP in every draw of images (the mean over seeds if there are
    several).
    """

    bin: Bin
    ap: Figure
    ap50: Figure
    ap75: Figure
    ar: Figure
    ground_truths: int
    detections: int
    intervals: dict[str, Interval]
    errors: dict[str, ErrorShare] = field(default_factory=dict)
    ap_draws: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class ClassMatrix:
    """Class by size: rows are categories, columns the bins of the evaluation, in their order.

    Attributes:
        category_ids, category_names: ``(classes,)``.
        ap, ap50, ap75, ar: ``(classes, bins)`` figures.
        ground_truths: ``(classes, bins)`` objects, crowds not counted.
        detections: ``(classes, bins)`` detections whose own area is in the bin.
        ap_intervals: ``(classes, bins)``, or None without bootstrap.
    """

    category_ids: tuple[int, ...]
    category_names: tuple[str, ...]
    ap: tuple[tuple[Figure, ...], ...]
    ap50: tuple[tuple[Figure, ...], ...]
    ap75: tuple[tuple[Figure, ...], ...]
    ar: tuple[tuple[Figure, ...], ...]
    ground_truths: tuple[tuple[int, ...], ...]
    detections: tuple[tuple[int, ...], ...]
    ap_intervals: tuple[tuple[Interval, ...], ...] | None = None


@dataclass(frozen=True)
class Answer:
    """How often objects of a class are taken for a class, in one bin (`mmms_plugin.size_ap.kernel.confusion`).

    Attributes:
        bin: its name.
        category_id: the objects' class; None for detections of background.
        predicted_id: the detections' class; None for missed objects.
        count: of the objects, or of the detections of background.
    """

    bin: str
    category_id: int | None
    predicted_id: int | None
    count: int


@dataclass(frozen=True)
class Confusion:
    """Confusion matrices of one run, by bin.

    Attributes:
        iou: lowest IoU at which a detection answers for an object.
        score: lowest score of the detections that count.
        answers: the cells that are not 0, bin by bin and row by row.
    """

    iou: float
    score: float
    answers: tuple[Answer, ...]

    def matrix(self, bin_name: str, category_ids: Sequence[int]) -> NDArray[np.int64]:
        """Counts of a bin, ``(classes + 1, classes + 1)``: rows objects, background; columns detections, missed.

        Args:
            bin_name: such as 'all'.
            category_ids: the classes, such as ``run.classes.category_ids``.
        """
        place = {None: len(category_ids)} | {number: i for i, number in enumerate(category_ids)}
        counts = np.zeros((len(place), len(place)), np.int64)
        for answer in self.answers:
            if answer.bin == bin_name:
                counts[place[answer.category_id], place[answer.predicted_id]] = answer.count
        return counts


@dataclass(frozen=True)
class SizePoint:
    """AP and AR of the objects in one window of a continuous sweep over size (side = square root of the area, px).

    ``interval`` is AP's, one point of the band; None without bootstrap.
    """

    side: float
    low: float
    high: float
    ap: Figure
    ar: Figure
    ground_truths: int
    interval: Interval | None = None


@dataclass(frozen=True)
class SeedResult:
    """One run of a method with several seeds: its name, AP in every bin, and AP of every bin in every replicate."""

    name: str
    ap: tuple[Figure, ...]
    ap_draws: tuple[tuple[Figure, ...], ...] = ()


@dataclass(frozen=True)
class OperatingPoint:
    """The score from which detections of one bin and class are kept (`kernel.operating_points`), and what that gives.

    Attributes:
        bin: its name.
        category: name of the class; None for all classes, ranked together.
        score: None if the bin has no objects of the class, or no score reaches the goal.
        precision, recall, f1: at that score.
        kept: detections of that score or more that count in the bin.
        hits: those that match an object of the bin.
        objects: of the bin and class.
        intervals: of 'score', chosen anew in every draw of images, and of 'precision', 'recall' and 'f1' at the score
            above; empty without bootstrap.
    """

    bin: str
    category: str | None
    score: Figure
    precision: Figure
    recall: Figure
    f1: Figure
    kept: int
    hits: int
    objects: int
    intervals: dict[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class OperatingPoints:
    """Score thresholds of a run at one IoU, for a goal in words, and the precision at 101 levels of recall.

    Attributes:
        goal: 'highest F1', 'precision of at least 0.9' or 'recall of at least 0.9'.
        iou: from which a detection matches an object.
        points: of all classes and then of each, in every bin.
        curves: ``(bins, 101)`` precision at recalls 0 to 1, the mean over classes; None in a bin without objects. The
            mean over the levels is AP at this IoU.
    """

    goal: str
    iou: float
    points: tuple[OperatingPoint, ...]
    curves: tuple[tuple[Figure, ...], ...]


@dataclass(frozen=True)
class CalibrationCell:
    """Whether the scores of one bin and class are probabilities (`kernel.calibration`).

    Attributes:
        bin: its name; a detection is in the bin of its own size.
        category: name of the class; None for all classes.
        detections: number of detections, those that match a crowd left out.
        score: their mean score.
        precision: share of them that is right.
        ece, mce: expected and maximum calibration error.
        levels: for each of ten equal intervals of score, number of detections, mean score, and share that is right.
        intervals: of 'precision', 'ece' and 'mce'; empty without bootstrap.
    """

    bin: str
    category: str | None
    detections: int
    score: Figure
    precision: Figure
    ece: Figure
    mce: Figure
    levels: tuple[tuple[int, Figure, Figure], ...]
    intervals: dict[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class SizeMap:
    """The logistic map of one bin's scores, fitted on half of the images, and what it does on the other half.

    Attributes:
        bin: its name; the map of 'all' is the one for all sizes.
        slope, offset: the calibrated score is sigmoid(slope logit(score) + offset).
        fitted, tested: numbers of detections.
        errors: expected calibration error on the other half: of the scores as they are, after the one map for all
            sizes, and after the map of each detection's size.
        losses: mean negative log-likelihood, likewise.
        intervals: of the three errors, 'ece', 'ece_one' and 'ece_size', and of 'change', the third less the first;
            empty without bootstrap.
    """

    bin: str
    slope: float
    offset: float
    fitted: int
    tested: int
    errors: tuple[Figure, ...]
    losses: tuple[Figure, ...]
    intervals: dict[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Calibration:
    """The calibration of a run by size: at which IoU a detection is right, the cells, and the maps."""

    iou: float
    cells: tuple[CalibrationCell, ...]
    maps: tuple[SizeMap, ...]


@dataclass(frozen=True)
class RunResult:
    """One run (one prediction file), or a method with several seeds, whose figures are means over its runs.

    Attributes:
        name: of the run or method.
        bins: one result per bin; the first is always 'all'.
        classes: figures by class and size.
        stats: pycocotools' twelve figures by name (AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl) if
            the bins are the preset 'coco'; otherwise those that do not depend on bins. The number after the third AR is
            the evaluation's ``max_dets``.
        sweep: AP against continuous size; empty if not requested.
        seeds: the runs of a method with several seeds; empty for one run.
        operating: score thresholds; None if not requested.
        calibration: whether scores are probabilities; None if not requested.
        confusion: which classes are taken for which; None if not requested.
    """

    name: str
    bins: tuple[BinResult, ...]
    classes: ClassMatrix
    stats: dict[str, Figure]
    sweep: tuple[SizePoint, ...] = ()
    seeds: tuple[SeedResult, ...] = ()
    operating: OperatingPoints | None = None
    calibration: Calibration | None = None
    confusion: Confusion | None = None


@dataclass(frozen=True)
class Difference:
    """Second run minus first run, from the paired bootstrap (None without bootstrap).

    Attributes:
        of: name of the bin or category that is compared.
        metric: a name of `METRICS`.
        first, second: the two figures.
        difference: second minus first.
        interval: bootstrap interval of the difference.
        probability_positive: probability that the second run is truly better, from the same replicates.
    """

    of: str
    metric: str
    first: Figure
    second: Figure
    difference: Figure
    interval: Interval | None
    probability_positive: Figure


@dataclass(frozen=True)
class GroupRow:
    """Images that contain objects of exactly these sizes (ELASTIC, Table 4), and what the second run gains on them.

    ``first`` and ``second`` map 'ap', 'f1_per_class' and 'f1_overall' to figures in [0, 1]; ``relative`` is
    (second - first) / first, a fraction (0.04 is 4 %).
    """

    sizes: tuple[str, ...]
    images: int
    first: dict[str, Figure]
    second: dict[str, Figure]
    relative: dict[str, Figure]


@dataclass(frozen=True)
class Settling:
    """How certain the difference of AP in one bin is, and what would settle it (`kernel.bootstrap`).

    Attributes:
        of: the bin's name.
        images, seeds, both: standard deviations of the difference due to the choice of images, to that of seeds, and to
            seeds that do better on some images than on others; the latter two are 0 where no method has several seeds.
        settled: the interval of the difference excludes zero.
        images_needed: total number of images that would settle it, with these seeds, if the difference stays the same;
            None if it is settled, or if 1,000 times the images would not suffice.
        seeds_needed: number of seeds of each method that would settle it, with these images; None if it is settled, no
            method has several seeds, or 1,000 would not suffice.
    """

    of: str
    images: float
    seeds: float
    both: float
    settled: bool
    images_needed: int | None
    seeds_needed: int | None


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same images: differences per bin and per class (over all sizes), and per group of images.

    Attributes:
        first, second: the runs' names.
        per_bin: every metric of every bin.
        per_class: AP over all sizes of every category.
        groups: ELASTIC's Table 4; its last row is all images.
        score_threshold: a class counts as predicted in an image if a detection scores at least this.
        per_error: AP50 gained by fixing each type of error, in every bin; ``metric`` is a name of `ERROR_TYPES`.
        settling: how certain the difference of AP is in every bin; empty without bootstrap.
    """

    first: str
    second: str
    per_bin: tuple[Difference, ...]
    per_class: tuple[Difference, ...]
    groups: tuple[GroupRow, ...]
    score_threshold: float
    per_error: tuple[Difference, ...] = ()
    settling: tuple[Settling, ...] = ()


@dataclass(frozen=True)
class Failures:
    """Failures of one run, in the order in which they are chosen to be shown, or as they are shown.

    Attributes:
        kind: ``(n,)`` index into `ERROR_TYPES`.
        in_bin: ``(bins, n)`` bool, the bins in which it counts.
        image: ``(n,)`` position in the ground truth's ``image_ids``.
        category, object_category: ``(n,)`` of detection and object, position among the sorted category ids, or -1.
        score, iou: ``(n,)``, NaN without a detection; IoU 0 where it overlaps nothing.
        box, object_box: ``(n, 4)`` of detection and object, x y width height in px, or NaN.
        total: number of failures of the run, shown or not.
    """

    kind: NDArray[np.int64]
    in_bin: NDArray[np.bool_]
    image: NDArray[np.int64]
    category: NDArray[np.int64]
    object_category: NDArray[np.int64]
    score: NDArray[np.float64]
    iou: NDArray[np.float64]
    box: NDArray[np.float64]
    object_box: NDArray[np.float64]
    total: int

    def __len__(self) -> int:
        return len(self.kind)

    def first(self, most: int) -> Failures:
        """At most ``most`` of them, as they are shown: highest score first."""
        order = np.argsort(-np.nan_to_num(self.score[:most], nan=-np.inf), kind="stable")
        columns = {name: column[order] for name, column in vars(self).items() if name not in ("in_bin", "total")}
        return replace(self, in_bin=self.in_bin[:, order], **columns)


@dataclass(frozen=True)
class Suspects:
    """Annotations that are probably wrong (`mmms_plugin.size_ap.suspects`), those of the highest scores.

    Attributes:
        kind: ``(n,)`` index into `mmms_plugin.size_ap.suspects.KINDS`.
        score: ``(n,)`` from 0 to 1, falling.
        image: ``(n,)`` place among the ground truth's images.
        annotation: ``(n,)`` place among its objects; -1 where one is missing.
        category: ``(n,)`` place among its categories, of the class that the models see.
        box: ``(n, 4)`` x y width height in px, of the most confident detection, inside its picture.
        iou: ``(n,)`` of that box with the annotation's, or with the nearest object of its class.
        models: ``(n,)`` number of models that see it.
        in_bin: ``(bins, n)`` of the annotation's size, or of the detection's where one is missing.
        of_models: number of models.
        total: number of suspects, shown or not.
    """

    kind: NDArray[np.int64]
    score: NDArray[np.float64]
    image: NDArray[np.int64]
    annotation: NDArray[np.int64]
    category: NDArray[np.int64]
    box: NDArray[np.float64]
    iou: NDArray[np.float64]
    models: NDArray[np.int64]
    in_bin: NDArray[np.bool_]
    of_models: int
    total: int

    def __len__(self) -> int:
        return len(self.kind)


@dataclass(frozen=True)
class Inputs:
    """What was evaluated, from which a saved report takes the objects' sizes and the gallery of failures.

    Attributes:
        truth: ground truth.
        methods: predictions on it.
        options: how it was evaluated.
        source: formats of the files, and the folder of the images.
        ann: file or folder of the annotations, if it was read from one.
        failures: of every method, of several seeds those of the first; empty if error types were not evaluated.
        suspects: annotations that the models contradict, if asked for.
    """

    truth: GroundTruth
    methods: tuple[Method, ...]
    options: EvaluationOptions
    source: Source = AUTO
    ann: str | None = None
    failures: tuple[Failures, ...] = ()
    suspects: Suspects | None = None


@dataclass(frozen=True, repr=False)
class SizeAPResults:
    """A whole evaluation: how it was done, and one `RunResult` per prediction file or method.

    A notebook shows it as tables; ``print`` writes what ``mmms size-ap`` prints. `plot`, `to_pandas`, `save` and
    `to_json` give figures, data frames, the whole report, and plain values.

    Attributes:
        iou_type: 'bbox' or 'segm'.
        area: 'annotation', 'box' or 'mask'.
        area_rule: the sentence that explains it.
        bins: the bins, 'all' first.
        bins_source: the option, such as 'coco', 'quantiles:4', 'tinyperson' or the bins as typed.
        bins_reference: the publication of a preset, or how the limits were determined.
        edge_rule: the sentence about objects on a limit.
        images, annotations, crowds: counts in the ground truth.
        max_dets: largest number of detections per image and class that count.
        iou_thresholds: as used.
        replicates: bootstrap replicates, 0 without.
        confidence: of the intervals, such as 0.95.
        seed: of the bootstrap.
        runs: at least one run or method.
        comparison: of the second run with the first; None for one run.
        more_comparisons: of the further runs with the first.
        notes: lines that the user should read, about anything unusual in the input.
        data: a hash of images and annotations, to recognise the same data.
        inputs: what was evaluated; None for results that were not made by an evaluation.
        seen: how sizes differ from those on disk: pictures resized, sizes relative to them; empty if they do not.
    """

    iou_type: str
    area: str
    area_rule: str
    bins: tuple[Bin, ...]
    bins_source: str
    bins_reference: str
    edge_rule: str
    images: int
    annotations: int
    crowds: int
    max_dets: int
    iou_thresholds: tuple[float, ...]
    replicates: int
    confidence: float
    seed: int
    runs: tuple[RunResult, ...]
    comparison: Comparison | None = None
    notes: tuple[str, ...] = ()
    data: str = ""
    more_comparisons: tuple[Comparison, ...] = ()
    inputs: Inputs | None = field(default=None, compare=False)
    seen: str = ""

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """All comparisons, in the order of the runs."""
        return (self.comparison, *self.more_comparisons) if self.comparison else ()

    def to_json(self) -> dict[str, Any]:
        """Dicts, lists and numbers in full precision; infinite limits become the text 'inf', undefined figures null."""
        content = plain(asdict(replace(self, inputs=None)))
        del content["inputs"]
        return content

    def plot(self, kind: str = "ap", run: str | None = None) -> Drawn:
        """Draw one figure of the report.

        Args:
            kind: 'ap' or 'ar' by bin, 'sweep' (AP against continuous size), 'errors' (AP50 gained if errors of a type
                were fixed), 'classes' (AP by class and size), 'confusion' (which class is taken for which),
                'precision-recall' (curves by bin), 'reliability' (share of right detections by score and bin),
                'difference' of AP from the first run, or 'groups' (the gain in images grouped by the sizes of their
                objects).
            run: name of the run of 'errors', 'classes', 'confusion', 'precision-recall' and 'reliability', by default
                the first, and of the run that 'difference' and 'groups' compare with the first, by default the second;
                the others show all runs.

        Returns:
            A matplotlib figure, which a notebook shows; ``savefig`` writes it to a file.

        Raises:
            UserError: an unknown kind or run, or a figure for which the evaluation has no numbers.
        """
        from mmms_plugin.size_ap.report.plots import plot

        return plot(self, kind, run)

    def save(self, folder: str | PathLike[str], gallery: int = 2000, figures: Sequence[str] = ()) -> list[Path]:
        """Write the report that ``mmms size-ap --out`` writes: a page, figures, tables, JSON and CSV.

        Args:
            folder: created if needed; files of the same names are replaced, all at once.
            gallery: largest number of failures per run in the page's gallery, at most 100,000, 0 for no gallery.
            figures: formats of the figures besides SVG, 'png' and 'pdf'.

        Returns:
            The files, ``report.html`` first.

        Raises:
            UserError: the folder cannot be created.
        """
        from mmms_plugin.size_ap.report.write import write_report

        return write_report(self, folder, gallery, figures)

    def to_pandas(self, table: str = "bins") -> DataFrame:
        """One of the report's CSV files as a pandas table, with figures from 0 to 1 in full precision.

        Args:
            table: 'bins', 'classes', and if evaluated 'errors', 'confusion', 'ap_against_size', 'thresholds',
                'calibration', 'reliability', 'calibration_maps', 'differences', 'settling', 'suspects'.

        Raises:
            UserError: an unknown table, or one that was not evaluated, or pandas is not installed.
        """
        from mmms_plugin.report.tables import data_frame
        from mmms_plugin.size_ap.report.tables import EVALUATED_WITH, data_tables, not_evaluated

        tables = data_tables(self)
        if table in EVALUATED_WITH and table not in tables:
            raise not_evaluated("table", table)
        return data_frame(tables, table)

    def __repr__(self) -> str:
        runs = ", ".join(f"{run.name} {percent(run.bins[0].ap)}" for run in self.runs)
        kind = "mask" if self.iou_type == "segm" else "box"
        return f"<{type(self).__name__} on {counted(self.images, 'image')}: {kind} AP (× 100) {runs}>"

    def __str__(self) -> str:
        from mmms_plugin.size_ap.report.printed import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from mmms_plugin.report.page import tables_html
        from mmms_plugin.size_ap.report.tables import notebook_tables, settling_lines

        remarks = [line for comparison in self.comparisons for line in settling_lines(comparison)]
        return tables_html(notebook_tables(self), self.notes, remarks)


def plain(value: Any) -> Any:
    """``value`` for JSON: keys become text, tuples lists, infinity the text 'inf', NaN null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "inf" if value > 0 else None
    return value


def figure(value: float) -> Figure:
    """NaN as None."""
    return None if math.isnan(value) else float(value)
