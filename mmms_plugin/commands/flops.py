"""Parameters and multiply-adds of a backbone, or a paper's tables beside the measured figures."""

from __future__ import annotations

import argparse
import json
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track

from mmms_plugin.commands.common import parse_cfg_options
from mmms_plugin.errors import UserError
from mmms_plugin.files import write_text
from mmms_plugin.report.tables import Cell, Column, Table, Value, print_table

if TYPE_CHECKING:
    from mmms_plugin.scale.elastic_tables import Comparison

NOTE = (
    "The paper's figures are rounded to 0.1; an exclamation mark where the measured one, with or without up-sampling "
    "(8 operations a value), rounds to another. "
    "DLA: with the layers that its authors count and never use. Errors are the paper's, not measured. "
    "Table 1: formulas for one 3x3 layer, 64 channels, 56 x 56."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("target", nargs="?", help="a registered backbone (ElasticResNeXt), a config file, or the name of a config")
    add("--table", choices=["elastic"], help="instead: the tables of the ELASTIC paper, paper and measured")
    add("--shape", nargs=2, type=int, default=[224, 224], metavar=("H", "W"), help="of the picture (224 224)")
    add("--cfg-options", nargs="+", metavar="KEY=VALUE", default=[], help="arguments of the backbone: depth=50 ...")
    add("--json", metavar="FILE", help="keep the figures")


def run(args: argparse.Namespace) -> None:
    if (args.target is None) == (args.table is None):
        raise UserError("give a backbone or config, or --table elastic")
    if min(args.shape) < 1:
        raise UserError(f"--shape {args.shape[0]} {args.shape[1]}: allowed are integers >= 1")
    if args.table:
        _show_elastic_tables(args.json)
    else:
        _show_backbone(args.target, parse_cfg_options(args.cfg_options), tuple(args.shape), args.json)


def _show_elastic_tables(json_file: str | None) -> None:
    """Tables 1, 2, 6, 7 and 8 of the ELASTIC paper beside what is measured."""
    from mmms_plugin.scale.elastic_tables import compare

    bar = Console(stderr=True)
    results = compare(lambda rows: track(rows, "measuring", console=bar, transient=True))
    rows: list[list[Value]] = []
    for number, group in groupby(results, key=lambda result: result.row.table):
        rows += [[f"Table {number}"], *map(_cells, group)]
    title = "ELASTIC paper and measured; 224 x 224, convolutions and linear layers"
    columns = ("", "params\nM\npaper", "\n\nhere", "GFLOPs\n\npaper", "GMAC\n\nhere",
               Column("up-\nsampl.\nGFLOPs", ".3f"), Column("top-1\nerror\npaper", ".2f"))  # fmt: skip
    print_table(Table("elastic", title, columns, rows, note=NOTE), Console())
    if json_file:
        write_text(json_file, json.dumps([result.as_dict() for result in results], indent=1) + "\n")


def _cells(result: Comparison) -> list[Value]:
    row = result.row
    digits = 4 if row.table == "1" else 1
    return [
        row.name,
        "" if row.params is None else f"{row.params:.{digits}f}", _marked(result.params, result.params_agree),
        f"{row.flops:.{digits}f}", _marked(result.gmacs, result.flops_agree),
        result.cost.upsampling / 1e9, "" if row.top1 is None else row.top1,
    ]  # fmt: skip


def _marked(value: float, agrees: bool) -> Cell:
    return Cell(f"{value:.3f}") if agrees else Cell(f"! {value:.3f}", style="red")


def _show_backbone(target: str, options: dict[str, Any], size: tuple[int, int], json_file: str | None) -> None:
    from mmms_plugin.commands.flops_run import measure_backbone

    found = measure_backbone(target, options, size)
    cost, arguments = found.cost, {k: v for k, v in found.config.items() if k not in ("type", "norm_cfg")}
    text = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    columns = ("arguments", "parameters M", "GMAC", "bilinear up-sampling GFLOPs")
    row = (text, cost.params / 1e6, cost.macs / 1e9, cost.upsampling / 1e9)
    title = f"{found.config['type']}, {size[0]} x {size[1]}"
    print_table(Table("cost", title, columns, [row], form=".3f"), Console())
    for number, macs in enumerate(found.exits):
        Console().print(f"exit {number + 1}: {macs / 1e6:.1f} MMAC, classifiers included", highlight=False)
    if json_file:
        write_text(json_file, json.dumps(found.as_dict(), indent=1) + "\n")
