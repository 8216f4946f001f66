"""List the configs that come with the package, or a host's.

Prints method, task, parameters, multiply-adds and published figures; with mmdet::WORD, mmseg::WORD or mmpretrain::WORD
the names of that host's configs, which every command takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from mmms_plugin.options import CommandOptions, option, positional

if TYPE_CHECKING:
    from mmms_plugin.config.files import Facts
    from mmms_plugin.report.tables import Table

WIDE = 200  # columns where no terminal limits them


@dataclass(kw_only=True)
class Options(CommandOptions):
    word: str | None = positional(
        default=None, metavar="WORD", help="list only configs whose name, task or method contains this word"
    )
    json: bool = option(default=False, help="print the list as JSON, for programs")


def run(options: Options) -> None:
    from mmms_plugin.config.files import SEPARATOR, find_configs, find_host_configs

    if options.word and SEPARATOR in options.word:
        names = find_host_configs(options.word)
        print(json.dumps(names, indent=1) if options.json else "\n".join(names))
        return
    configs = find_configs(options.word)
    if options.json:
        print(json.dumps([asdict(facts) for facts in configs], indent=1))
    else:
        _print(configs)


def _print(configs: Iterable[Facts]) -> None:
    from rich.console import Console

    from mmms_plugin.report.tables import print_table

    console = Console(highlight=False)
    console.width = max(console.width, 80) if console.is_terminal else WIDE
    ordered = sorted(configs, key=lambda facts: (facts.task, facts.size))
    for (task, size), group in groupby(ordered, key=lambda facts: (facts.task, facts.size)):
        title = f"{task}, pictures of {size[0]} x {size[1]} px" if task else "not measured yet"
        print_table(_table(title, list(group)), console)
    console.print(
        "GMAC: multiply-adds for one picture, of a detector's backbone and neck or of another model's whole. AP and "
        "mIoU: published by the authors, from ImageNet weights; the head of each file says whose figure it is."
    )


def _table(title: str, group: list[Facts]) -> Table:
    """One task's configs; narrow enough for 80 columns."""
    from mmms_plugin.report.tables import Column, Table

    published = next((facts.published for facts in group if facts.published), "")
    units = re.findall(r"[a-zA-Z][a-zA-Z0-9 -]*?(?= and|,|$)", published)
    heading = "/".join(units).replace(" AP/", "/").replace(" ", "\n")
    rows = []
    for facts in group:
        cost = (f"{facts.params / 1e6:.1f}", _gmac(facts.macs)) if facts.params else ("", "")
        rows.append((facts.name, facts.method, *cost, "/".join(re.findall(r"\d+\.\d+", facts.published))))
    return Table("configs", title, ("config", Column("method", left=True), "params\nM", "\nGMAC", heading), rows)


def _gmac(macs: int) -> str:
    return f"{macs / 1e9:.1f}" if macs > 5e8 else f"{macs / 1e9:.3f}"
