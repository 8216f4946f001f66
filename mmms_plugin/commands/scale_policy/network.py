"""One model of ``mmms scale-policy`` on many pictures: its scores or exits, its boxes, its receptive fields."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import Compose, pseudo_collate
from torch import Tensor, nn

from mmms_plugin.commands.scale_policy.pictures import Source
from mmms_plugin.commands.scale_policy.progress import Progress
from mmms_plugin.config.building import user_fault
from mmms_plugin.config.checkpoint import check_function, read_state_dict, use_components
from mmms_plugin.errors import UserError, one_line
from mmms_plugin.scale.policy.meter import PolicyMeter
from mmms_plugin.scale.policy.table import Row, Table, leaving_exit, rows_of
from mmms_plugin.scale.receptive_field import ReceptiveField, measure, middles
from mmms_plugin.train.options import ModelOptions
from mmms_plugin.train.predict import (
    build_model,
    classes_of,
    config_of,
    picture_pipeline,
    problem_of,
    with_progress,
)

LEAST = 0.001  # score of a box that is kept


class PolicyRun:
    """A loaded network.

    Attributes:
        options: what was loaded.
        title: config and checkpoint, for the report.
        model: in eval mode.
        classes: their names, in the order of the model's outputs.
        classifies: whether the model names the class of a picture.
        table: what is measured of a picture; without rows.

    Args:
        options: config, checkpoint, and how pictures are given to the model.
        threshold: confidence at which a picture leaves a network with several exits.
        progress: prefix of the files from which an interrupted run goes on.
        data: names the pictures, for these files.

    Raises: UserError if config, checkpoint and options do not fit each other.
    """

    def __init__(self, options: ModelOptions, threshold: float, progress: Path, data: str) -> None:
        self.options, self.progress, self.data = options, progress, data
        self.title = one_line(f"{Path(str(options.config)).stem}, {Path(options.checkpoint).name}")
        state, meta = read_state_dict(options.checkpoint)
        config = config_of(options, meta)
        self.classes, _ = classes_of(config, meta)
        remarks = [use_components(config.model, meta, options.checkpoint)]
        self.model: nn.Module = build_model(config, state, options.checkpoint, options.device)
        remarks.append(check_function(self.model, config.model, options.checkpoint, options.force))
        for remark in filter(None, remarks):
            print(one_line(remark), file=sys.stderr)
        self.pipeline: Compose = picture_pipeline(config)
        self.meter = PolicyMeter(self.model)
        self.classifies = str(config.model.get("type")).endswith("ImageClassifier")
        self.table = self._empty_table(threshold)

    def _empty_table(self, threshold: float) -> Table:
        if self.meter.blocks:
            return Table("scale policy", self.meter.blocks)
        exits = getattr(getattr(self.model, "head", None), "exits", None)
        if exits is not None and len(exits) > 1:
            return Table("exits", tuple(f"exit {i + 1}" for i in range(len(exits))), threshold=threshold)
        return Table("none", ())

    # ---- scores and exits
    def measure_all(self, sources: Sequence[Source], answers: bool) -> tuple[Table, dict[str, str]]:
        """The table of all pictures, and why others were skipped; goes on where an interrupted run stopped.

        Args:
            answers: also measure a classifier that has neither blocks nor exits, for its answers.
        """
        if not (self.table.columns or (self.classifies and answers)):
            return self.table, {}
        done = self._progress("")
        names, columns = {source.name for source in sources}, len(self.table.columns)
        done.found = {row.name: asdict(row) for row in rows_of(list(done.found.values()), columns) if row.name in names}
        with self.meter if self.meter.blocks else nullcontext():
            done.measure(sources, lambda source: asdict(self._row(source)), "measuring")
        order = [done.found[source.name] for source in sources if source.name in done.found]
        rows = rows_of(order, columns)
        return Table(self.table.kind, self.table.columns, rows, self.table.threshold), done.skipped

    def _row(self, source: Source) -> Row:
        batch = self._batch(source)
        predicted, right, values = "", None, None
        with torch.no_grad():
            if self.classifies:
                (sample,) = self.model.test_step(batch)  # type: ignore[operator]
                numbers = sample.pred_label.reshape(-1)
                if self.table.kind == "exits":
                    confidences, answers = sample.exit_scores.cpu().double().max(1)
                    values = confidences.tolist()
                    numbers = answers[[leaving_exit(values, self.table.threshold)]]
                labels = [self._class_name(int(label)) for label in numbers]
                predicted = "; ".join(labels)
                known = source.classes and set(source.classes) & set(self.classes)
                right = bool(set(labels) & set(source.classes)) if known else None
            else:
                self.model.backbone(self._inputs(batch))  # type: ignore[operator,union-attr]
        scores = self.meter.take()[0].tolist() if self.meter.blocks else values or ()
        if not all(math.isfinite(score) for score in scores):
            raise UserError(f"{source.name}: the network's activations are not finite; did its training diverge?")
        return Row(source.name, tuple(scores), source.classes, source.sides, predicted, right)

    def _class_name(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) else str(label)

    # ---- boxes
    def boxes(self, sources: Sequence[Source], skipped: dict[str, str]) -> dict[str, list[list[float]]]:
        """``[label, score, left, top, width, height]`` in px of every object of score 0.001 or more, by picture.

        Args:
            skipped: pictures that cannot be read, and why; those that are found here are added.
        Raises: UserError if the model predicts no boxes, or no picture can be read.
        """
        done = self._progress("_boxes")
        done.skipped |= skipped
        done.measure(sources, self._boxes, "predicting")
        skipped |= done.skipped
        return done.found

    def _boxes(self, source: Source) -> list[list[float]]:
        with torch.no_grad():
            (sample,) = self.model.test_step(self._batch(source))  # type: ignore[operator]
        found = sample.get("pred_instances")
        if found is None or "bboxes" not in found:
            raise UserError(f"--compare: {self.title} predicts no boxes")
        found = found[found.scores >= LEAST].cpu()
        corners = torch.as_tensor(getattr(found.bboxes, "tensor", found.bboxes)).double().reshape(-1, 4)
        sizes = corners[:, 2:] - corners[:, :2]
        each = zip(found.labels.tolist(), found.scores.tolist(), corners[:, :2].tolist(), sizes.tolist(), strict=True)
        return [[label, score, *corner, *size] for label, score, corner, size in each]

    # ---- receptive fields
    def fields(self, sources: Sequence[Source], skipped: dict[str, str], count: int) -> list[ReceptiveField]:
        """Receptive fields, measured on the middle of the first ``count`` pictures that can be read.

        Args:
            skipped: pictures that cannot be read, and why; those that are found here are added.
        """
        pictures: list[Tensor] = []
        for source in sources:
            if len(pictures) == count:
                break
            if source.name in skipped:
                continue
            if problem := problem_of(source.path):
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
        return Progress(self._progress_file(suffix), self._key())

    def _progress_file(self, suffix: str) -> Path:
        return self.progress.with_name(f"{self.progress.name}{suffix}.json")

    def forget_progress(self) -> None:
        """Delete the files of an interrupted run: everything is written."""
        for suffix in ("", "_boxes"):
            self._progress_file(suffix).unlink(missing_ok=True)

    def _key(self) -> str:
        """Of the weights and of everything that is done with a picture."""
        digest = blake2b(digest_size=16)
        for value in self.model.state_dict().values():
            digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
        changes = sorted(self.options.cfg_options.items(), key=str)
        used = (self.table.columns, self.table.threshold, self.pipeline, self.classes, self.options.image_size, changes)
        digest.update(repr((self.data, *used)).encode())
        return digest.hexdigest()
