"""One training per work folder: a lock that the system releases when the process ends, however it ends."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mmms_plugin.errors import UserError, one_line
from mmms_plugin.files import make_folder, write_text

LOCK = ".training.lock"
HOLDER = ".training.holder"  # who holds it: another program cannot read a locked file on Windows
# What a killed process leaves of a checkpoint or of last_checkpoint that it was writing (see files.written_whole).
LEFTOVER = re.compile(r"\.(?:(?:iter|epoch|best)_.+\.\w{8}\.pth|last_checkpoint\.\w{8})")


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold the work folder, which is made if need be; clear it of half-written checkpoints of a killed process.

    The lock is the process's own: workers that outlive a killed training for some seconds do not keep it. Where the
    file system knows no locks, nothing is locked.

    Raises:
        UserError: the folder cannot be written, or another process holds it; the message names it.
    """
    lock = FileLock(make_folder(folder, "--work-dir") / LOCK, timeout=0, fallback_to_soft=False)
    holder = Path(folder, HOLDER)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"--work-dir {folder}: a training is running in this folder ({_read_holder(holder)}); wait for its end, or "
            "give another folder"
        ) from None
    except OSError:
        yield
        return
    try:
        write_text(holder, f"process {os.getpid()} on {socket.gethostname()}")
        _clear_leftovers(Path(folder))
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()


def _read_holder(file: Path) -> str:
    with suppress(OSError):
        return one_line(file.read_text(encoding="utf-8", errors="replace")[:200].strip()) or "another process"
    return "another process"


def _clear_leftovers(folder: Path) -> None:
    for path in folder.iterdir():
        if LEFTOVER.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()
