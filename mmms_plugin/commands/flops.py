"""Count parameters and multiply-adds of a backbone.

The backbone is given by its registered name or by a config. With --table, compares the tables of a paper with measured
figures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from mmms_plugin.config.edit import class_name
from mmms_plugin.config.files import find_config
from mmms_plugin.errors import UserError, first_line
from mmms_plugin.files import write_text
from mmms_plugin.options import CommandOptions, option, positional
from mmms_plugin.report.tables import Cell, Column, Table, Value
from mmms_plugin.train.options import parse_cfg_options

if TYPE_CHECKING:
    from mmms_plugin.reproduction.costs import Counted

NOTE = (
    "The paper's figures are rounded to 0.1. An exclamation mark means that the measured figure, with or without "
    "up-sampling (8 operations per value), rounds to another one. "
    "DLA includes the layers that its authors count but never use. Errors are the paper's, not measured. "
    "Table 1: multiples of the plain layer, by formulas; here for a 3x3 layer, 64 channels, 56 x 56."
)


TOP_1 = "accuracy/top1"


@dataclass(kw_only=True)
class Options(CommandOptions):
    target: str | None = positional(
        default=None, help="a registered backbone (ElasticResNeXt), a config file, or the name of a config"
    )
    table: str | None = option(
        choices=["elastic"], help="in place of a target: the tables of the ELASTIC paper beside measured figures"
    )
    shape: tuple[int, int] = option(
        default=(224, 224),
        least=1,
        metavar=("H", "W"),
        help="height, then width, of the picture in px (--image-size of other commands takes WIDTHxHEIGHT)",
    )
    cfg_options: Mapping[str, Any] = option(
        nargs="+", metavar="KEY=VALUE", default={}, reader=parse_cfg_options,
        help="arguments of the backbone, such as depth=50 or elastic_cfg.method=nearest",
    )  # fmt: skip
    json: str | None = option(metavar="FILE", help="write the figures as JSON")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.target is None) == (self.table is None):
            raise UserError("give a backbone or a config, or --table elastic")

    def check_files(self) -> None:
        super().check_files()
        if self.target and not self.target.removeprefix("mmms_plugin.")[:1].isupper():  # backbones begin with a capital
            try:
                find_config(self.target)
            except UserError as error:
                raise UserError(f"{error}; a backbone is written such as PSResNet") from None


def run(options: Options) -> None:
    if options.target is None:
        _show_elastic_tables(options.json)
    else:
        _show_backbone(options.target, options)


def _show_elastic_tables(json_file: str | None) -> None:
    """Print the costs in the tables of the ELASTIC paper beside measured ones."""
    from rich.console import Console
    from rich.progress import track

    from mmms_plugin.report.terminal import print_table
    from mmms_plugin.reproduction import elastic
    from mmms_plugin.reproduction.costs import count_row

    tables = [item for item in elastic.ITEMS if item.measures and item.measures[0].counted and not item.figure]
    places = [(item, row) for item in tables for row in item.rows if row.config or row.layer]
    bar = Console(stderr=True)
    results = [count_row(item, row) for item, row in track(places, "measuring", console=bar, transient=True)]
    rows: list[list[Value]] = []
    for number, group in groupby(results, key=lambda result: result.item.number):
        rows += [[number], *map(_cells, group)]
    title = "ELASTIC paper and measured; 224 x 224, convolutions and linear layers"
    columns = ("", "params\nM\npaper", "\n\nhere", "GFLOPs\n\npaper", "GMAC\n\nhere",
               Column("up-\nsampl.\nGFLOPs", ".3f"), Column("top-1\nerror\npaper", ".2f"))  # fmt: skip
    print_table(Table("elastic", title, columns, rows, note=NOTE), Console())
    if json_file:
        write_text(json_file, json.dumps([_as_dict(result) for result in results], indent=1) + "\n")


def _cells(result: Counted) -> list[Value]:
    from mmms_plugin.reproduction.items import MACS, PARAMS

    cells: list[Value] = [result.row.name]
    for metric in (PARAMS, MACS):
        figure = result.published(metric)
        form = ".3f" if result.row.layer else ".1f"  # 0.625 times the plain layer
        cells += ["" if figure is None else format(figure, form), _marked(result.here(metric), result.agrees(metric))]
    error = result.published(TOP_1)
    return [*cells, result.cost.upsampling / 1e9, "" if error is None else error]


def _as_dict(result: Counted) -> dict[str, Any]:
    """For JSON: the paper's figures in 1e6 and 1e9, the measured ones as counts."""
    from mmms_plugin.reproduction.costs import backbone_of
    from mmms_plugin.reproduction.items import MACS, PARAMS

    row = result.row
    params, macs = (
        None
        if (figure := result.published(metric)) is None
        else figure * result.unit(metric) / (unit if row.layer else 1)
        for metric, unit in ((PARAMS, 1e6), (MACS, 1e9))
    )
    paper = dict(params_millions=params, gflops=macs, top1_error_percent=result.published(TOP_1))
    config = dict(type=row.layer) if row.layer else backbone_of(row)
    number = result.item.number.split()[1]
    return dict(table=number, model=row.name, config=config, paper=paper, measured=asdict(result.cost))


def _marked(value: float, agrees: bool) -> Cell:
    return Cell(f"{value:.3f}") if agrees else Cell(f"! {value:.3f}", style="red")


def _show_backbone(target: str, options: Options) -> None:
    from rich.console import Console

    from mmms_plugin.report.terminal import print_table, say
    from mmms_plugin.scale.flops import measure

    config, size = _with_options(_backbone_config(target), options.cfg_options), options.shape
    try:
        cost = measure(config, size)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise UserError(f"{target}: {first_line(error)} (give arguments with --cfg-options)") from error
    exits = _exit_macs(target, config, size)
    text = ", ".join(f"{key}={value!r}" for key, value in config.items() if key not in ("type", "norm_cfg"))
    figures = (Column(title, ".3f") for title in ("parameters M", "GMAC", "bilinear up-sampling GFLOPs"))
    columns = (Column("arguments", prose=True), *figures)
    row = (text, cost.params / 1e6, cost.macs / 1e9, cost.upsampling / 1e9)
    title = f"{config['type']}, {size[0]} x {size[1]}"
    print_table(Table("cost", title, columns, [row]), Console())
    for number, macs in enumerate(exits, 1):
        say(f"exit {number}: {macs / 1e6:.1f} MMAC, classifiers included")
    if options.json:
        content = dict(exits=exits, config=config, size=size, measured=asdict(cost))
        write_text(options.json, json.dumps(content, indent=1) + "\n")


def _with_options(config: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The config with arguments such as ``depth`` or ``elastic_cfg.method`` changed."""
    from mmengine.config import Config

    changed = Config(config)
    for key, value in options.items():
        try:
            changed.merge_from_dict({key: value})
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise UserError(f"--cfg-options {key}: {type(error).__name__}: {first_line(error)}") from error
    return dict(changed.to_dict())


def _exit_macs(target: str, config: Mapping[str, Any], size: tuple[int, int]) -> list[int]:
    """Multiply-adds up to each exit of a config with several classifiers; otherwise empty."""
    import torch
    from mmengine.registry import MODELS

    from mmms_plugin.config.files import load_config
    from mmms_plugin.scale.flops import exit_macs

    if MODELS.get(f"mmms_plugin.{target.removeprefix('mmms_plugin.')}") is not None:
        return []
    head = load_config(target).model.get("head") or {}
    if not class_name(head).endswith("MultiExitHead"):
        return []
    with torch.device("meta"):
        return exit_macs(MODELS.build(dict(config)), list(MODELS.build(dict(head)).exits), size)


def _backbone_config(target: str) -> dict[str, Any]:
    from mmengine.registry import MODELS

    from mmms_plugin import backbones
    from mmms_plugin.config.files import load_config
    from mmms_plugin.registry import use_scope

    name = target.removeprefix("mmms_plugin.")
    if MODELS.get(f"mmms_plugin.{name}") is not None:
        return dict(type=f"mmms_plugin.{name}")
    try:
        find_config(target)
    except UserError as error:
        raise UserError(f"{error}; backbones are {', '.join(backbones.__all__)}") from None
    config = load_config(target)
    if "backbone" not in config.get("model", {}):
        raise UserError(f"config {target}: its model has no backbone")
    own = str(config.model.backbone.get("type")).startswith("mmms_plugin.")  # needs no host
    use_scope("mmengine" if own else config.get("default_scope") or "mmengine")
    return {key: value for key, value in config.model.backbone.to_dict().items() if key not in ("init_cfg", "_scope_")}
