"""The machine and the versions behind a measurement."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

import torch

from mmms_plugin import __version__
from mmms_plugin.compat.hosts import installed


def machine() -> str:
    """Day, processor, load, system and versions, in one sentence each."""
    load = f" The load was {os.getloadavg()[0]:.1f} at the start." if hasattr(os, "getloadavg") else ""
    versions = ", ".join(f"{name} {found}" for name, found in installed("torch", "numpy", "mmengine").items())
    return (
        f"{datetime.date.today().isoformat()}, {_processor()}, cores: {os.cpu_count()}, threads of torch: "
        f"{torch.get_num_threads()}.{load} {platform.system()}, Python {platform.python_version()}, mmms_plugin "
        f"{__version__}, {versions}."
    )


def _processor() -> str:
    """As Linux names it; elsewhere as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
