"""Processes that others start: Python's own import the plugin before a host, compilers are asked in silence.

A process that Python spawns, on Windows and macOS for every data loader, starts empty and unpickles what it is to do,
a data set of mmdet's say. That imports mmdet, which on mmcv-lite needs the plugin first. Python runs the main script
again in the new process, which would import it, but not after ``python -m mmms_plugin`` or the ``mmms.exe`` of Windows.
"""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any


class _ImportsPlugin:
    """Unpickling it imports the plugin, from where this process found it."""

    def __init__(self, path: Sequence[str]) -> None:
        self.path = list(path)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return exec, (f"import sys\nsys.path[:] = {self.path!r}\nimport mmms_plugin",)


def import_plugin_first(module: ModuleType) -> None:
    """Change ``multiprocessing.spawn``: what it sends ahead to a new process imports the plugin there."""
    prepare = module.get_preparation_data
    if hasattr(prepare, "__wrapped__"):
        return

    @functools.wraps(prepare)
    def get_preparation_data(name: str) -> dict[str, Any]:
        data = prepare(name)
        return {**data, "mmms_plugin": _ImportsPlugin(data["sys_path"])}

    module.get_preparation_data = get_preparation_data  # type: ignore[attr-defined]


def be_quiet(module: ModuleType) -> None:
    """Let ``mmengine.utils.dl_utils.collect_env`` look for compilers without the shell's words on the terminal."""
    quiet = functools.partial(subprocess.check_output, stderr=subprocess.DEVNULL)
    module.subprocess = SimpleNamespace(**{**vars(subprocess), "check_output": quiet})  # type: ignore[attr-defined]
