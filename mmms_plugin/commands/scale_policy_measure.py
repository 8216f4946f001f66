"""The measurements of ``mmms scale-policy``: its pictures, and what a network does with them.

Results are kept in a file from which an interrupted run resumes.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.dist import all_gather_object, broadcast_object_list, get_rank, is_main_process
from torch import Tensor, nn

from mmms_plugin.coco.mending import object_area
from mmms_plugin.coco.picture_files import MAX_PIXELS
from mmms_plugin.config.check import user_fault
from mmms_plugin.config.checkpoint import check_function, use_components
from mmms_plugin.config.edit import class_name
from mmms_plugin.config.function import Function
from mmms_plugin.data.coco_layouts import BY_SPLIT, Annotations, annotations_of, nothing_fits
from mmms_plugin.data.coco_set import read_split
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.data.pictures import none_readable, problem_of
from mmms_plugin.errors import UserError, one_line, printable
from mmms_plugin.files import write_text
from mmms_plugin.scale.policy.meter import PolicyMeter
from mmms_plugin.scale.policy.table import Row, Table, leaving_exit, rows_of
from mmms_plugin.scale.receptive_field import ReceptiveField, measure, middles
from mmms_plugin.train.inputs import find_inputs
from mmms_plugin.train.options import ModelOptions
from mmms_plugin.train.predict import (
    build_model,
    classes_of,
    config_of,
    picture_pipeline,
    share,
    with_progress,
)
from mmms_plugin.weights.files import read_checkpoint

LEAST = 0.001  # score of a box that is kept
SECONDS = 10.0  # between two saves of the progress


@dataclass(frozen=True)
class Source:
    """A picture.

    Attributes:
        path: its file.
        name: in the report.
        classes: of the picture, or of its objects.
        sides: of its objects, in px.
        file_name: its name in the annotation file, '' for a picture of a folder.
    """

    path: Path
    name: str
    classes: tuple[str, ...] = ()
    sides: tuple[float, ...] = ()
    file_name: str = ""


def find_sources(images: str | None, own: OwnData | None, out: Path) -> list[Source]:
    """The pictures of a folder or of a data set, each name once.

    Args:
        images: folder, whose sub-folders are classes.
        own: data set with annotated objects; either this or ``images`` is given.
        out: folder of the results, whose pictures are left out.

    Raises: UserError if there is no picture.
    """
    return _of_data_set(own) if own is not None else _of_folder(Path(images or ""), out)


def _of_folder(folder: Path, out: Path) -> list[Source]:
    sources = []
    for picture in find_inputs([str(folder)], out):
        classes = (printable(picture.below.parts[0]),) if len(picture.below.parts) > 1 else ()
        sources.append(Source(picture.path, printable(picture.below.as_posix()), classes))
    return sources


def _of_data_set(own: OwnData) -> list[Source]:
    coco = read_split(own, own.split, data_set_file(own), masks=False, look=False)
    names = {category["id"]: printable(str(category["name"])) for category in coco.content["categories"]}
    objects: dict[int, list[tuple[str, float]]] = {}  # class and side of those of each image
    for record in coco.boxed:
        if not record.get("iscrowd"):
            side = math.sqrt(object_area(record))
            objects.setdefault(record["image_id"], []).append((names[record["category_id"]], side))
    sources = {}
    for image in coco.images:
        if image["file_name"]:
            own_objects, name = objects.get(image["id"], []), printable(image["file_name"])
            classes, sides = tuple(sorted({c for c, _ in own_objects})), tuple(side for _, side in own_objects)
            path = (coco.image_dir or Path()) / image["file_name"]
            sources[name] = Source(path, name, classes, sides, image["file_name"])
    if not sources:
        raise UserError(f"{own.where}: {coco.path} lists no picture")
    return list(sources.values())


def data_set_file(own: OwnData) -> Annotations:
    """The annotations of the split.

    Raises: UserError if the data set has no such split.
    """
    files = annotations_of(own)
    if own.split not in files:
        raise UserError(nothing_fits(own, files, own.split, BY_SPLIT))
    return files[own.split]


def coco_truth(own: OwnData, folder: Path) -> Path:
    """The annotation file of the split, or its labels of another format as such a file in ``folder``."""
    file = data_set_file(own)
    if isinstance(file, Path):
        return file
    return read_split(own, own.split, file, masks=False).write(folder / "annotations.json")


def check_readable(sources: Sequence[Source], max_pixels: int = MAX_PIXELS) -> None:
    """Raises: UserError if no picture can be read; the first readable one ends the search."""
    problems: dict[str, str] = {}
    for source in sources:
        if not (problem := problem_of(source.path, max_pixels)):
            return
        problems[source.name] = problem
    raise UserError(none_readable(problems))


class Progress:
    """Results of a long run by picture, kept in a file from which an interrupted run resumes.

    Args:
        path: of the file.
        key: of everything that the results depend on; a file with another key is not used.
        max_pixels: of a picture; larger ones are skipped.

    Attributes:
        results: by the picture's name; values that JSON can hold.
        skipped: why other pictures have none, by name.
    """

    def __init__(self, path: Path, key: str, max_pixels: int = MAX_PIXELS) -> None:
        rank = get_rank()
        self.path, self.key, self.max_pixels = path.with_suffix(f".{rank}.json") if rank else path, key, max_pixels
        self.results: dict[str, Any] = {}
        self.skipped: dict[str, str] = {}
        for file in progress_files(path) if is_main_process() else ():
            try:
                content = json.loads(file.read_text(encoding="utf-8"))
                if content["key"] == key:
                    results = {str(name): value for name, value in content["results"].items()}
                    self.skipped |= {str(name): str(reason) for name, reason in content["skipped"].items()}
                    self.results |= results
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
                pass  # no file, or a damaged one: start from the first picture

    def measure(self, sources: Sequence[Source], result_of: Callable[[Source], Any], doing: str) -> None:
        """Add ``result_of`` every picture that can be read and has no result yet; processes of a run share them.

        Raises: UserError if no picture can be read.
        """
        state = [(self.results, self.skipped)]
        broadcast_object_list(state)
        self.results, self.skipped = state[0]
        left = [source for source in sources if source.name not in self.results and source.name not in self.skipped]
        if self.results and is_main_process():
            print(f"{doing}: resuming after {len(self.results)} of {len(sources)} pictures", file=sys.stderr)
        saved = time.monotonic()
        try:
            for source in with_progress(share(left), doing, whole=len(left)):
                if problem := problem_of(source.path, self.max_pixels):
                    self.skipped[source.name] = problem
                else:
                    try:
                        self.results[source.name] = result_of(source)
                    except UserError:
                        raise
                    except ValueError as error:  # such as a picture that is too small for the network
                        self.skipped[source.name] = one_line(str(error))
                if time.monotonic() - saved > SECONDS:
                    self._save()
                    saved = time.monotonic()
        finally:
            self._save()
        for results, skipped in all_gather_object((self.results, self.skipped)):
            self.results |= results
            self.skipped |= skipped
        self.skipped = {source.name: self.skipped[source.name] for source in sources if source.name in self.skipped}
        if not self.results:
            raise UserError(none_readable(self.skipped))

    def _save(self) -> None:
        write_text(self.path, json.dumps(dict(key=self.key, skipped=self.skipped, results=self.results)))


def progress_files(path: Path) -> list[Path]:
    """The file of the first process, and those of the others, of this run or an earlier one with more processes."""
    return [path, *sorted(path.parent.glob(f"{path.stem}.*{path.suffix}"))]


class PolicyRun:
    """A loaded network and what it does with pictures: its scores or exits, its boxes, its receptive fields.

    Args:
        options: config, checkpoint, and how the network gets pictures.
        threshold: confidence at which a picture leaves a network with several exits.
        progress: prefix of the files from which an interrupted run resumes.
        data: identifies the pictures, for these files.

    Attributes:
        options: as given.
        title: config and checkpoint, for the report.
        model: in eval mode.
        classes: their names, in the order of the model's outputs.
        classifies: whether the model predicts the class of a picture.
        table: what is measured of a picture; without rows.

    Raises: UserError if config, checkpoint and options do not fit each other.
    """

    def __init__(self, options: ModelOptions, threshold: float, progress: Path, data: str) -> None:
        self.options, self.progress, self.data = options, progress, data
        self.title = one_line(f"{Path(str(options.config)).stem}, {Path(options.checkpoint).name}")
        saved = read_checkpoint(options.checkpoint)
        config = config_of(options, saved.meta)
        self.classes, _ = classes_of(config, saved.meta)
        remarks = [use_components(config.model, saved)]
        own = Function.of(config)
        self.model: nn.Module = build_model(config, saved, options.device)
        remarks.append(check_function(self.model, own, saved, options.force, from_file=options.config is None))
        for remark in filter(None, remarks if is_main_process() else ()):
            print(one_line(remark), file=sys.stderr)
        self.pipeline: Compose = picture_pipeline(config)
        self.meter = PolicyMeter(self.model)
        self.classifies = class_name(config.model).endswith("ImageClassifier")
        exits = getattr(getattr(self.model, "head", None), "exits", ())
        if self.meter.blocks:
            self.table = Table("scale policy", self.meter.blocks)
        elif len(exits) > 1:
            self.table = Table("exits", tuple(f"exit {i + 1}" for i in range(len(exits))), threshold=threshold)
        else:
            self.table = Table("none", ())

    # ---- scores and exits
    def measure_all(self, sources: Sequence[Source], answers: bool) -> tuple[Table, dict[str, str]]:
        """The table of all pictures, and why others were skipped; an interrupted run resumes.

        Args:
            answers: also measure a classifier that has neither blocks nor exits, for its answers.
        """
        if not (self.table.columns or (self.classifies and answers)):
            return self.table, {}
        done = self._progress("")
        names, columns = {source.name for source in sources}, len(self.table.columns)
        rows = rows_of(list(done.results.values()), columns)
        done.results = {row.name: asdict(row) for row in rows if row.name in names}
        with self.meter if self.meter.blocks else nullcontext():
            done.measure(sources, lambda source: asdict(self._row(source)), "measuring")
        records = [done.results[source.name] for source in sources if source.name in done.results]
        rows = rows_of(records, columns)
        return Table(self.table.kind, self.table.columns, rows, self.table.threshold), done.skipped

    def _row(self, source: Source) -> Row:
        batch = self._batch(source)
        predicted, right, values = "", None, None
        with torch.no_grad():
            if self.classifies:
                (sample,) = self.model.test_step(batch)  # type: ignore[operator]
                labels = sample.pred_label.reshape(-1)
                if self.table.kind == "exits":
                    confidences, answers = sample.exit_scores.cpu().double().max(1)
                    values = confidences.tolist()
                    labels = answers[[leaving_exit(values, self.table.threshold)]]
                names = [self.classes[i] if i < len(self.classes) else str(i) for i in map(int, labels)]
                predicted = "; ".join(names)
                known = source.classes and set(source.classes) & set(self.classes)
                right = bool(set(names) & set(source.classes)) if known else None
            else:
                self.model.backbone(self._inputs(batch))  # type: ignore[operator,union-attr]
        scores = self.meter.take()[0].tolist() if self.meter.blocks else values or ()
        if not all(math.isfinite(score) for score in scores):
            raise UserError(f"{source.name}: the network's activations are not finite; did its training diverge?")
        return Row(source.name, tuple(scores), source.classes, source.sides, predicted, right)

    # ---- boxes
    def boxes(self, sources: Sequence[Source], skipped: dict[str, str]) -> dict[str, list[list[float]]]:
        """``[label, score, left, top, width, height]`` in px of every object of score 0.001 or more, by picture.

        Args:
            sources: the pictures.
            skipped: pictures that cannot be read, and why; further ones are added.

        Raises: UserError if the model predicts no boxes, or no picture can be read.
        """
        done = self._progress("_boxes")
        done.skipped |= skipped
        done.measure(sources, self._boxes, "predicting")
        skipped |= done.skipped
        return done.results

    def _boxes(self, source: Source) -> list[list[float]]:
        with torch.no_grad():
            (sample,) = self.model.test_step(self._batch(source))  # type: ignore[operator]
        objects = sample.get("pred_instances")
        if objects is None or "bboxes" not in objects:
            raise UserError(f"--compare: {self.title} predicts no boxes")
        objects = objects[objects.scores >= LEAST].cpu()
        corners = torch.as_tensor(getattr(objects.bboxes, "tensor", objects.bboxes)).double().reshape(-1, 4)
        boxes = torch.cat((corners[:, :2], corners[:, 2:] - corners[:, :2]), 1).tolist()
        rows = zip(objects.labels.tolist(), objects.scores.tolist(), boxes, strict=True)
        return [[label, score, *box] for label, score, box in rows]

    # ---- receptive fields
    def fields(self, sources: Sequence[Source], skipped: dict[str, str], count: int) -> list[ReceptiveField]:
        """Receptive fields, measured on the middle of the first ``count`` pictures that can be read.

        Args:
            sources: the pictures.
            skipped: pictures that cannot be read, and why; further ones are added.
            count: number of pictures.
        """
        pictures: list[Tensor] = []
        for source in sources:
            if len(pictures) == count:
                break
            if source.name in skipped:
                continue
            if problem := problem_of(source.path, self.options.max_pixels):
                skipped[source.name] = problem
            else:
                pictures.append(self._inputs(self._batch(source))[0])
        if not pictures:
            return []
        watch = partial(with_progress, doing="receptive fields")
        return measure(self.model.backbone, middles(pictures), watch=watch)  # type: ignore[arg-type]

    def _batch(self, source: Source) -> Any:
        sample = {"img_path": str(source.path), "img_id": 0}
        return user_fault("test pipeline", lambda: pseudo_collate([self.pipeline(sample)]))

    def _inputs(self, batch: Any) -> Tensor:
        preprocess: Any = self.model.data_preprocessor
        return preprocess(batch, False)["inputs"]

    # ---- interrupted runs
    def _progress(self, suffix: str) -> Progress:
        """Of one kind of result. Its key is a digest of the weights and of everything that is done with a picture."""
        digest = blake2b(digest_size=16)
        for value in self.model.state_dict().values():
            digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
        changes = sorted(self.options.cfg_options.items(), key=str)
        used = (self.table.columns, self.table.threshold, self.pipeline, self.classes, self.options.image_size, changes)
        digest.update(repr((self.data, *used)).encode())
        return Progress(self._progress_file(suffix), digest.hexdigest(), self.options.max_pixels)

    def _progress_file(self, suffix: str) -> Path:
        return self.progress.with_name(f"{self.progress.name}{suffix}.json")

    def forget_progress(self) -> None:
        """Delete the progress files, once everything is written."""
        for suffix in ("", "_boxes"):
            for file in progress_files(self._progress_file(suffix)):
                file.unlink(missing_ok=True)
