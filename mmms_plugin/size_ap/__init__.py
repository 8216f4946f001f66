"""AP by object size: from COCO files to figures with intervals, and to a report.

`coco.read` reads files into arrays; `kernel` matches and counts them, in the bins of `bins`; `evaluate` makes `results`
of the counts; `report` shows them; `gate` judges them for CI. `commands.size_ap` is the whole way.

Needs NumPy, pycocotools and msgspec; for the report also matplotlib and jinja2, for several seeds scipy; neither torch
nor a host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path as Folder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmms_plugin.size_ap.options import Options
    from mmms_plugin.size_ap.resizing import Resizing
    from mmms_plugin.size_ap.results import SizeAPResults

Path = str | PathLike[str]
RELATIVE = "relative"  # unit of sizes that are shares of the picture's
SMALLEST_SHARE = 2.0**-12  # relative side that histograms and curves over size begin with
UNITS = {"side": "side", "pixels": "side", "area": "area", RELATIVE: RELATIVE}  # values of --bin-unit
OF_FILES = ("format", "pred_format", "images", "classes")  # options of `size_ap` that are not of the evaluation


def size_ap(
    ann: Path,
    preds: Path | Sequence[Path] | Mapping[str, Path | Sequence[Path]],
    *,
    names: Sequence[str] = (),
    iou_type: str = "bbox",
    area: str = "annotation",
    bins: str | Sequence[str | float] = "coco",
    bin_unit: str = "side",
    resize: str | tuple[int, int] | Resizing | None = None,
    tiles: int | str | tuple[int, int] | None = None,
    allow_gaps: bool = False,
    allow_overlaps: bool = False,
    max_dets: int = 100,
    bootstrap: int = 0,
    confidence: float = 0.95,
    seed: int = 0,
    score_threshold: float = 0.5,
    errors: bool = True,
    confusion: float | bool | None = None,
    sweep: bool = True,
    thresholds: bool = False,
    precision: float | None = None,
    recall: float | None = None,
    calibration: bool = False,
    suspects: int = 0,
    format: str = "auto",
    pred_format: str = "auto",
    images: Path | None = None,
    classes: Path | None = None,
) -> SizeAPResults:
    """Evaluate AP by object size of runs and methods, and compare them with the first: what ``mmms size-ap`` reports.

    Args:
        ann: COCO annotation file.
        preds: a COCO result file, or several; or a dict from the name of each method to its files, one per seed, such
            as ``{"plain": ["a.json", "b.json"], "ps": ["c.json", "d.json"]}``.
        names: names of runs that are single files; by default those of the files.
        iou_type: overlap of boxes, 'bbox', or of masks, 'segm'.
        area: what determines an object's size: 'annotation' (its ``area`` field, as in pycocotools), 'box' or 'mask'.
        bins: 'coco', 'tiny', 'ai-tod', 'soda', 'quantiles:N', limits such as '0,16,32,inf', or
            'name=low:high,...', also as a list.
        bin_unit: unit of custom limits and quantiles: 'side' or 'pixels' (square root of the area, px), 'area' (px²) or
            'relative' (square root of the share of the picture's area; default limits 0, 0.05, 0.2 and 1).
        resize: width and height in px that pictures are made to fit, '1333x800' or (1333, 800), or what
            `mmms_plugin.config.resizing.pipeline_resizing` returns for a config: sizes are those of resized objects.
        tiles: side in px, or (width, height), of the tiles that the network sees: they are what is resized, and what
            relative sizes are shares of.
        allow_gaps: accept sizes that are in no bin.
        allow_overlaps: accept sizes that are in several bins.
        max_dets: largest number of detections per image and class that count.
        bootstrap: replicates of the image bootstrap, 0 for no intervals.
        confidence: of the intervals.
        seed: random seed of the bootstrap.
        score_threshold: lowest score of detections that count in the confusion of classes, and at which a class counts
            as predicted in an image (multi-label F1 of two runs).
        errors: also evaluate the cost of each type of error.
        confusion: also count which class is taken for which, by detections of at least this IoU; True for 0.5.
        sweep: also evaluate AP against continuous size.
        thresholds: also find the score from which to keep detections, for every bin and class, and curves of precision
            against recall.
        precision, recall: reach this, instead of the highest F1.
        calibration: also evaluate whether scores are probabilities, by bin and class, and fit maps for each size.
        suspects: also list as many annotations that the models contradict most; True for 100.
        format: of the ground truth: 'coco', 'lvis', 'yolo', 'voc', or 'auto' to detect it.
        pred_format: of the predictions, likewise.
        images: folder of the images, for YOLO labels, and for the gallery of a saved report.
        classes: file with the names of the classes.

    Returns:
        The figures, with methods to show, draw and save them.

    Raises:
        UserError: files or options are at fault; a ValueError with the line that the command prints.

    Example:
        >>> results = size_ap("val.json", {"plain": "plain.json", "ps": "ps.json"}, bootstrap=200)
        >>> results
        <SizeAPResults on 60 images: box AP (× 100) plain 45.7, ps 57.2>
        >>> {b.bin.name: b.ap and round(b.ap, 3) for b in results.runs[0].bins}
        {'all': 0.457, 'small': 0.322, 'medium': 0.593, 'large': None}
        >>> results.plot("difference").savefig("difference.png")
        >>> table = results.to_pandas("differences")
        >>> results.save("report")[0].name
        'report.html'
    """
    from mmms_plugin.coco.formats import Source
    from mmms_plugin.size_ap.evaluate import evaluate
    from mmms_plugin.size_ap.methods import Seeds, read_files

    options = _options(
        iou_type=iou_type, area=area, bins=bins, bin_unit=bin_unit, allow_gaps=allow_gaps,
        allow_overlaps=allow_overlaps, max_dets=max_dets, bootstrap=bootstrap, seed=seed, confidence=confidence,
        score_threshold=score_threshold, errors=errors, confusion=confusion, sweep=sweep,
        thresholds=thresholds, precision=precision, recall=recall, calibration=calibration,
        suspects=suspects,
        resize=resize, tiles=tiles,
    )  # fmt: skip
    pictures, names_of_classes = (Folder(path) if path else None for path in (images, classes))
    source = Source(format, pred_format, pictures, names_of_classes)
    if isinstance(preds, Mapping):
        runs: list[str | Folder | Seeds] = [Seeds(name, _several(files)) for name, files in preds.items()]
    else:
        runs = [*_several(preds)]
    truth, methods, notes = read_files(str(ann), runs, names, masks=options.masks, source=source)
    return evaluate(truth, methods, options, notes, source, str(ann))


def check_options(given: Mapping[str, Any]) -> None:
    """Refuse values of `size_ap`'s options before there are files to evaluate.

    Raises:
        UserError: a value is not allowed.
    """
    _options(**{name: value for name, value in given.items() if name not in OF_FILES})


def _options(
    *,
    bins: Any = "coco",
    bootstrap: int = 0,
    thresholds: bool = False,
    resize: Any = None,
    tiles: Any = None,
    confusion: Any = None,
    suspects: Any = 0,
    **others: Any,
) -> Options:
    from mmms_plugin.size_ap.options import (
        CONFUSION_IOU,
        SUSPECTS,
        Options,
        bins_text,
        parse_resize,
        parse_tiles,
        sides_of,
    )

    return Options(
        bins=bins_text(bins), replicates=bootstrap, operating=thresholds, resize=sides_of(resize, parse_resize),
        tiles=sides_of(tiles, parse_tiles),
        confusion=(CONFUSION_IOU if confusion else None) if isinstance(confusion, bool) else confusion,
        suspects=SUSPECTS * suspects if isinstance(suspects, bool) else suspects, **others,
    )  # fmt: skip


def _several(paths: Path | Sequence[Path]) -> tuple[str, ...]:
    return (str(paths),) if isinstance(paths, str | PathLike) else tuple(map(str, paths))
