"""Where the errors of two detectors differ by object size: their boxes, evaluated by size-ap."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmms_plugin.coco.formats import Source as Truth
from mmms_plugin.coco.json_files import load_annotations
from mmms_plugin.commands.scale_policy.network import PolicyRun
from mmms_plugin.commands.scale_policy.pictures import Source, data_set_file
from mmms_plugin.errors import UserError
from mmms_plugin.files import write_text
from mmms_plugin.size_ap.command import run_size_ap
from mmms_plugin.size_ap.evaluate import Options

FOLDER = "size_ap"
NO_NAME = "class {}"  # of the classes of a checkpoint that does not name them


def compare_sizes(
    runs: Sequence[PolicyRun],
    out: Path,
    folder: Path,
    split: str,
    sources: Sequence[Source],
    skipped: dict[str, str],
) -> None:
    """Predict with both detectors and write the report of size-ap.

    Args:
        out: for the report. folder, split: of the data set. sources: its pictures.
        skipped: those that cannot be read, and why; those that are found here are added.
    Raises: UserError if a model predicts no boxes, or none of the data set's classes.
    """
    truth = data_set_file(folder, split)
    content = load_annotations(truth, "--coco-dir")
    files = []
    for number, run in enumerate(runs, 1):
        labels = _numbers(run.classes, content["categories"])
        records = _records(run.boxes(sources, skipped), labels, content["images"], sources)
        files.append(write_text(out / f"run_{number}.json", json.dumps(records)))
    options = Options(replicates=200, sweep=False, progress=False)
    pictures = Truth(pictures=sources[0].path.parent)
    run_size_ap(str(truth), [str(file) for file in files], str(out), options, names=_names(runs), source=pictures)


def remove_sizes(out: Path) -> None:
    """Delete what an earlier run wrote there, if it is that."""
    if not out.is_symlink() and (out / "run_1.json").is_file() and (out / "run_2.json").is_file():
        shutil.rmtree(out, ignore_errors=True)


def _numbers(classes: Sequence[str], categories: Sequence[Mapping[str, Any]]) -> list[int | None]:
    """The data set's number of every class of a model, None for classes that the data set lacks."""
    numbers = {str(one["name"]): one["id"] for one in categories}
    if len(classes) == len(numbers) and all(name == NO_NAME.format(i) for i, name in enumerate(classes)):
        return list(numbers.values())  # the file's order
    if not set(numbers) & set(classes):
        raise UserError(f"--compare: the model's classes ({', '.join(classes[:3])}) are not the data set's")
    return [numbers.get(name) for name in classes]


def _records(
    boxes: Mapping[str, Sequence[Sequence[float]]],
    labels: Sequence[int | None],
    images: Sequence[Mapping[str, Any]],
    sources: Sequence[Source],
) -> list[dict[str, Any]]:
    """COCO results, with the data set's numbers of images and categories."""
    ids = {image["file_name"]: image["id"] for image in images}
    found = []
    for source in sources:
        for label, score, *box in boxes.get(source.name, ()):
            category = labels[int(label)]
            if category is not None:
                found.append(dict(image_id=ids[source.file_name], category_id=category, bbox=box, score=score))
    return found


def _names(runs: Sequence[PolicyRun]) -> list[str]:
    stems = [Path(run.options.checkpoint).stem for run in runs]
    return stems if len(set(stems)) == len(stems) else [f"{i} {stem}" for i, stem in enumerate(stems, 1)]
