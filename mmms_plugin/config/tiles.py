"""``--tiles``: detectors that train, and predict, on tiles of large pictures.

``use_tiles`` changes the data sets of a config: those of evaluations end by `train.tiling.PackPicture`, whose tiles
`train.tiling.TilesHook` lets the model run on; those of training become `train.tiling.cut_into_tiles`. A config that
was saved with these parts works on tiles by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from mmms_plugin.config.edit import class_name, dicts_in, leaf_datasets
from mmms_plugin.errors import UserError
from mmms_plugin.options import CommandOptions, option
from mmms_plugin.tiles.rule import METHODS, METRICS, Rule

if TYPE_CHECKING:
    from mmengine.config import Config

GROUP = "tiles"  # heading of --help
Steps = list[dict[str, Any]]
PACK, HOOK, CUT, DATASET = "PackPicture", "TilesHook", "CutTile", "cut_into_tiles"
SMALLEST = 16  # px


@dataclass(frozen=True, kw_only=True)
class TileOptions(CommandOptions):
    """The user's wishes; without ``tiles``, whole pictures are used, or what the config says."""

    tiles: int | None = option(
        metavar="SIZE", least=SMALLEST, group=GROUP,
        help="for detectors: side in px of square tiles that pictures are cut into; evaluations and predictions merge "
        "what the tiles hold",
    )  # fmt: skip
    overlap: float = option(
        default=0.2, least=0, most=0.9, metavar="SHARE", group=GROUP,
        help="share of a tile that its neighbour shows too; larger objects may be cut everywhere",
    )  # fmt: skip
    merge: str = option(
        choices=METHODS, default=Rule.method, group=GROUP,
        help="what becomes of boxes of one class that match: nms keeps the best, greedy-nmm joins those that match it, "
        "nmm also those that match these",
    )  # fmt: skip
    match_metric: str = option(
        choices=METRICS, default=Rule.metric, group=GROUP,
        help="overlap of two boxes: iou is the intersection over the union, ios over the smaller box",
    )  # fmt: skip
    match_threshold: float = option(
        default=Rule.threshold, above=0, most=1, metavar="T", group=GROUP, help="overlap from which boxes match"
    )
    whole: bool = option(
        default=False, group=GROUP, help="in evaluations and predictions, use the whole picture as one more tile"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tiles is None:
            given = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
            if given:
                raise UserError(f"--{given[0].replace('_', '-')}: give the size of the tiles too, with --tiles SIZE")

    @property
    def words(self) -> list[str]:
        """As the command line has them."""
        words: list[str] = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                words += [f"--{field.name.replace('_', '-')}", *([] if value is True else [f"{value}"])]
        return words

    @property
    def rule(self) -> Rule:
        """Of the merging."""
        return Rule(self.merge, self.match_metric, self.match_threshold)


def use_tiles(config: Config, options: TileOptions, training: bool) -> list[str]:
    """Let a detector's config train and be evaluated on tiles; return remarks for the log.

    Args:
        config: changed in place; a config on tiles already gets these ones.
        options: with ``tiles``.
        training: whether the training data are used too.

    Raises:
        UserError: a pipeline does not begin by loading a picture, or does not end by packing.
    """
    for split in ("val", "test"):
        batch = (config.get(f"{split}_dataloader") or {}).get("batch_size", 1)
        for dataset in leaf_datasets(config.get(f"{split}_dataloader")):
            steps = dataset.get("pipeline") or []
            batch = steps[-1]["batch"] if steps and class_name(steps[-1]) == PACK else batch
            dataset["pipeline"] = tiled_pipeline(without_tiles(steps), options, batch, f"{split} data")
        if config.get(f"{split}_dataloader"):
            config[f"{split}_dataloader"]["batch_size"] = 1  # batches are those of tiles
    hooks = [hook for hook in config.get("custom_hooks") or () if class_name(hook) != HOOK]
    config.custom_hooks = [*hooks, dict(type=f"mmms_plugin.{HOOK}")]
    cut = ""
    if training:
        _cut_training(config, options)
        cut = "trained and "
    return [f"--tiles {options.tiles}: {cut}evaluated on tiles, merged by {options.merge} ({options.match_metric} >= "
               f"{options.match_threshold:g})"]  # fmt: skip


def _cut_training(config: Config, options: TileOptions) -> None:
    """Let the training data be tiles of pictures.

    Raises:
        UserError: a pipeline does not begin by loading a picture, or reads maps of segments.
    """
    settings = dict(size=options.tiles, overlap=options.overlap)
    if cut := [part for part in dicts_in(config.train_dataloader) if class_name(part) == DATASET]:
        for part in cut:
            part.update(settings)
        return
    for dataset in leaf_datasets(config.train_dataloader):
        steps = dataset.get("pipeline") or []
        check_loads(steps, "train data")
        if any(step.get("with_seg") for step in steps):
            raise UserError("--tiles: the training data have maps of segments (with_seg), which tiles do not cut")
        whole = {**dataset, "pipeline": [steps[0], dict(type=f"mmms_plugin.{CUT}"), *steps[1:]]}
        dataset.clear()
        dataset.update(type=f"mmms_plugin.{DATASET}", dataset=whole, **settings)


def check_loads(steps: Sequence[Mapping[str, Any]], where: str) -> None:
    """Raise UserError unless a pipeline begins by loading the picture."""
    if not steps or not class_name(steps[0]).startswith("Load") or "Annotations" in class_name(steps[0]):
        raise UserError(f"--tiles: the pipeline of the {where} must begin by loading the picture (LoadImageFromFile)")


def tiled_pipeline(steps: Sequence[Mapping[str, Any]], options: TileOptions, batch: int, where: str) -> Steps:
    """A test pipeline whose last step packs the whole picture for tiles, each of which runs through the others.

    Raises:
        UserError: see `use_tiles`.
    """
    check_loads(steps, where)
    if not class_name(steps[-1]).startswith("Pack"):
        raise UserError(f"--tiles: the pipeline of the {where} must end by packing (PackDetInputs)")
    annotations = [dict(step) for step in steps if "Annotations" in class_name(step)]
    of_tile = [dict(step) for step in steps[1:] if "Annotations" not in class_name(step)]
    pack = dict(type=f"mmms_plugin.{PACK}", pipeline=of_tile, batch=batch, **asdict(options))
    return [dict(steps[0]), *annotations, pack]


def without_tiles(steps: Sequence[Mapping[str, Any]]) -> Steps:
    """A test pipeline as it is without tiles."""
    if steps and class_name(steps[-1]) == PACK:
        return [*map(dict, steps[:-1]), *map(dict, steps[-1]["pipeline"])]
    return [*map(dict, steps)]


def tiles_of(config: Mapping[str, Any], options: TileOptions) -> tuple[TileOptions, int]:
    """The tiles that predictions use, of the options or else of the config, and how many run together.

    Args:
        config: of a model with test data.
        options: of the command line.
    """
    loader = config["test_dataloader"]
    last = (leaf_datasets(loader)[0].get("pipeline") or [{}])[-1]
    if class_name(last) != PACK:
        return options, loader.get("batch_size", 1)
    if options.tiles is not None:
        return options, last["batch"]
    own = {field.name: last[field.name] for field in fields(TileOptions) if field.name in last}
    return TileOptions(**own), last["batch"]
