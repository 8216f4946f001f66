"""``mmms configs``: the configs that come with the package, with what they are; a host's, by name.

Reads a list that ``facts.py`` measured, so that it answers at once: no torch, no host.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mmms_plugin.config.files import config_names
from mmms_plugin.config.host_files import SEPARATOR, host_files
from mmms_plugin.errors import UserError

FACTS_FILE = Path(__file__).with_name("facts.json")


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


def find_configs(word: str | None) -> list[Facts]:
    """The configs whose name, task or method contains ``word``, whatever its case; all if it is None.

    Raises:
        UserError: nothing contains the word.
    """
    facts = read_facts()
    configs = [facts.get(name) or Facts(name, "", "", 0, 0, (0, 0), "") for name in config_names()]
    configs = [
        config for config in configs if (word or "").lower() in f"{config.name} {config.task} {config.method}".lower()
    ]
    if not configs:
        raise UserError(f"{word!r}: no config has it in its name, task or method; `mmms configs` lists all")
    return configs


def find_host_configs(word: str) -> list[str]:
    """The names of a host's configs that contain what stands behind ``mmdet::``, ``mmseg::`` or ``mmpretrain::``.

    Raises:
        UserError: nothing contains it, or the host is not installed.
    """
    host, _, part = word.partition(SEPARATOR)
    names = [name for name in host_files(host, "configs") if part.lower() in name.lower() and "_base_" not in name]
    if not names:
        raise UserError(f"{word!r}: no config of {host} has it in its name; `mmms configs {host}{SEPARATOR}` lists all")
    return [f"{host}{SEPARATOR}{name}" for name in names]
