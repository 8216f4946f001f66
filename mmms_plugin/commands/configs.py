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

from mmms_plugin.errors import UserError
from mmms_plugin.options import CommandOptions, option, positional

if TYPE_CHECKING:
    from mmms_plugin.config.facts import Facts
    from mmms_plugin.report.tables import Table


@dataclass(kw_only=True)
class Options(CommandOptions):
    word: str | None = positional(
        default=None, metavar="WORD", help="list only configs whose name, task or method contains this word"
    )
    json: bool = option(default=False, help="print the list as JSON, for programs")


def run(options: Options) -> None:
    """Print the list.

    Raises:
        UserError: no config contains the word, or the host is not installed.
    """
    from mmms_plugin.config.facts import Facts, read_facts
    from mmms_plugin.config.files import SEPARATOR, config_names, host_files

    word = options.word or ""
    host, separator, part = word.partition(SEPARATOR)
    if separator:
        files = host_files(host, "configs")
        names = [f"{host}::{name}" for name in files if part.lower() in name.lower() and "_base_" not in name]
        if not names:
            raise UserError(f"{word!r}: no config of {host} has it in its name; `mmms configs {host}::` lists all")
        print(json.dumps(names, indent=1) if options.json else "\n".join(names))
        return
    measured = read_facts()
    configs = [measured.get(name) or Facts(name, "", "", 0, 0, (0, 0), "") for name in config_names()]
    configs = [facts for facts in configs if word.lower() in f"{facts.name} {facts.task} {facts.method}".lower()]
    if not configs:
        raise UserError(f"{word!r}: no config has it in its name, task or method; `mmms configs` lists all")
    if options.json:
        print(json.dumps([asdict(facts) for facts in configs], indent=1))
    else:
        _print(configs)


def _print(configs: Iterable[Facts]) -> None:
    from rich.console import Console

    from mmms_plugin.report.terminal import explain, print_table

    console = Console()
    ordered = sorted(configs, key=lambda facts: (facts.task, facts.size))
    for (task, size), group in groupby(ordered, key=lambda facts: (facts.task, facts.size)):
        title = f"{task}, pictures of {size[0]} x {size[1]} px" if task else "not measured yet"
        print_table(_table(title, list(group)), console)
    explain(
        "GMAC: multiply-adds for one picture, of a detector's backbone and neck or of another model's whole. AP and "
        "mIoU: published by the authors, from ImageNet weights; the head of each file says whose figure it is.",
        console,
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
