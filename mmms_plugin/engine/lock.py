"""One training per work folder: a lock that the kernel releases when the process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmms_plugin.errors import UserError, one_line
from mmms_plugin.files import make_folder

LOCK = ".training.lock"
# What a killed process leaves of a checkpoint or of last_checkpoint that it was writing (see files.written_whole).
LEFTOVER = re.compile(r"\.(?:(?:iter|epoch|best)_.+\.\w{8}\.pth|last_checkpoint\.\w{8})")


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold the work folder, which is made if need be; clear it of half-written checkpoints of a killed process.

    A record lock (``lockf``) belongs to the process alone: workers that outlive a killed training for some seconds do
    not keep it. Where the file system knows no locks, nothing is locked.

    Raises:
        UserError: the folder cannot be written, or another process holds it; the message names it.
    """
    path = make_folder(folder, "--work-dir") / LOCK
    with path.open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = one_line(file.read(200).strip()) or "another process"
            raise UserError(
                f"--work-dir {folder}: a training is running in this folder ({holder}); wait for its end, or give "
                "another folder"
            ) from None
        except OSError:
            yield
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        _clear_leftovers(Path(folder))
        try:
            yield
        finally:
            file.truncate(0)


def process_rank(launcher: str) -> int:
    """The rank of this process among those of a distributed training, before mmengine knows it."""
    name = {"pytorch": "RANK", "slurm": "SLURM_PROCID", "mpi": "OMPI_COMM_WORLD_RANK"}.get(launcher)
    return int(os.environ.get(name, 0)) if name else 0


def _clear_leftovers(folder: Path) -> None:
    for path in folder.iterdir():
        if LEFTOVER.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()
