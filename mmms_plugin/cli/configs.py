"""List the configs that come with the package: method, task, parameters, multiply-adds, published figures.

With mmdet::WORD, mmseg::WORD or mmpretrain::WORD, the names of that host's configs, which every command takes.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("word", nargs="?", metavar="WORD", help="only those with it in their name, task or method")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")


def run(args: argparse.Namespace) -> None:
    from mmms_plugin.engine.config_list import list_configs

    list_configs(args.word, args.json)
