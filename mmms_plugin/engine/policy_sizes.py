"""Where the errors of two detectors differ by object size: their predictions, evaluated by size-ap."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmms_plugin.analysis.size_ap.command import run_size_ap
from mmms_plugin.analysis.size_ap.evaluate import Options
from mmms_plugin.analysis.size_ap.reading.formats import Source as Truth
from mmms_plugin.engine.policy_pictures import Source, data_set_file
from mmms_plugin.engine.predict import PredictOptions, predict
from mmms_plugin.errors import UserError
from mmms_plugin.files import write_text

LEAST = 0.001  # score of a prediction that is kept
FOLDER = "size_ap"


def compare_sizes(runs: Sequence[PredictOptions], folder: Path, split: str, sources: Sequence[Source]) -> None:
    """Predict with both detectors and write the report of size-ap into ``size_ap`` in their output folder.

    Args:
        runs: config and checkpoint of each. folder, split: of the data set. sources: its pictures.
    Raises: UserError if a model predicts no boxes, or none of the data set's classes.
    """
    truth = data_set_file(folder, split)
    content = json.loads(truth.read_text(encoding="utf-8"))
    out = runs[0].out / FOLDER
    files = []
    for number, run in enumerate(runs, 1):
        kept = out / f"predictions_{number}"
        predict(
            replace(run, inputs=[str(s.path) for s in sources if s.path.is_file()], out=kept, score=LEAST, draw=False)
        )
        found = json.loads((kept / "predictions.json").read_text(encoding="utf-8"))
        files.append(write_text(out / f"run_{number}.json", json.dumps(_results(found, content, sources))))
    pictures = sources[0].path.parent if sources else None
    options = Options(replicates=200, sweep=False, progress=False)
    run_size_ap(
        str(truth),
        [str(file) for file in files],
        str(out),
        options,
        names=_names(runs),
        source=Truth(pictures=pictures),
    )


def _results(found: dict[str, Any], truth: dict[str, Any], sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Predictions with the data set's numbers of images and categories."""
    ids = {image["file_name"]: image["id"] for image in truth["images"]}
    images = {str(source.path.resolve()): ids[source.file_name] for source in sources if source.file_name in ids}
    by_id = {one["id"]: images.get(str(Path(one["file_name"]).resolve())) for one in found["images"]}
    numbers = {one["name"]: one["id"] for one in truth["categories"]}
    names = {one["id"]: one["name"] for one in found["categories"]}
    if len(names) == len(numbers) and all(name == f"class {i}" for i, name in enumerate(names.values())):
        names = dict(zip(names, numbers, strict=True))  # the checkpoint does not name its classes: the file's order
    if not set(numbers) & set(names.values()):
        raise UserError(
            f"--compare: the model's classes ({', '.join(list(names.values())[:3])}) are not the data set's"
        )
    return [
        dict(image_id=by_id[one["image_id"]], category_id=numbers[names[one["category_id"]]], bbox=one["bbox"],
             score=one["score"])
        for one in found["annotations"]
        if by_id[one["image_id"]] is not None and names[one["category_id"]] in numbers
    ]  # fmt: skip


def _names(runs: Sequence[PredictOptions]) -> list[str]:
    stems = [Path(run.checkpoint).stem for run in runs]
    return stems if len(set(stems)) == len(stems) else [f"{i} {stem}" for i, stem in enumerate(stems, 1)]
