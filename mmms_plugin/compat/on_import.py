"""Changes to modules of other packages, made on their import, or at once if they are imported already.

Importing mmengine takes a second, so a plugin that only changes it must not import it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from mmms_plugin.compat.late import LATE, then_derive, then_late, waiting

# Module to change -> the functions, as "module:function", that change it: they get the module and may be called twice.
# Rooms above this one add theirs by ``add``.
CHANGES: dict[str, tuple[str, ...]] = {
    "mmengine.config.config": ("mmms_plugin.compat.configs:format_once", "mmms_plugin.compat.configs:find_at_once"),
    "mmengine.config.utils": ("mmms_plugin.compat.hosts:find_forks",),
    "mmengine.fileio.backends.local_backend": ("mmms_plugin.compat.saving:write_whole",),
    "mmengine.hooks.checkpoint_hook": ("mmms_plugin.compat.saving:remove_last",),
    "mmengine.logging": ("mmms_plugin.compat.hosts:print_no_details",),
    "mmengine.runner.runner": ("mmms_plugin.compat.processes:allow_cpu",),
    "mmengine.utils.dl_utils.collect_env": ("mmms_plugin.compat.processes:be_quiet",),
    "multiprocessing.spawn": ("mmms_plugin.compat.processes:import_plugin_first",),
}
# Module -> the function to call before it is imported.
BEFORE = {
    "mmengine": "mmms_plugin.compat.hosts:check",
    "torch": "mmms_plugin.compat.hosts:warn_untested",
    "torchvision": "mmms_plugin.compat.torchvision_ops:declare_missing",
}


def add(changes: Mapping[str, str]) -> None:
    """Add to ``CHANGES``, before ``install``: module to change -> "module:function"."""
    for name, function in changes.items():
        CHANGES[name] = (*CHANGES.get(name, ()), function)


def change(module: ModuleType) -> None:
    """Apply the change that is registered for this module."""
    for target in CHANGES[module.__name__]:
        source, function = target.split(":")
        getattr(import_module(source), function)(module)


class _ChangingFinder:
    """Meta path finder that changes a module right after the module's own code has run."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name in BEFORE:
            source, function = BEFORE[name].split(":")
            getattr(import_module(source), function)()
        if name not in CHANGES and name not in LATE and name not in waiting:
            return None
        others = (finder for finder in sys.meta_path if finder is not _ChangingFinder)
        spec = next((spec for finder in others if (spec := finder.find_spec(name, path, target))), None)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            if name in LATE:
                loader.exec_module = then_late(loader.exec_module)
            if name in waiting:
                loader.exec_module = then_derive(loader.exec_module)
            if name in CHANGES:
                loader.exec_module = _then_change(loader.exec_module)
        return spec


def _then_change(execute: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    def execute_and_change(module: ModuleType) -> None:
        execute(module)
        change(module)

    return execute_and_change


def install() -> None:
    """Change the modules of ``CHANGES`` that are imported already, and the others on their import."""
    if _ChangingFinder not in sys.meta_path:
        sys.meta_path.insert(0, _ChangingFinder)
    for name in CHANGES:
        if name in sys.modules:
            change(sys.modules[name])
