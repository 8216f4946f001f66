"""The clock of all measurements, and the times of a network's parts, which say whether a smaller batch pays."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
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


@dataclass(frozen=True)
class Profile:
    """Seconds that the parts of a network take at some batch sizes; between them they are interpolated.

    Attributes:
        sizes: batch sizes, rising.
        blocks: seconds of each exit's part of the backbone and its classifier, by size.
        copies: seconds of gathering the maps in front of each exit's part, by size of the result.
    """

    sizes: Sequence[int]
    blocks: Sequence[Sequence[float]]
    copies: Sequence[Sequence[float]]

    def pays(self, block: int, running: int, left: int) -> bool:
        """Whether part ``block`` on the ``left`` pictures, gathering included, is faster than on all ``running``."""
        rest = np.interp([running, left], self.sizes, self.blocks[block])
        return rest[0] - rest[1] > np.interp(left, self.sizes, self.copies[block])
