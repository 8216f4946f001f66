"""The clock of all measurements, and the machine behind them."""

from __future__ import annotations

import datetime
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from mmms_plugin import __version__
from mmms_plugin.compat.hosts import installed
from mmms_plugin.files import WINDOWS


def clock_name() -> str:
    """'processor time', which other programs hardly disturb, with one thread and no GPU in use; else 'wall time'."""
    return "processor time" if _one_thread() else "wall time"


def now() -> float:
    """Seconds of that clock since some fixed moment; waits for the GPU first."""
    if _gpu_in_use():
        torch.accelerator.synchronize()
    return time.thread_time() if _one_thread() else time.perf_counter()


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    started = now()
    call()
    return now() - started


def _one_thread() -> bool:
    """Whether processor time is complete and precise: on Windows it advances in steps of 1/64 s."""
    return torch.get_num_threads() == 1 and not _gpu_in_use() and not WINDOWS


def _gpu_in_use() -> bool:
    return torch.cuda.is_initialized() or torch.backends.mps.is_available()


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
