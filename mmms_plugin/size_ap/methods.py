"""The prediction files of runs, and of methods with several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmms_plugin.coco.formats import AUTO, Source, detect
from mmms_plugin.coco.objects import Detections, GroundTruth, Method
from mmms_plugin.coco.read import LABELS, Notes, read_detections, read_ground_truth
from mmms_plugin.errors import LONGEST_NAME, UserError, printable


@dataclass(frozen=True)
class Seeds:
    """A method's name and its prediction files, one per seed."""

    name: str
    files: tuple[str, ...]


def parse_group(text: str) -> Seeds:
    """A method from text such as ``ps=a.json,b.json,c.json``.

    Raises:
        UserError: another form, or a file given twice.
    """
    name, equals, files = text.partition("=")
    paths = tuple(path.strip() for path in files.split(","))
    if not name.strip() or not equals or not all(paths):
        raise UserError(f"--group {text!r}: must be NAME=FILE,FILE,..., such as ps=a.json,b.json,c.json")
    if len(set(paths)) < len(paths):
        raise UserError(f"--group {text!r}: a file is given twice; every seed needs its own")
    return Seeds(printable(name.strip(), LONGEST_NAME), paths)


def read_files(
    ann: str | Path,
    preds: Sequence[str | Path | Seeds],
    names: Sequence[str] = (),
    *,
    masks: bool,
    source: Source = AUTO,
) -> tuple[GroundTruth, list[Method], Notes]:
    """Read an annotation file and the prediction files of several runs or methods on it.

    Args:
        ann: the annotation file.
        preds: a file for each run, `Seeds` for each method with several.
        names: of the runs that are single files; by default their files' names, with the folder's if two are the same.
        masks: read segmentations, for IoU of masks and area by mask.
        source: formats, and where to find class names and image sizes.

    Raises:
        UserError: as `read_ground_truth` and `read_detections`; or not one name per run, all different; or names of
            classes that no file needs.
    """
    single = iter(_names([path for path in preds if not isinstance(path, Seeds)], names))
    named = [(pred.name, pred.files) if isinstance(pred, Seeds) else (next(single), (pred,)) for pred in preds]
    shown = [name for name, _ in named]
    twice = next((name for name in shown if shown.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two methods are called {twice!r}; each needs its own name")
    if source.classes:
        _check_classes(ann, [path for _, files in named for path in files], source)
    truth, notes = read_ground_truth(ann, masks=masks, source=source)
    methods = []
    for name, files in named:
        runs: list[Detections] = []
        for path, label in zip(files, [name] if len(files) == 1 else _names(files, ()), strict=True):
            run, more = read_detections(path, truth, masks=masks, name=label, source=source)
            runs.append(run)
            notes = (*notes, *more)
        methods.append(Method(name, tuple(runs)))
    return truth, methods, notes


def _check_classes(ann: str | Path, preds: Sequence[str | Path], source: Source) -> None:
    """Refuse ``--classes`` where every file names its classes itself."""
    needed = detect(Path(ann), "--ann", source.truth) in LABELS
    if not needed and "yolo" not in [detect(Path(path), "--pred", source.predictions) for path in preds]:
        raise UserError(
            f"--classes {source.classes}: COCO files name their classes themselves; it is for labels of YOLO, VOC "
            "and labelme, and for predictions of YOLO"
        )


def _names(preds: Sequence[str | Path], given: Sequence[str]) -> list[str]:
    """Distinct printable names for all runs."""
    shown = f"--names {' '.join(given)}"
    if given and len(given) != len(preds):
        raise UserError(f"{shown}: must be one for each --pred ({len(preds)})")
    if len(set(given)) < len(given):
        raise UserError(f"{shown}: must be different names")
    if not all(name.strip() for name in given):
        raise UserError("--names: a name is empty; every run needs one")
    names = [printable(name) for name in given] or [printable(Path(path).stem) for path in preds]
    if len(set(names)) < len(names) and not given:
        names = [printable(f"{Path(path).resolve().parent.name}/{Path(path).stem}") for path in preds]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"--pred: two runs would be called {twice!r}; give them names with --names A B")
    return names
