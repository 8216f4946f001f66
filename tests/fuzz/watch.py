"""Run a function on thousands of cases in a process of its own, and report which of them crash or hang it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

PATIENCE = 10.0  # seconds of processor time; a case that needs more hangs
MEMORY = 2 << 30  # bytes in memory that no case may need, where Linux tells the peak
WALL = 20 * PATIENCE  # seconds on the clock, for a case that waits without computing


def failures(check: Callable[[int], str | None], cases: range) -> Iterator[tuple[int, str]]:
    """Every failing case and what happened; a hang or a signal costs the process, and the next case gets a new one.

    Args:
        check: returns the complaint about a case, or None.
        cases: their numbers.
    """
    todo = list(cases)
    while todo:
        ours, theirs = multiprocessing.get_context("fork").Pipe()
        worker = multiprocessing.get_context("fork").Process(target=_work, args=(check, todo, theirs))
        worker.start()
        theirs.close()
        for case, complaint in _watched(ours, worker, todo):
            todo.remove(case)
            if complaint:
                yield case, complaint
        worker.join()


def run_command(arguments: list[str]) -> tuple[int | str, str, str]:
    """Exit status or traceback of ``mmms``, standard output and standard error, caught where the system writes."""
    from mmms_plugin.commands import main

    with _caught(1) as output, _caught(2) as errors, warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", EncodingWarning)  # of other packages, where the environment asks for it
        try:
            status: int | str = main(arguments)
        except SystemExit as end:
            status = f"exits by itself with {end.code}"
        except BaseException:
            status = traceback.format_exc()
    return status, output.text, errors.text


def standard_error() -> AbstractContextManager[_Text]:
    """What is written to standard error meanwhile, by Python or by compiled code."""
    return _caught(2)


class _Text:
    text = ""


@contextmanager
def _caught(descriptor: int) -> Iterator[_Text]:
    """What is written to standard output (1) or standard error (2), by Python or by compiled code."""
    caught, name = _Text(), ("stdout", "stderr")[descriptor - 1]
    stream, before = getattr(sys, name), os.dup(descriptor)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), descriptor)
        errors = "strict" if descriptor == 1 else "backslashreplace"  # as Python opens them
        setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8", errors=errors, closefd=False))
        try:
            yield caught
        finally:
            getattr(sys, name).close()
            setattr(sys, name, stream)
            os.dup2(before, descriptor)
            os.close(before)
            file.seek(0)
            caught.text = file.read().decode("utf-8", "backslashreplace")


def _watched(
    ours: Connection, worker: multiprocessing.process.BaseProcess, cases: list[int]
) -> Iterator[tuple[int, str | None]]:
    for case in list(cases):
        try:
            if ours.poll(WALL):
                yield case, ours.recv()
                continue
            worker.kill()
            yield case, f"waits for more than {WALL:g} s"
        except EOFError:
            worker.join()
            hangs = worker.exitcode == -signal.SIGPROF
            yield case, f"hangs for more than {PATIENCE:g} s" if hangs else f"process ended with {worker.exitcode}"
        return


def _work(check: Callable[[int], str | None], cases: list[int], to: Connection) -> None:
    for case in cases:
        signal.setitimer(signal.ITIMER_PROF, PATIENCE)  # ends the process, in compiled code too
        _forget_peak()
        complaint = check(case)
        if complaint is None and (peak := _peak()) > MEMORY:
            complaint = f"takes {peak / 1e9:.1f} GB of memory"
        to.send(complaint)


def _forget_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak() -> int:
    """The most bytes that this process had in memory since ``_forget_peak``; 0 if unknown."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return 0
