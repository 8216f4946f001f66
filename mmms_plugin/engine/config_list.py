"""``mmms configs``: the configs that come with the package, with what they are; a host's, by name.

Reads a list that ``config_facts.py`` measured, so that it answers at once: no torch, no host.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from mmms_plugin.engine.config_files import config_names
from mmms_plugin.engine.host_files import SEPARATOR, host_files
from mmms_plugin.errors import UserError

FACTS_FILE = Path(__file__).with_name("config_facts.json")


@dataclass(frozen=True)
class Facts:
    """What a config is.

    Attributes:
        name: as ``mmms train`` takes it.
        task: 'object detection', 'instance segmentation', 'semantic segmentation' or 'classification'.
        method: 'PSConv', 'ELASTIC', ..., or 'plain' for a twin without the method.
        params: parameters of the whole model, with the config's own number of classes.
        macs: multiply-adds of one picture of ``size``, (height, width): backbone and neck of a detector, all of others.
        published: figures that the head of the file cites, '' if none.
    """

    name: str
    task: str
    method: str
    params: int
    macs: int
    size: tuple[int, int]
    published: str


def read_facts() -> dict[str, Facts]:
    """The measured list, by name of config."""
    entries = json.loads(FACTS_FILE.read_text(encoding="utf-8"))
    return {entry["name"]: Facts(**{**entry, "size": tuple(entry["size"])}) for entry in entries}


def list_configs(word: str | None, as_json: bool) -> None:
    """Print the configs whose name, task or method contains ``word``, whatever its case; all if it is None.

    Args:
        word: 'mmdet::retina' lists the names of a host's configs instead.
        as_json: print JSON, for programs.

    Raises:
        UserError: nothing contains the word.
    """
    if word and SEPARATOR in word:
        return _list_host(word, as_json)
    facts = read_facts()
    found = [facts.get(name) or Facts(name, "", "", 0, 0, (0, 0), "") for name in config_names()]
    found = [one for one in found if (word or "").lower() in f"{one.name} {one.task} {one.method}".lower()]
    if not found:
        raise UserError(f"{word!r}: no config has it in its name, task or method; `mmms configs` lists all")
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=1))
    else:
        _print(found)
    return None


def _list_host(word: str, as_json: bool) -> None:
    host, _, part = word.partition(SEPARATOR)
    names = [name for name in host_files(host, "configs") if part.lower() in name.lower() and "_base_" not in name]
    if not names:
        raise UserError(f"{word!r}: no config of {host} has it in its name; `mmms configs {host}{SEPARATOR}` lists all")
    full = [f"{host}{SEPARATOR}{name}" for name in names]
    print(json.dumps(full, indent=1) if as_json else "\n".join(full))


def _print(found: Iterable[Facts]) -> None:
    console = Console(highlight=False)
    console.width = max(console.width, 80)  # names stay whole
    ordered = sorted(found, key=lambda one: (one.task, one.size))
    for (task, size), group in groupby(ordered, key=lambda one: (one.task, one.size)):
        title = f"{task}, pictures of {size[0]} x {size[1]} px" if task else "not measured yet"
        console.print(_table(title, list(group)))
    console.print(
        "GMAC: multiply-adds of one picture, by backbone and neck of a detector, by the whole of other models. AP and "
        "mIoU: published by the authors, from ImageNet weights; the head of each file says whose figure it is."
    )


def _table(title: str, group: list[Facts]) -> Table:
    """One task's configs; narrow enough for 80 columns."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False
    )
    table.add_column("config", no_wrap=True, overflow="fold")
    table.add_column("method", no_wrap=True)
    units = next(
        (re.findall(r"[a-zA-Z][a-zA-Z0-9 -]*?(?= and|,|$)", one.published) for one in group if one.published), []
    )
    for heading in ("params\nM", "\nGMAC", "/".join(units).replace(" AP/", "/").replace(" ", "\n")):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in group:
        cost = (f"{one.params / 1e6:.1f}", f"{one.macs / 1e9:.1f}") if one.params else ("", "")
        table.add_row(one.name, one.method, *cost, "/".join(re.findall(r"\d+\.\d+", one.published)))
    return table
