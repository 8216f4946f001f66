"""Memory, command lines and standard error of processes, on every system."""

from __future__ import annotations

import ctypes
import io
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from mmms_plugin.files import WINDOWS

if TYPE_CHECKING:
    import psutil

STATUS = Path("/proc/self/status")  # of Linux, where `getrusage` counts what the parent held when it started this one
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in one unit of ``ru_maxrss``
PEAK_MEMORY = "MMMS_PEAK_MEMORY"  # variable: the file for the peak of a training that another machine may run
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
POLL = 0.2  # seconds between two looks at a process, where the system keeps no peak of one that has ended


def peak_memory() -> int:
    """Most resident memory that this process has held so far, in bytes."""
    with suppress(OSError, StopIteration):
        lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    try:
        import resource
    except ImportError:
        import psutil

        return _peak(psutil.Process())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT


def wait_and_measure(process: subprocess.Popen, block: bool = True, peak: int = 0) -> int:
    """Wait for a process to end, and set its ``returncode``.

    Args:
        process: that is measured.
        block: whether to wait; otherwise look at it once, and leave ``returncode`` None if it has not ended.
        peak: what an earlier look at the process returned.

    Returns:
        The most resident memory that it held, in bytes. Without ``os.wait4``: until the last look at it.
    """
    if hasattr(os, "wait4"):
        ended, status, usage = os.wait4(process.pid, 0 if block else os.WNOHANG)
        if not ended:
            return peak
        process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_maxrss * RSS_UNIT
    import psutil

    while process.returncode is None:
        with suppress(psutil.Error):
            outer = psutil.Process(process.pid)  # mmms.exe and a start in UTF-8 mode work in a process of their own
            peak = max(peak, *map(_peak, (outer, *outer.children(recursive=True))))
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL if block else 0)
        if not block:
            break
    return peak


def release_memory() -> None:
    """Give memory that was freed back to the system, where the C library keeps it for itself (glibc).

    Blocks of many sizes, as of feature maps, leave holes in its heap: 100 MB in 60 pictures of 448 px.
    """
    if trim := _of_c_library("malloc_trim"):
        trim(0)


def keep_memory() -> None:
    """Let the C library keep all freed memory of this process for its next blocks (glibc).

    At first it gives blocks of the size of a feature map back, and the system clears every new one, which can take
    longer than a convolution; in a long training it keeps them by itself.
    """
    set_option = _of_c_library("mallopt")
    if set_option and any(set_option(M_MMAP_THRESHOLD, size) for size in (1 << 30, 1 << 25)):  # older ones: 32 MiB
        set_option(M_TRIM_THRESHOLD, (1 << 31) - 1)


@cache
def _of_c_library(function: str) -> Callable[..., int] | None:
    """A function of glibc; None on macOS and Windows."""
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), function)
    except (OSError, AttributeError, TypeError):
        return None
    return found


@contextmanager
def compiled_code_silenced() -> Iterator[None]:
    """Drop what compiled libraries print to standard error; Python's own output still gets there.

    libjpeg and libtiff print a line for every damaged picture, and no setting of Pillow or OpenCV stops them.
    """
    stream = sys.stderr
    if stream is None:  # the process was started without one
        yield
        return
    raw = _StandardError(os.dup(2))
    saved, silence = raw.descriptor, os.open(os.devnull, os.O_WRONLY)
    try:
        stream.flush()
        if _descriptor(stream) == 2:
            sys.stderr = io.TextIOWrapper(
                raw,
                stream.encoding,
                stream.errors,
                line_buffering=True,
                write_through=True,  # type: ignore[arg-type]
            )
        os.dup2(silence, 2)
        yield
    finally:
        os.dup2(saved, 2)
        sys.stderr, raw.descriptor = stream, 2
        os.close(saved)
        os.close(silence)


class _StandardError(io.RawIOBase):
    """Writes to a descriptor that can be exchanged: loggers that are made meanwhile keep the stream."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return os.write(self.descriptor, data)

    def fileno(self) -> int:
        return self.descriptor

    def isatty(self) -> bool:
        return os.isatty(self.descriptor)


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, AttributeError):  # a stream in memory
        return None


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
