"""Parameters and multiply-adds of a backbone, or a paper's tables beside the measured figures."""

from __future__ import annotations

import argparse

from mmms_plugin.cli.common import parse_cfg_options
from mmms_plugin.errors import UserError


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
    from mmms_plugin.engine.flops import show_backbone, show_elastic_tables

    if args.table:
        show_elastic_tables(args.json)
    else:
        show_backbone(args.target, parse_cfg_options(args.cfg_options), tuple(args.shape), args.json)
