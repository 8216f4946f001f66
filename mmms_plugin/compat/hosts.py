"""Which OpenMMLab is installed: what is missing, what must not be installed together, and what was not tested.

The original packages (extra ``openmmlab``) and their maintained forks (extra ``onedl``) share their folders: with both,
files of one overwrite files of the other. The first import of a host is refused then. Nothing is imported here.
"""

from __future__ import annotations

import json
import logging
import os
import re
from functools import cache, wraps
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from mmms_plugin.errors import UserError

# Package -> its distributions: originals and forks.
HOSTS = {
    "mmengine": (("mmengine", "mmengine-lite"), ("onedl-mmengine",)),
    "mmcv": (("mmcv-lite", "mmcv"), ("onedl-mmcv",)),
    "mmdet": (("mmdet",), ("onedl-mmdetection",)),
    "mmseg": (("mmsegmentation",), ("onedl-mmsegmentation",)),
    "mmpretrain": (("mmpretrain",), ("onedl-mmpretrain",)),
}
EXTRAS = ORIGINALS, FORKS = "openmmlab", "onedl"
PIP = {"torch": "torch", "cv2": "opencv-python", "shtab": "shtab", "pyarrow": "'mmms_plugin[policy]'"}
TORCHVISION = (  # each build needs one build of torch, and pip replaces the installed torch with it
    "torchvision, which mmpretrain imports, is not installed: install the build that belongs to the installed torch, "
    "from where torch came: pip install torchvision --index-url https://download.pytorch.org/whl/cpu (or cu126, ...); "
    "with any other build, pip replaces torch"
)
SWITCH = "MMMS_VERSION_WARNING"
# What CI ran -> the versions by distribution; .ci/tested_versions.py writes it, and the table in the documentation.
TESTED = Path(__file__).with_name("tested_versions.json")


def installed(*distributions: str) -> dict[str, str]:
    """Versions of those that are installed."""
    from importlib.metadata import PackageNotFoundError, version  # whose import takes a while

    versions = {}
    for name in distributions:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def installed_hosts() -> dict[str, str]:
    """Versions of torch and of the distributions of hosts that are installed."""
    return installed("torch", *(name for kinds in HOSTS.values() for kind in kinds for name in kind))


def not_installed(package: str | None) -> str | None:
    """A line that says how to install a package; None if it is installed, or unknown to the plugin.

    Args:
        package: as imported, such as ``mmdet.apis``.
    """
    name = (package or "").partition(".")[0]
    if name not in (*HOSTS, *PIP, "sklearn", "torchvision") or find_spec(name) is not None:
        return None
    if name == "torchvision":
        return TORCHVISION
    if name in PIP:
        return f"{name} is not installed: pip install {PIP[name]}"
    extras = list(EXTRAS)
    if name == "mmpretrain":  # it and its fork are extras of their own
        extras = [f"{extra},{kind[0]}" for extra, kind in zip(EXTRAS, HOSTS[name], strict=True)]
    originals, forks = (installed(*kind) for kind in HOSTS["mmengine"])
    other = "" if originals or forks else f" ([{extras[1]}] instead has the maintained forks)"
    return f"{name} is not installed: pip install 'mmms_plugin[{extras[bool(forks)]}]'{other}"


def check() -> None:
    """Before a host is imported: refuse a host beside its fork, and warn about versions that were not tested.

    Raises:
        UserError: the message names both, and what to do.
    """
    for package, (originals, forks) in HOSTS.items():
        pair = {**installed(*originals), **installed(*forks)}
        if len({name in forks for name in pair}) == 2:
            names = " and ".join(f"{name} {number}" for name, number in pair.items())
            raise UserError(
                f"{names} are installed in one folder, {package}/: uninstall both (pip uninstall -y {' '.join(pair)}), "
                f"then install mmms_plugin[{ORIGINALS}] or mmms_plugin[{FORKS}]"
            )
    warn_untested()


def find_forks(module: ModuleType) -> None:
    """Change ``mmengine.config.utils``, which looks up the original's distribution to find configs of ``mmseg::``."""
    for package, (_, forks) in HOSTS.items():
        if package in module.MODULE2PACKAGE and installed(*forks):
            module.MODULE2PACKAGE[package] = package


def print_no_details(module: ModuleType) -> None:
    """Change ``mmengine.logging``, which prints what is logged without a logger, whatever its level.

    The forks log so, as a detail, that OneDL is not installed: a platform that they can read data from.
    """
    log = module.print_log
    if hasattr(log, "__wrapped__"):
        return

    @wraps(log)
    def print_log(msg: Any, logger: Any = None, level: int = logging.INFO) -> None:
        if logger is not None or level >= logging.INFO:
            log(msg, logger, level)

    module.print_log = print_log  # type: ignore[attr-defined]


@cache
def warn_untested() -> None:
    """Warn in one line, once, if torch or a host has a version whose first two numbers no test has run with.

    The first process of a run warns, not its data workers or the other processes of torchrun. With
    ``MMMS_VERSION_WARNING=0`` none does.
    """
    import multiprocessing

    if multiprocessing.parent_process() is not None or os.environ.get("RANK", "0") != "0":
        return
    if os.environ.get(SWITCH) == "0":
        return
    if untested := untested_versions():
        line = "not tested with mmms_plugin: %s; %s=0 hides this line"
        logging.getLogger("mmms_plugin").warning(line, ", ".join(untested), SWITCH)


def untested_versions() -> list[str]:
    """Such as ``torch 2.14.0 (tested: 2.13.0)``."""
    rows = json.loads(TESTED.read_text(encoding="utf-8")).values()
    remarks = []
    for name, number in installed_hosts().items():
        tested = sorted({row[name] for row in rows if name in row})
        if _minor(number) not in map(_minor, tested):
            remarks.append(f"{name} {number} (tested: {', '.join(tested) or 'none'})")
    return remarks


def _minor(number: str) -> list[str]:
    """``["2", "13"]`` of ``2.13.0+cpu``."""
    return re.findall(r"\d+", number)[:2]
