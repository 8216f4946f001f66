"""Options of training, evaluation and prediction; see ``mmms train --help`` and the like."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmms_plugin.config.files import find_config
from mmms_plugin.config.image_size import parse_image_size
from mmms_plugin.config.schedule import ScheduleOptions
from mmms_plugin.config.techniques import TechniqueOptions
from mmms_plugin.config.tiles import TileOptions
from mmms_plugin.data.own_data import AnyDataOptions, OwnData, PictureOptions, PixelOptions, extras, refuse_foreign
from mmms_plugin.errors import UserError, printable
from mmms_plugin.files import checkpoint_file
from mmms_plugin.options import HIDDEN, REQUIRED, CommandOptions, nested, option, positional
from mmms_plugin.weights.fetch import check_place

DATA, CONFIG, WEIGHTS, RUN, OUTPUT = "data", "config", "weights", "run", "output"  # headings of --help
SPLITS = ("train", "val", "test")
NO_WEIGHTS, NEWEST = "none", "auto"  # values of --pretrained and --resume
# A value with dict(...) or {key: ...}; not a template such as iter_{:06d}.pth
DICTIONARY = re.compile(r"dict\(|(?:^|[\[(,=:])\s*\{(?:\s*\}|[^{}:]+:.*[\])}]\s*$)", re.DOTALL)


def parse_cfg_options(items: Sequence[str]) -> dict[str, Any]:
    """``['a.b=1', 'c=[1,2]', 'd=[dict(e=1)]']`` as a dict.

    Values are read as mmengine reads them, and those with dictionaries, which it does not know, as Python.
    """
    if not items:
        return {}
    from mmengine.config import DictAction

    options = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals:
            raise UserError(f"--cfg-options {printable(item)}: expected KEY=VALUE")
        try:
            options[key] = _read_python(text) if DICTIONARY.search(text) else DictAction._parse_iterable(text)
        except (SyntaxError, ValueError, AssertionError, RecursionError, MemoryError) as error:
            raise UserError(
                f"--cfg-options {printable(item)}: cannot be read; allowed are numbers, texts, True, False, None, and "
                "of these [lists], (tuples) and dict(KEY=VALUE)"
            ) from error
    return options


def _read_python(text: str) -> Any:
    """A value written in Python, of constants, lists, tuples, dictionaries and names, which are texts."""
    from mmengine.config import DictAction

    def value(node: ast.AST) -> Any:
        match node:
            case ast.List(elts=parts):
                return [value(part) for part in parts]
            case ast.Tuple(elts=parts):
                return tuple(value(part) for part in parts)
            case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords) if all(k.arg for k in keywords):
                return {str(keyword.arg): value(keyword.value) for keyword in keywords}
            case ast.Dict(keys=keys, values=values):
                names = [value(key) if key else None for key in keys]  # None: of **another
                if not all(isinstance(name, str) for name in names):
                    raise ValueError("keys that are not texts")
                return dict(zip(names, map(value, values), strict=True))
            case ast.Name() | ast.Attribute():  # EMAHook, mmms_plugin.ShapeAdaptorHook; true, nan
                return DictAction._parse_int_float_bool(ast.unparse(node))
        return ast.literal_eval(node)  # type: ignore[arg-type]

    return value(ast.parse(text.strip(), mode="eval").body)


def _check_pretrained(place: str) -> None:
    if place == NO_WEIGHTS:
        return
    try:
        check_place(place)
    except UserError as error:
        raise UserError(f"--pretrained {error}; --pretrained {NO_WEIGHTS} starts from random weights") from None


def _check_resume(file: str) -> None:
    if file != NEWEST and not Path(file).is_file():
        raise UserError(f"--resume {file}: no such file")


@dataclass(kw_only=True)
class ConfigOptions(CommandOptions):
    """Changes to a config. ``image_size`` is (width, height)."""

    image_size: tuple[int, int] | None = option(
        metavar="SIZE", reader=parse_image_size, group=CONFIG,
        help="picture size in px, a side or WIDTHxHEIGHT, such as 640 or 1333x800; crops, resizing and padding change "
        "in proportion (default: "
        "the config's)",
    )  # fmt: skip
    cfg_options: Mapping[str, Any] = option(
        nargs="+", metavar="KEY=VALUE", default={}, reader=parse_cfg_options, group=CONFIG,
        help="override values of the config, such as optim_wrapper.optimizer.lr=0.01 or "
        "custom_hooks=[dict(type=EMAHook)]",
    )  # fmt: skip


@dataclass(kw_only=True)
class FolderOptions(AnyDataOptions):
    """Where the user's own data lie."""

    coco_dir: str | None = option(
        metavar="DIR", group=DATA,
        help="folder with pictures and COCO annotations, in place of the config's data: "
        "annotations/instances_{train,val}.json and images/, or an export of Roboflow, CVAT or Label Studio; also sets "
        "the classes",
    )  # fmt: skip
    voc_dir: str | None = option(
        "--voc-dir", "--seg-dir", metavar="DIR", group=DATA,
        help="folder with pictures and masks, in place of a segmentation config's data: as in VOC2012, or images/ and "
        "masks/; labels.txt names the classes, background first",
    )  # fmt: skip
    image_dir: str | None = option(
        metavar="DIR", group=DATA,
        help="folder with pictures in train/<class>/ and val/<class>/, or, for several labels, beside "
        "train/_classes.csv and valid/_classes.csv, in place of a classification config's data; also sets the classes",
    )  # fmt: skip
    train_ann: str | None = option(
        metavar="FILE", group=DATA, help="COCO annotations for training, in place of those in --coco-dir"
    )
    val_ann: str | None = option(
        metavar="FILE", group=DATA, help="COCO annotations for validation, in place of those in --coco-dir"
    )


@dataclass(kw_only=True)
class DataOptions(PictureOptions, FolderOptions):
    """The user's own data, in place of a config's; ``split`` is the part that an evaluation uses."""

    val_split: float = option(
        default=0.0, metavar="SHARE", group=DATA,
        help="share of the training pictures to hold back for validation, such as 0.2; the same pictures in every run "
        "(default: 0)",
    )  # fmt: skip
    split_seed: int = option(default=0, metavar="N", group=DATA, help="random seed for --val-split")
    split: str = "val"

    def check_files(self) -> None:
        super().check_files()
        self.own_data("", training=True)

    def own_data(self, work_dir: str, training: bool) -> OwnData | None:
        """The user's own data, or None if the config's are used.

        Args:
            work_dir: folder for mended copies of annotation files.
            training: whether the training data are used too.

        Raises:
            UserError: options contradict each other, or name files that do not exist.
        """
        flags = {
            "--data": self.data, "--coco-dir": self.coco_dir, "--voc-dir": self.voc_dir, "--image-dir": self.image_dir
        }  # fmt: skip
        folders = {flag: folder for flag, folder in flags.items() if folder}
        if len(folders) > 1:
            raise UserError(f"{' and '.join(folders)}: give one of them")
        files = {"--train-ann": self.train_ann, "--val-ann": self.val_ann}
        flag = next((flag for flag, value in (folders | files).items() if value), None)
        given = extras(self)
        if flag is None:
            others = {"--val-split": self.val_split, "--split test": self.split != "val"}
            if given := [*given, *(name for name, value in others.items() if value)]:
                raise UserError(
                    f"{given[0]}: name the data too, with --data, --coco-dir, --voc-dir, --image-dir or --train-ann"
                )
            return None
        if flag != "--data":
            refuse_foreign(given, flag, flag)
        paths = dict(folder=folders.get(flag), train_ann=self.train_ann, val_ann=self.val_ann, img_dir=self.img_dir)
        return OwnData(
            flag, **{name: Path(path) if path else None for name, path in paths.items()}, work_dir=Path(work_dir),
            val_split=self.val_split, split_seed=self.split_seed, split=self.split, training=training,
            binary_masks=self.binary_masks, ignore_label=self.ignore_label, max_pixels=self.max_pixels,
        )  # fmt: skip


@dataclass(kw_only=True)
class DeviceOptions(CommandOptions):
    """Where a network runs."""

    device: str | None = option(
        metavar="D", group=RUN, help="device: cpu, cuda, cuda:1, mps, ... (default: cuda if available, otherwise cpu)"
    )


@dataclass(kw_only=True)
class LauncherOptions(DeviceOptions):
    """A run that several processes share."""

    launcher: str = option(
        choices=["none", "pytorch", "slurm", "mpi"], default="none", group=RUN,
        help="launcher that started the processes of a distributed run",
    )  # fmt: skip
    local_rank: int = option("--local_rank", "--local-rank", default=0, help=HIDDEN)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.device is not None and self.launcher != "none":
            raise UserError(
                f"--device {self.device}: with --launcher every process has the device of its local rank; leave it out"
            )


@dataclass(kw_only=True)
class LaunchOptions(LauncherOptions, ConfigOptions, DataOptions):
    """What training and evaluating a config have in common."""

    config: str = positional(
        exists=find_config,
        help="config file, a name that `mmms configs` lists, or a host's config such as "
        "mmdet::retinanet/retinanet_r50_fpn_1x_coco. A config is Python code and is run: use only configs that you "
        "trust",
    )
    seed: int | None = option(
        group=RUN, help="random seed; with it, deterministic algorithms are used (default: the config's)"
    )
    channels_last: bool = option(
        default=False, group=RUN, help="use the NHWC memory format, which is faster with AMP on GPUs"
    )
    workers: int | None = option(
        metavar="N", least=0, group=RUN,
        help="processes that load pictures, for each process of the run; 0 loads them in the run itself (default: the "
        "config's)",
    )  # fmt: skip
    work_dir: str | None = option(
        metavar="DIR", group=OUTPUT,
        help="folder for logs and checkpoints; evaluations write into its sub-folder test (default: work_dirs/CONFIG)",
    )  # fmt: skip
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    techniques: TechniqueOptions = field(default_factory=TechniqueOptions)
    tiling: TileOptions = field(default_factory=TileOptions)


@dataclass(kw_only=True)
class TrainOptions(LaunchOptions):
    """Options of ``mmms train``.

    Attributes:
        resume: a checkpoint, or "auto" for the newest one in the work folder.
        words: the options as they were given on the command line.
    """

    words: tuple[str, ...] = ()
    schedule: ScheduleOptions = nested(ScheduleOptions)
    techniques: TechniqueOptions = nested(TechniqueOptions)
    tiling: TileOptions = nested(TileOptions)
    pretrained: str | None = option(
        metavar="FILE", exists=_check_pretrained, group=WEIGHTS,
        help="initial weights, of this or another project: a file, http(s)://HOST/FILE or hf://OWNER/NAME[/FILE]: "
        "they must fill the backbone, neck and heads take what fits; none for random weights (default: the config's)",
    )  # fmt: skip
    resume: str | None = option(
        nargs="?", const=NEWEST, metavar="FILE", exists=_check_resume, group=WEIGHTS,
        help="continue an interrupted training from FILE, or without FILE from the newest checkpoint in the work "
        "folder, with the schedule of this command",
    )  # fmt: skip
    amp: bool = option(default=False, group=RUN, help="train with automatic mixed precision, on GPUs")
    samples: int = option(
        default=4, least=0, metavar="N", group=OUTPUT,
        help="pictures of the validation to draw after each evaluation, with predictions beside the truth, into "
        "WORK_DIR/samples; 0 draws none",
    )  # fmt: skip
    auto_scale_lr: bool = option(
        default=False,
        group="schedule",
        help="scale the learning rate with the batch size, by the config's auto_scale_lr",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.auto_scale_lr and self.schedule.lr is not None:
            raise UserError("--auto-scale-lr and --lr: give one of them")


@dataclass(kw_only=True)
class InferenceOptions(CommandOptions):
    """How a trained model runs."""

    optimize: bool = option(
        "--no-optimize", default=True, group=RUN,
        help="run the network as it was trained; by default, on a CPU, batch norms are folded into convolutions, which "
        "is faster and changes results by rounding only",
    )  # fmt: skip


@dataclass(kw_only=True)
class EvaluateOptions(InferenceOptions, LaunchOptions):
    """An evaluation of a checkpoint.

    Attributes:
        out: where to write predictions: a JSON file for detectors, a folder of label PNGs for segmenters.
        show_dir: folder for pictures with predictions beside the ground truth.
        size_report: folder for IoU by region size, for segmenters.
        exit_budget: average million multiply-adds per picture, for classifiers with several exits.
        exit_risk: share of the pictures by which early exit may lower accuracy.
        force: evaluate a checkpoint that was trained as another function of the same weights, with a warning.
    """

    checkpoint: str = positional(exists=checkpoint_file, help="checkpoint file to evaluate")
    split: str = option(choices=SPLITS, default="val", group=DATA, help="split of the data to evaluate")
    out: str | None = None
    show_dir: str | None = None
    size_report: str | None = None
    exit_budget: float | None = None
    exit_risk: float | None = None
    force: bool = option(
        default=False, group=WEIGHTS,
        help="evaluate a checkpoint that was trained as another function, such as with other anchors, strides or "
        "dilations than the config's; refused otherwise",
    )  # fmt: skip


@dataclass(kw_only=True)
class ModelOptions(DeviceOptions, ConfigOptions, PixelOptions):
    """A trained model that runs on single pictures.

    Attributes:
        config: a config's file or name; None for the checkpoint's own, if ``trust_checkpoint_config``.
        checkpoint: file with the weights.
        trust_checkpoint_config: run the config that is saved in the checkpoint.
    """

    config: str | None = None
    checkpoint: str = ""
    trust_checkpoint_config: bool = False
    force: bool = option(
        default=False, group=WEIGHTS,
        help="use a checkpoint that was trained as another function, such as with other anchors, strides or dilations "
        "than the config's; refused otherwise",
    )  # fmt: skip

    def check_files(self) -> None:
        super().check_files()
        checkpoint_file(self.checkpoint)
        if self.config is not None:
            find_config(self.config)


@dataclass(kw_only=True)
class PredictorOptions(ModelOptions):
    """A trained model that runs on single pictures, perhaps on their tiles."""

    tiling: TileOptions = nested(TileOptions)


@dataclass(kw_only=True)
class ScoreOptions(CommandOptions):
    """Which of a model's objects are kept, by their scores."""

    score: float | None = option(
        metavar="S", least=0, most=1, group=OUTPUT,
        help="for detectors: lowest score of the objects that are kept and drawn (default: 0.3); with a low one, "
        "drawing takes most of the time, which --no-draw saves",
    )  # fmt: skip
    calibration: Path | None = option(
        metavar="FILE", group=OUTPUT,
        help="for detectors: turn scores into probabilities by the maps that mmms size-ap --calibration --out fitted "
        "for each size; --thresholds and --score are then of these",
    )  # fmt: skip
    thresholds: Path | None = option(
        metavar="FILE", group=OUTPUT,
        help="for detectors: keep objects by the scores that mmms size-ap --thresholds --out found for their class and "
        "size (default: --score alone; --score is then 0 unless given)",
    )  # fmt: skip

    def check_files(self) -> None:
        super().check_files()
        if self.calibration or self.thresholds:
            from mmms_plugin.size_ap.score_files import read_both

            read_both(self.calibration, self.thresholds)


@dataclass(kw_only=True)
class PredictOptions(LauncherOptions, InferenceOptions, PredictorOptions, ScoreOptions):
    """Options of ``mmms predict``; ``inputs`` are pictures, folders and patterns."""

    inputs: Sequence[str] = ()
    out: Path = option(
        metavar="DIR", default=REQUIRED, group=OUTPUT, help="folder for predictions.json or masks/, and for drawn/"
    )
    labels: bool = option(default=True, group=OUTPUT, help="write names and scores beside objects")
    draw: bool = option(default=True, group=OUTPUT, help="draw the pictures into DIR/drawn")
    trust_checkpoint_config: bool = option(
        default=False, group=WEIGHTS,
        help="use the config saved in the checkpoint. A config is Python code and is run: only for checkpoints that "
        "you trust",
    )  # fmt: skip
