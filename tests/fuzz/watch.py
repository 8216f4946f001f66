"""Run a function on thousands of cases in a process of its own, and tell which of them crash or hang it."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

PATIENCE = 10.0  # seconds of processor time; a case that needs more hangs
WALL = 20 * PATIENCE  # seconds on the clock, for a case that waits instead


def failures(check: Callable[[int], str | None], cases: range) -> Iterator[tuple[int, str]]:
    """Every failing case and what happened; a hang or a signal costs the process, and the next case gets a new one.

    Args:
        check: of one case, its complaint or None. cases: their numbers.
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
        to.send(check(case))
