"""Finding and loading configs: a path, the name of one that comes with the package, or ``HOST::NAME``.

The hosts' wheels carry configs and scripts in a folder ``.mim``; a clone has them beside the package. Finding them
imports no host. What ``mmms configs`` says of the package's own was measured by ``facts.py`` and lies in a file, so
that it answers at once, without torch.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mmms_plugin.errors import UserError, first_line

if TYPE_CHECKING:
    from mmengine.config import Config

_PACKAGE = Path(__file__).resolve().parent.parent
HOSTS = ("mmdet", "mmseg", "mmpretrain")
SEPARATOR = "::"
FACTS_FILE = Path(__file__).with_name("facts.json")


def config_root() -> Path:
    """The configs of an installed package, or those of the clone that the package is imported from."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def config_names() -> dict[str, Path]:
    """Every config that comes with the package, by its path below the config folder and without the suffix."""
    root = config_root()
    files = (f for f in sorted(root.rglob("*.py")) if not f.relative_to(root).parts[0].startswith("_"))
    return {f.relative_to(root).with_suffix("").as_posix(): f for f in files}


def find_config(name: str) -> Path:
    """The file of a config given as a path, as a name such as ``mask_rcnn_ps_r50_fpn_1x``, or as ``mmdet::NAME``.

    Raises: UserError if there is none, with the nearest names.
    """
    path = Path(name)
    if path.is_file():
        return path
    name = name.removeprefix(f"mmms_plugin{SEPARATOR}")
    if SEPARATOR in name:
        return find_host_file(name, "configs")
    names = config_names()
    wanted = name.removesuffix(".py").removeprefix("configs/")
    matches = [f for key, f in names.items() if wanted in (key, key.rsplit("/", 1)[-1])]
    if len(matches) == 1:
        return matches[0]
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5) or sorted(names)[:3]
    raise UserError(f"config {name!r}: no such file and no config of that name; the nearest are {', '.join(near)}")


def load_config(name: str) -> Config:
    """Load a config given as ``find_config`` takes it.

    Raises: UserError if it cannot be read.
    """
    path = find_config(name)
    if path.suffix not in (".py", ".json", ".yaml", ".yml"):
        raise UserError(f"config {name}: the suffix is {path.suffix!r}, allowed are .py, .json, .yaml and .yml")
    from mmengine.config import Config  # which `mmms configs` does without

    try:
        return Config.fromfile(path)
    except Exception as error:  # a config is code: whatever it raises is the config's fault
        raise UserError(f"config {path}: {type(error).__name__}: {first_line(error)}") from error


def host_files(host: str, kind: str) -> dict[str, Path]:
    """Every file of a host's ``kind``, 'configs' or 'tools', by its path below that folder, without the suffix.

    Raises:
        UserError: the host is unknown, not installed, or came without these files.
    """
    if host not in HOSTS:
        raise UserError(f"{host}{SEPARATOR}: no such host; allowed are {', '.join(HOSTS)}")
    spec = find_spec(host)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{host}{SEPARATOR}: {host} is not installed")
    package = Path(spec.submodule_search_locations[0])
    for root in (package / ".mim" / kind, package.parent / kind):
        if root.is_dir():
            return {file.relative_to(root).with_suffix("").as_posix(): file for file in sorted(root.rglob("*.py"))}
    raise UserError(f"{host}{SEPARATOR}: the installed {host} came without its {kind}")


def find_host_file(name: str, kind: str) -> Path:
    """The file for ``HOST::PATH``, where PATH may lack its folders and its suffix.

    Args:
        name: such as 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', or 'mmdet::train' with ``kind`` 'tools'.
        kind: 'configs' or 'tools'.

    Raises:
        UserError: there is none, or there are several; the message has the nearest names.
    """
    host, _, rest = name.partition(SEPARATOR)
    files = host_files(host, kind)
    wanted = rest.removesuffix(".py").removeprefix(f"{kind}/")
    if wanted in files:
        return files[wanted]
    matches = [key for key in files if key.rsplit("/", 1)[-1] == wanted]
    if len(matches) == 1:
        return files[matches[0]]
    near = matches or _nearest(wanted, list(files))
    problem = "several have this name" if matches else "no such file"
    raise UserError(f"{name}: {problem} among the {kind} of {host}; the nearest are {', '.join(near)}")


def _nearest(wanted: str, names: list[str]) -> list[str]:
    """Three names like ``wanted``, compared without their folders first."""
    stem = wanted.rsplit("/", 1)[-1]
    by_stem = {name.rsplit("/", 1)[-1]: name for name in names}
    nearest = [by_stem[near] for near in difflib.get_close_matches(stem, by_stem, n=3, cutoff=0.5)]
    return nearest or [name for name in names if not name.startswith("_base_")][:3]


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
