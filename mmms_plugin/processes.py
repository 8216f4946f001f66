"""Memory of processes, on every system: POSIX keeps the peak of each process, Windows by way of ``psutil``."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

import psutil

RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in one unit of ``ru_maxrss``
POLL = 0.2  # seconds between two looks at a process, where the system keeps no peak of one that has ended


def peak_memory() -> int:
    """Most resident memory that this process has held so far, in bytes."""
    try:
        import resource
    except ImportError:
        return _peak(psutil.Process())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT


def wait_and_measure(process: subprocess.Popen) -> int:
    """Wait for a process to end, and set its ``returncode``.

    Returns:
        The most resident memory that it held, in bytes. Without ``os.wait4``: until the last look at it.
    """
    if hasattr(os, "wait4"):
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_maxrss * RSS_UNIT
    peak = 0
    while process.returncode is None:
        with suppress(psutil.Error):
            peak = max(peak, _peak(psutil.Process(process.pid)))
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL)
    return peak


def _peak(process: psutil.Process) -> int:
    memory = process.memory_info()
    return getattr(memory, "peak_wset", memory.rss)
