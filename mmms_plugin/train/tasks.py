"""Classifiers, detectors and segmenters: what training and testing do differently for each.

``task_of`` is the only place that asks which of them a config is. A task knows the options that point a config at the
user's data, how predictions become files, and how pictures are drawn.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from mmms_plugin.compat.hosts import not_installed
from mmms_plugin.config.data import use_coco_dir, use_coco_labels, use_image_dir, use_label_tables, use_voc_dir
from mmms_plugin.config.edit import class_name, coco_metrics, dicts_in, evaluators, leaf_datasets
from mmms_plugin.data.layouts import CLASSES, COCO, FLAGS, NOUNS, SEGMENTATION, TABLE, kind_of
from mmms_plugin.data.own_data import OwnData, extras, refuse_foreign
from mmms_plugin.errors import UserError
from mmms_plugin.files import make_folder, written_whole
from mmms_plugin.processes import shell_line
from mmms_plugin.report.drawing import Style
from mmms_plugin.train.predictions import LOWEST_SCORE, ClassResults, ObjectResults, Results, SegmentResults

UseData = Callable[[dict[str, Any], OwnData], list[str]]


class Task(ABC):
    """One kind of model.

    Attributes:
        noun: its name in messages.
        needs: packages of its host.
        data_flags: the options for the user's own data, and the functions that change a config accordingly.
        kinds: of data sets that it trains on, for ``--data``.
        keeper: what keeps and draws the predictions of ``mmms predict``.
    """

    noun: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    data_flags: ClassVar[Mapping[str, UseData]]
    keeper: ClassVar[type[Results]]
    kinds: ClassVar[tuple[str, ...]]

    def check_installed(self) -> None:
        """Raise UserError if packages are missing; the message names them."""
        missing = [line for name in self.needs if (line := not_installed(name))]
        if missing:
            raise UserError(f"this config is a {self.noun}: {'; '.join(missing)}")

    def use_data(self, config: dict[str, Any], own: OwnData) -> list[str]:
        """Point all data sets, metrics and class counts of ``config`` at the user's data; return remarks for the log.

        Raises:
            UserError: the option belongs to another task, or the data do not fit.
        """
        flag = own.flag
        if own.any_layout:
            kind = kind_of(own, self.kinds)
            flag = FLAGS[kind]
            if kind not in self.kinds:
                wanted = " or ".join(NOUNS[name] for name in self.kinds)
                raise UserError(f"{own.where}: {NOUNS[kind]}; this config is a {self.noun}, whose data are {wanted}")
            refuse_foreign(extras(own), flag, f"{own.where}, {NOUNS[kind]}")
        if flag not in self.data_flags:
            usual = next(iter(self.data_flags))
            raise UserError(f"{flag}: this config is a {self.noun}, its data are given by {usual}")
        return self.data_flags[flag](config, own)

    def check_out(self, out: str) -> None:
        """Raise UserError if predictions cannot be written there: all but segmentation write a list in JSON."""
        if not out.endswith(".json"):
            raise UserError(f"--out {out}: predictions of a {self.noun} are JSON, give a name that ends in .json")
        with suppress(OSError), open(out, "rb") as file:
            if file.read(64).strip()[:1] not in (b"", b"["):
                raise UserError(
                    f"--out {out}: this file is not a list of predictions, which may be replaced; give another name"
                )

    @abstractmethod
    def keep_predictions(self, config: dict[str, Any], scratch: Path, out: str) -> None:
        """Let the test loop write its predictions to ``out``, or first to the temporary folder ``scratch``.

        Raises:
            UserError: the config has no metric that can write them.
        """

    def measured_by(self, config: dict[str, Any], out: str) -> str:
        """The command that measures predictions in ``out`` further, or ''."""
        return ""

    def finish_predictions(self, scratch: Path, out: str) -> None:  # noqa: B027 - most metrics write to ``out``
        """Move predictions from ``scratch`` to ``out``."""

    def draw_into(self, config: dict[str, Any], folder: Path) -> None:
        """Let the test loop draw the truth and the prediction of every picture into ``folder``."""
        hook = dict(type="mmms_plugin.DrawingHook", out_dir=str(folder))
        config["custom_hooks"] = [*(config.get("custom_hooks") or ()), hook]

    def report_sizes(self, config: dict[str, Any], folder: Path) -> None:
        """Let the test loop report accuracy by size into ``folder``.

        Raises:
            UserError: the task has no such report.
        """
        raise UserError(f"--size-report: this config is a {self.noun}, allowed are segmentation models")

    def check_tiles(self) -> None:
        """Raise UserError if the task's models do not run on tiles."""
        raise UserError(f"--tiles: this config is a {self.noun}; tiles are for detectors")

    def check_early_exit(self) -> None:
        """Raise UserError if the task's models have no early exits."""
        raise UserError(f"--budget and --risk: this config is a {self.noun}; classifiers exit early")

    @abstractmethod
    def least_score(self, score: float | None) -> float:
        """The lowest score of a prediction that counts.

        Args:
            score: the user's wish; None is the task's default.

        Raises:
            UserError: the task's predictions have no scores.
        """

    def results(self, out: Path, style: Style, draw: bool, score: float | None) -> Results:
        """The object that keeps and draws the predictions of ``mmms predict``.

        Args:
            out: folder for the results.
            style: names and colours of the classes.
            draw: whether to draw the pictures.
            score: as in ``least_score``.
        """
        return self.keeper(out, style, draw, self.least_score(score))


class Detection(Task):
    """Boxes and instance masks: mmdet, COCO annotations; predictions are one file of COCO results."""

    noun = "detector"
    needs = ("mmdet",)
    keeper = ObjectResults
    kinds: ClassVar[tuple[str, ...]] = (COCO,)
    data_flags: ClassVar[Mapping[str, UseData]] = {
        "--coco-dir": use_coco_dir,
        "--train-ann": use_coco_dir,
        "--val-ann": use_coco_dir,
    }

    def keep_predictions(self, config: dict[str, Any], scratch: Path, out: str) -> None:
        metrics = coco_metrics(config)
        if not metrics:
            raise UserError("--out: the config's test_evaluator has no metric that writes COCO JSON (CocoMetric)")
        metrics[0]["outfile_prefix"] = str(scratch / "predictions")

    def measured_by(self, config: dict[str, Any], out: str) -> str:
        truth = coco_metrics(config)[0].get("ann_file")
        return shell_line(["mmms", "size-ap", "--ann", str(truth), "--pred", out]) if truth else ""

    def finish_predictions(self, scratch: Path, out: str) -> None:
        """Use mmdet's results with masks, which include the boxes, if the model predicts masks."""
        masks = scratch / "predictions.segm.json"
        with written_whole(out) as temporary:
            shutil.copyfile(masks if masks.is_file() else scratch / "predictions.bbox.json", temporary)

    def check_tiles(self) -> None:
        """Every detector runs on tiles."""

    def report_sizes(self, config: dict[str, Any], folder: Path) -> None:
        raise UserError("--size-report: for a detector, keep predictions with --out FILE and run mmms size-ap on them")

    def least_score(self, score: float | None) -> float:
        return LOWEST_SCORE if score is None else score


class Classification(Task):
    """One class for each picture: mmpretrain, folders of pictures; predictions are one JSON file."""

    noun = "classifier"
    needs = ("mmpretrain", "torchvision")
    keeper = ClassResults
    kinds: ClassVar[tuple[str, ...]] = (CLASSES,)
    data_flags: ClassVar[Mapping[str, UseData]] = {"--image-dir": use_image_dir}

    def check_early_exit(self) -> None:
        """None is refused: thresholds that were chosen for another model are."""

    def keep_predictions(self, config: dict[str, Any], scratch: Path, out: str) -> None:
        metrics = [m for m in evaluators(config) if m["type"].endswith((".ClassMetric", ".LabelsMetric"))]
        if not metrics:
            raise UserError("--out: the config's test_evaluator has no mmms_plugin.ClassMetric or LabelsMetric")
        metrics[-1]["out_file"] = out

    def least_score(self, score: float | None) -> float:
        if score is not None:
            raise UserError("--score: a classifier keeps the scores of all classes")
        return 0.0


class MultiLabel(Classification):
    """Any number of classes for each picture: mmpretrain, with COCO's instances or tables as labels."""

    noun = "classifier for several labels"
    kinds: ClassVar[tuple[str, ...]] = (COCO, TABLE)
    data_flags: ClassVar[Mapping[str, UseData]] = {
        "--coco-dir": use_coco_labels,
        "--train-ann": use_coco_labels,
        "--val-ann": use_coco_labels,
        "--image-dir": use_label_tables,
    }

    def least_score(self, score: float | None) -> float:
        return 0.5 if score is None else score


class Segmentation(Task):
    """A class for each pixel: mmseg, folders of pictures and masks; predictions are a folder of PNG masks."""

    noun = "segmentation model"
    needs = ("mmseg",)
    keeper = SegmentResults
    kinds: ClassVar[tuple[str, ...]] = (SEGMENTATION,)
    data_flags: ClassVar[Mapping[str, UseData]] = {"--voc-dir": use_voc_dir}

    def check_out(self, out: str) -> None:
        """Masks are written to a folder; any name will do."""

    def keep_predictions(self, config: dict[str, Any], scratch: Path, out: str) -> None:
        make_folder(out)  # mmseg does so in the first process only, and others may write there before
        for metric in evaluators(config):
            metric["output_dir"] = out

    def report_sizes(self, config: dict[str, Any], folder: Path) -> None:
        """Replace mmseg's IoUMetric with the one that also counts regions by size."""
        metrics = [m for m in evaluators(config) if m["type"].endswith("IoUMetric")]
        if not metrics:
            raise UserError("--size-report: the config's test_evaluator has no IoUMetric")
        if not metrics[0]["type"].endswith("SizeIoUMetric"):
            metrics[0].update(type="mmms_plugin.SizeIoUMetric", bootstrap=metrics[0].get("bootstrap", 500))
        metrics[0]["report_dir"] = str(folder)

    def least_score(self, score: float | None) -> float:
        if score is not None:
            raise UserError("--score: a segmentation model has no scores, it gives every pixel one class")
        return 0.0


TASKS: tuple[Task, ...] = (MultiLabel(), Classification(), Detection(), Segmentation())


def task_of(config: dict[str, Any]) -> Task:
    """The task of a config, by its model and data sets."""
    multi_label, classification, detection, segmentation = TASKS
    loaders = [config.get(f"{split}_dataloader") for split in ("train", "val", "test")]
    if class_name(config.get("model") or {}).endswith("ImageClassifier"):
        types = [class_name(part) for part in dicts_in(loaders)]
        return multi_label if any(kind.endswith("MultiLabelDataset") for kind in types) else classification
    files = [str(dataset.get("ann_file", "")) for loader in loaders for dataset in leaf_datasets(loader)]
    return detection if any(file.endswith(".json") for file in files) else segmentation
