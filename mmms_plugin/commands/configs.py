"""List the configs that come with the package: method, task, parameters, multiply-adds, published figures.

With mmdet::WORD, mmseg::WORD or mmpretrain::WORD, the names of that host's configs, which every command takes.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby

from rich.console import Console

from mmms_plugin.config.host_files import SEPARATOR
from mmms_plugin.config.listing import Facts, find_configs, find_host_configs
from mmms_plugin.report.tables import Column, Table, print_table

WIDE = 200  # columns where no terminal limits them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("word", nargs="?", metavar="WORD", help="only those with it in their name, task or method")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")


def run(args: argparse.Namespace) -> None:
    if args.word and SEPARATOR in args.word:
        names = find_host_configs(args.word)
        print(json.dumps(names, indent=1) if args.json else "\n".join(names))
        return
    found = find_configs(args.word)
    if args.json:
        print(json.dumps([asdict(one) for one in found], indent=1))
    else:
        _print(found)


def _print(found: Iterable[Facts]) -> None:
    console = Console(highlight=False)
    console.width = max(console.width, 80) if console.is_terminal else WIDE
    ordered = sorted(found, key=lambda one: (one.task, one.size))
    for (task, size), group in groupby(ordered, key=lambda one: (one.task, one.size)):
        title = f"{task}, pictures of {size[0]} x {size[1]} px" if task else "not measured yet"
        print_table(_table(title, list(group)), console)
    console.print(
        "GMAC: multiply-adds of one picture, by backbone and neck of a detector, by the whole of other models. AP and "
        "mIoU: published by the authors, from ImageNet weights; the head of each file says whose figure it is."
    )


def _table(title: str, group: list[Facts]) -> Table:
    """One task's configs; narrow enough for 80 columns."""
    units = next(
        (re.findall(r"[a-zA-Z][a-zA-Z0-9 -]*?(?= and|,|$)", one.published) for one in group if one.published), []
    )
    heading = "/".join(units).replace(" AP/", "/").replace(" ", "\n")
    rows = []
    for facts in group:
        cost = (f"{facts.params / 1e6:.1f}", _gmac(facts.macs)) if facts.params else ("", "")
        rows.append((facts.name, facts.method, *cost, "/".join(re.findall(r"\d+\.\d+", facts.published))))
    return Table("configs", title, ("config", Column("method", left=True), "params\nM", "\nGMAC", heading), rows)


def _gmac(macs: int) -> str:
    return f"{macs / 1e9:.1f}" if macs > 5e8 else f"{macs / 1e9:.3f}"
