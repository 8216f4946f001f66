"""The clock of all measurements: what a network takes on this machine, not what others take from it meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from mmms_plugin.files import WINDOWS


def clock_name() -> str:
    """'processor time' with one thread and no GPU in use, which other programs hardly disturb; else 'wall time'."""
    return "processor time" if _one_thread() else "wall time"


def now() -> float:
    """Seconds of that clock from some moment on; waits for the GPU first."""
    if _gpu_in_use():
        torch.accelerator.synchronize()
    return time.thread_time() if _one_thread() else time.perf_counter()


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    started = now()
    call()
    return now() - started


def _one_thread() -> bool:
    """Whether processor time says all; on Windows it is counted in steps of 1/64 s."""
    return torch.get_num_threads() == 1 and not _gpu_in_use() and not WINDOWS


def _gpu_in_use() -> bool:
    return torch.cuda.is_initialized() or torch.backends.mps.is_available()
