"""The clock of all measurements."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

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
