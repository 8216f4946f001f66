"""What today's Python and PyTorch need from yesterday's OpenMMLab.

mmdet 3.3 needs mmcv 2.1, which has no binaries for torch >= 2.2. mmcv-lite 2.1 installs in seconds, but lacks
``mmcv._ext``, the compiled module with NMS and RoIAlign. ``install`` puts a replacement in its place, unless mmcv has
its own. ``on_import`` lists the changes to mmengine. Python 3.14 has no ``pkgutil.find_loader``, which mmengine and
mmcv call; ``install`` restores it. This file is imported with the plugin: it imports neither torch nor mmcv.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from mmms_plugin.compat import on_import

EXTENSION = "mmcv._ext"
REPLACEMENT = Path(__file__).with_name("mmcv_ext.py")


class _ExtensionFinder:
    """Meta path finder for ``mmcv._ext`` alone; it comes last, so that a compiled module takes precedence."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return spec_from_file_location(EXTENSION, REPLACEMENT) if name == EXTENSION else None


def _find_loader(name: str) -> Any:
    """As ``pkgutil.find_loader`` until Python 3.13: the loader of a module, or None if the module does not exist."""
    try:
        spec = find_spec(name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ImportError(f"loader of {name}: {type(error).__name__}: {error}") from error
    return None if spec is None else spec.loader


def install() -> None:
    """Let ``import mmcv._ext`` find the replacement where mmcv has no compiled ops, and change mmengine on import."""
    on_import.install()
    if not hasattr(pkgutil, "find_loader"):
        pkgutil.find_loader = _find_loader  # type: ignore[assignment]
    if _ExtensionFinder not in sys.meta_path:
        sys.meta_path.append(_ExtensionFinder)


def mmcv_ops() -> str:
    """A line for the log: the installed mmcv, and what provides its compiled ops."""
    from mmms_plugin.compat.hosts import HOSTS, installed

    install()
    versions = installed(*(name for kind in HOSTS["mmcv"] for name in kind))
    if not versions:
        return "mmcv is not installed"
    name = " ".join(next(iter(versions.items())))
    if getattr(import_module(EXTENSION), "__file__", None) != str(REPLACEMENT):
        return f"{name} with its own compiled ops"
    from mmms_plugin.compat.torchvision_ops import provider

    return f"{name}: {provider()}"
