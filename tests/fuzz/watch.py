"""Run a function on thousands of cases in a process of its own, and tell which of them crash or hang it."""

from __future__ import annotations

import faulthandler
import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

PATIENCE = 10.0  # seconds; a case that needs more hangs


def failures(
    check: Callable[[int], str | None], cases: range, start: Callable[[], object], patience: float = PATIENCE
) -> Iterator[tuple[int, str]]:
    """Every failing case and what happened; a hang or a signal costs the process, and the next case gets a new one.

    Args:
        check: of one case, its complaint or None. cases: their numbers. start: called first in each process.
        patience: seconds.
    """
    todo = list(cases)
    while todo:
        ours, theirs = multiprocessing.get_context("fork").Pipe()
        worker = multiprocessing.get_context("fork").Process(target=_work, args=(check, todo, start, theirs))
        worker.start()
        theirs.close()
        while todo:
            try:
                complaint = ours.recv() if ours.poll(patience) else f"hangs for more than {patience:g} s"
            except EOFError:
                worker.join()
                complaint = f"process ended with {worker.exitcode}"
            case = todo.pop(0)
            if complaint:
                yield case, complaint
            if complaint and complaint.startswith(("hangs", "process")):
                worker.kill()
                break
        worker.join()


def _work(check: Callable[[int], str | None], cases: list[int], start: Callable[[], object], to: Connection) -> None:
    faulthandler.disable()
    start()
    for case in cases:
        to.send(check(case))
