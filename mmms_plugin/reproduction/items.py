"""What an item of the index is: a table or figure of a source, and the trainings that make it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from mmms_plugin.config.facts import Facts
from mmms_plugin.processes import shell_line

GPU_MACS = 5e12  # multiply-adds per second of one GPU in training; a V100 trains ResNet-50 with about this
PASSES = 3  # a training step costs the forward pass and, for the gradients, twice as much


@dataclass(frozen=True)
class DataSet:
    """Data that a training needs.

    Attributes:
        name: as the sources call it.
        pictures: for training, per epoch.
        flag: option of ``mmms train`` that takes the folder of generated data in its place.
        side: of the generated pictures' input in px, for a smoke run.
        small: options of the config that make a smoke run cheap.
    """

    name: str
    pictures: int
    flag: str
    side: int
    small: Mapping[str, Any] = field(default_factory=dict)


IMAGENET = DataSet("ImageNet (ILSVRC 2012)", 1_281_167, "image_dir", 64)
CIFAR100 = DataSet("CIFAR-100", 50_000, "image_dir", 32)
# Heads that see the recipe's 1,000 proposals of a picture take most of a smoke run's time.
FEW = dict.fromkeys(
    (f"model.{part}.max_per_img" for part in ("train_cfg.rpn_proposal", "test_cfg.rpn", "test_cfg.rcnn")), 10
)
COCO = DataSet("COCO 2017", 117_266, "coco_dir", 64, FEW)
COCO_LABELS = DataSet("COCO 2014", 82_783, "coco_dir", 64)
VOC = DataSet("VOC 2012 with SBD's masks", 10_582, "voc_dir", 65)


@dataclass(frozen=True)
class Measure:
    """A column of figures.

    Attributes:
        title: of the column.
        metric: name of the logged metric; empty where another command measures.
        scale: factor that makes the published unit of it.
        error: show what is missing to 100.
        digits: decimals to show.
    """

    title: str
    metric: str = ""
    scale: float = 1
    error: bool = False
    digits: int = 2

    @property
    def form(self) -> str:
        """Format of the figures."""
        return f".{self.digits}f"

    def figure(self, metrics: Mapping[str, float | None]) -> float | None:
        """The column's figure; None if it was not measured."""
        value = metrics.get(self.metric)
        if value is None:
            return None
        return 100 - value * self.scale if self.error else value * self.scale


@dataclass(frozen=True)
class Row:
    """A row of a table, or a point of a figure.

    Attributes:
        name: as the source has it.
        published: figures of the source, one per measure; text where it adds a deviation, None where it has none.
        config: that ``mmms train`` takes; empty for rivals that the source quotes and the package does not have.
        options: of ``--cfg-options``.
    """

    name: str
    published: tuple[float | str | None, ...]
    config: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cells(self) -> list[float | str]:
        """The published figures, a dash where there is none."""
        return ["–" if value is None else value for value in self.published]

    @property
    def folder(self) -> str:
        """Name of the work folder; the same training has the same folder in every item."""
        parts = [PurePosixPath(self.config.replace("::", "/")).stem]
        parts += [f"{key.rpartition('.')[2]}_{value}" for key, value in self.options.items()]
        return "-".join(re.sub(r"[^a-zA-Z0-9.]+", "_", part).strip("_") for part in parts)

    @property
    def cfg_options(self) -> list[str]:
        """The options as words of a command."""
        return [f"{key}={value}".replace(" ", "") for key, value in self.options.items()]


@dataclass(frozen=True)
class Item:
    """A table or figure that trainings make, or another command.

    Attributes:
        name: as ``mmms reproduce`` takes it.
        source: the paper or article.
        number: 'Table 1'.
        title: what it shows, in a line.
        data: that every training needs; None if there is no training.
        epochs: of every training.
        measures: the columns.
        rows: the trainings, or what the command measures.
        remark: what differs from the source, or what the source leaves open.
        command: of an item without trainings, the words behind ``mmms``.
        smoke: words to add to it for a smoke run.
    """

    name: str
    source: str
    number: str
    title: str
    data: DataSet | None
    epochs: int
    measures: tuple[Measure, ...]
    rows: tuple[Row, ...]
    remark: str = ""
    command: tuple[str, ...] = ()
    smoke: tuple[str, ...] = ()

    def commands(self, folder: str = "work_dirs") -> list[str]:
        """The commands that make the item: its own, or one for each row that the package has."""
        lines = [shell_line(["mmms", *self.command])] if self.command else []
        for row in self.rows:
            if row.config:
                words = ["mmms", "train", row.config, "--work-dir", f"{folder}/{row.folder}"]
                lines.append(shell_line([*words, *(["--cfg-options", *row.cfg_options] if row.options else [])]))
        return lines

    def gpu_hours(self, facts: Mapping[str, Facts]) -> float | None:
        """Of all trainings, estimated from the multiply-adds of the configs.

        Rows of a host's configs count as the others' mean.

        Returns:
            None if no config was measured, 0 without trainings.
        """
        if self.data is None:
            return 0
        configs = [row.config for row in self.rows if row.config]
        macs = [facts[name].macs for name in configs if name in facts]
        if not macs:
            return None
        steps = self.data.pictures * self.epochs * PASSES
        return sum(macs) / len(macs) * len(configs) * steps / GPU_MACS / 3600
