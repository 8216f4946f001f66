"""Memory and command lines of processes, on every system."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from mmms_plugin.files import WINDOWS

if TYPE_CHECKING:
    import psutil

RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in one unit of ``ru_maxrss``
POLL = 0.2  # seconds between two looks at a process, where the system keeps no peak of one that has ended


def peak_memory() -> int:
    """Most resident memory that this process has held so far, in bytes."""
    try:
        import resource
    except ImportError:
        import psutil

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
    import psutil

    peak = 0
    while process.returncode is None:
        with suppress(psutil.Error):
            outer = psutil.Process(process.pid)  # mmms.exe and a start in UTF-8 mode work in a process of their own
            peak = max(peak, *map(_peak, (outer, *outer.children(recursive=True))))
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL)
    return peak


def shell_words(text: str) -> list[str]:
    """The words of a command line; on Windows a backslash is part of a path, not an escape."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    lexer.escape = "" if WINDOWS else lexer.escape
    return list(lexer)


def shell_line(words: Sequence[str]) -> str:
    """A command line of these words, quoted as the system's shell takes it."""
    return subprocess.list2cmdline(words) if WINDOWS else shlex.join(words)


def _peak(process: psutil.Process) -> int:
    memory = process.memory_info()
    return getattr(memory, "peak_wset", memory.rss)
