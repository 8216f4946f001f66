"""Finding and loading configs: a path, the name of one that comes with the package, or ``HOST::NAME``."""

from __future__ import annotations

import difflib
from pathlib import Path

from mmengine.config import Config

from mmms_plugin.config.host_files import SEPARATOR, find_host_file
from mmms_plugin.errors import UserError, first_line

_PACKAGE = Path(__file__).resolve().parent.parent


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
    try:
        return Config.fromfile(path)
    except Exception as error:  # a config is code: whatever it raises is the config's fault
        raise UserError(f"config {path}: {type(error).__name__}: {first_line(error)}") from error
