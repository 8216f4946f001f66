"""What an item of the index is: a table or figure of a source, and the trainings that make it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from mmms_plugin.config.facts import Facts
from mmms_plugin.processes import shell_line

GPU_MACS = 5e12  # multiply-adds per second of one GPU in training; a V100 trains ResNet-50 with about this
PARAMS, MACS = "cost/params", "cost/macs"  # of measures that need no training
WORK_DIRS = "{work_dirs}"  # a word of ``Item.after``
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
        folder: that the commands name; empty where the config has one of its own.
        last: name of a training's last checkpoint.
        apart: name the work folders after the data set too, because its config serves several.
    """

    name: str
    pictures: int
    flag: str
    side: int
    small: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""
    last: str = "epoch_{epochs}.pth"
    apart: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """The folder as words of a command."""
        return (f"--{self.flag.replace('_', '-')}", self.folder) if self.folder else ()


IMAGENET = DataSet("ImageNet (ILSVRC 2012)", 1_281_167, "image_dir", 64)
CIFAR10 = DataSet("CIFAR-10", 50_000, "image_dir", 32, folder="data/cifar10")
CIFAR100 = DataSet("CIFAR-100", 50_000, "image_dir", 32, folder="data/cifar100")
SVHN = DataSet("SVHN", 73_257, "image_dir", 32, folder="data/svhn")
AIRCRAFT = DataSet("FGVC-Aircraft", 6_667, "image_dir", 64)
# Heads that see the recipe's 1,000 proposals of a picture take most of a smoke run's time.
FEW = dict.fromkeys(
    (f"model.{part}.max_per_img" for part in ("train_cfg.rpn_proposal", "test_cfg.rpn", "test_cfg.rcnn")), 10
)
COCO = DataSet("COCO 2017", 117_266, "coco_dir", 64, FEW)
COCO_LABELS = DataSet("COCO 2014", 82_783, "coco_dir", 64, folder="data/coco2014")
VOC = DataSet("VOC 2012 with SBD's masks", 10_582, "voc_dir", 65, last="iter_33100.pth")


@dataclass(frozen=True)
class Measure:
    """A column of figures.

    Attributes:
        title: of the column.
        metric: name of the logged metric, where {} is the row's part; empty where another command measures. `PARAMS`
            and `MACS` are counted without a training.
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

    @property
    def counted(self) -> bool:
        """Whether it needs no training."""
        return self.metric in (PARAMS, MACS)

    def figure(self, metrics: Mapping[str, float | None], part: str = "") -> float | None:
        """The column's figure; None if it was not measured.

        Args:
            metrics: of a training.
            part: of the row.
        """
        value = metrics.get(self.metric.format(part))
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
        layer: in place of a config, a layer of `scale.pyramids`.
        part: of a metric's name, in a table of improvements: a picture size, or sizes of objects.
    """

    name: str
    published: tuple[float | str | None, ...]
    config: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    layer: str = ""
    part: str = ""

    @property
    def cells(self) -> list[float | str]:
        """The published figures, a dash where there is none."""
        return ["–" if value is None else value for value in self.published]

    @property
    def folder(self) -> str:
        """Name of the work folder; the same training has the same folder in every item."""
        parts = [self.layer or "-".join(PurePosixPath(self.config.replace("::", "/")).with_suffix("").parts)]
        parts += [f"{key.rpartition('.')[2]}_{value}" for key, value in self.options.items()]
        return "-".join(re.sub(r"[^a-zA-Z0-9.-]+", "_", part).strip("_") for part in parts)

    @property
    def cfg_options(self) -> list[str]:
        """The options as words of a command."""
        return [f"{key}={value}".replace(" ", "") for key, value in self.options.items()]

    @property
    def flops_options(self) -> list[str]:
        """The options as ``mmms flops`` takes them."""
        words = [word.removeprefix("model.backbone.") for word in self.cfg_options]
        return ["--cfg-options", *words] if words else []


class Trained(NamedTuple):
    """A training, as the commands that follow it name it."""

    config: str
    folder: str
    checkpoint: str
    work_dir: str


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
        smoke: options of a smoke run, in place of those in ``command`` and ``after``, as words; {pictures} is the
            generated data set.
        after: commands once the trainings are done, as words; {0.config}, {0.checkpoint} and {0.folder} are the first
            training's, {out} is the folder for results, and {work_dirs} are the work folders of all.
        compared: two trainings; the rows have the relative improvement of the second over the first, in per cent.
        figure: how ``mmms reproduce --out`` draws the table, a name in ``commands.reproduce_figures``.
        best: the figures are those of the training's best epoch, by the first measure that is logged.
        seeds: number of trainings of each row; the figures are their mean and standard deviation.
        smoke_rows: number of rows of a smoke run; None for all.
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
    after: tuple[tuple[str, ...], ...] = ()
    compared: tuple[Row, Row] | None = None
    figure: str = ""
    best: bool = False
    seeds: int = 1
    smoke_rows: int | None = None

    @property
    def counted(self) -> bool:
        """Whether no figure needs a training or the item's command."""
        return bool(self.measures) and all(measure.counted for measure in self.measures)

    @property
    def trainings(self) -> tuple[Row, ...]:
        """The rows that are trained, each training once."""
        if self.data is None:
            return ()
        rows = self.compared or (row for row in self.rows if row.config)
        return tuple({row.folder: row for row in rows}.values())

    def folders(self, row: Row) -> list[str]:
        """Names of the work folders of a training, one for each seed; the first is that of items with one training."""
        name = row.folder
        if self.data is not None and self.data.apart:
            name += f"-{PurePosixPath(self.data.folder).name}"
        return [name, *(f"{name}-seed_{seed}" for seed in range(1, self.seeds))]

    def commands(self, folder: str = "work_dirs") -> list[str]:
        """The commands that make the item, with work folders and results below ``folder``."""
        lines = [["mmms", *self.command]] if self.command else []
        data = () if self.data is None else self.data.words
        for row in self.trainings:
            for seed, name in enumerate(self.folders(row)):
                words = ["mmms", "train", row.config, *data, "--work-dir", f"{folder}/{name}"]
                words += ["--seed", str(seed)] if self.seeds > 1 else []
                lines.append([*words, *(["--cfg-options", *row.cfg_options] if row.options else [])])
        last = "" if self.data is None else self.data.last.format(epochs=self.epochs)
        trained = [
            Trained(row.config, row.folder, f"{path}/{last}", path)
            for row in self.trainings
            for path in [f"{folder}/{self.folders(row)[0]}"]
        ]
        lines += [["mmms", *words] for words in self.filled(self.after, trained, f"{folder}/{self.name}")]
        if not lines:
            lines = [["mmms", "flops", row.config, *row.flops_options] for row in self.rows if row.config]
        return [shell_line(words) for words in lines]

    def small(self, words: Sequence[str]) -> list[str]:
        """A command with the options of a smoke run in place of its own."""
        kept: list[str] = []
        dropped = False
        for word in words:
            dropped = word in self.smoke if word.startswith("--") else dropped
            kept += [] if dropped else [word]
        return [*kept, *self.smoke]

    def filled(
        self, commands: Sequence[Sequence[str]], trained: Sequence[Trained], out: str, pictures: str = ""
    ) -> list[list[str]]:
        """Commands with names of files and configs in place of those in braces, without those of rows left out."""
        places = [f"{{{number}." for number in range(len(trained), len(trained) + len(commands))]
        commands = [words for words in commands if not any(place in word for place in places for word in words)]
        work_dirs = [training.work_dir for training in trained]
        return [
            list(chain.from_iterable(
                work_dirs if word == WORK_DIRS else [word.format(*trained, out=out, pictures=pictures)]
                for word in words
            ))
            for words in commands
        ]  # fmt: skip

    def gpu_hours(self, facts: Mapping[str, Facts]) -> float | None:
        """Of all trainings, estimated from the multiply-adds of the configs.

        Rows of a host's configs count as the others' mean.

        Returns:
            None if no config was measured, 0 without trainings.
        """
        if self.data is None:
            return 0
        macs = [facts[row.config].macs for row in self.trainings if row.config in facts]
        if not macs:
            return None
        steps = self.data.pictures * self.epochs * self.seeds * PASSES
        return sum(macs) / len(macs) * len(self.trainings) * steps / GPU_MACS / 3600
