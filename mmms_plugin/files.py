"""Files that are whole or absent: written under a temporary name, flushed to the disk, then renamed.

Also what names of files mean: which are the system's own, and which are the same in two spellings.
"""

from __future__ import annotations

import os
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory, mkstemp

from mmms_plugin.errors import UserError

WINDOWS = os.name == "nt"
PATIENCE = 2.0  # seconds for another program to let go of a file on Windows
LOCK = ".writing.lock"
LONGEST = 5.0  # seconds that nobody holds it for
OF_SYSTEM = ("__macosx", "@eadir", "$recycle.bin", "thumbs.db", "desktop.ini")  # of macOS, Synology and Windows


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden or the system's own: ``.DS_Store``, macOS's ``._x.jpg``, ``Thumbs.db``."""
    return name.startswith(".") or name.lower() in OF_SYSTEM


def composed(name: str) -> str:
    """A name with each accented letter as one character (Unicode's NFC), where macOS may write letter and accent."""
    return unicodedata.normalize("NFC", name)


@contextmanager
def written_whole(path: str | Path, rename: Callable[[Path], Path] | None = None) -> Iterator[Path]:
    """Yield an unused name in the folder of ``path``; on success the file gets its own name, else it is removed.

    The name cannot be guessed, so that nobody can plant a link in its place; it keeps the suffix of ``path``. The file
    and its folder reach the disk before and after the renaming: a crash leaves the old file or the new one.

    Args:
        path: the file to write; missing folders are made, an existing file is replaced.
        rename: makes the final path from the finished temporary file instead (a name with its hash, say).

    Raises:
        UserError: the folder or the file cannot be written.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = mkstemp(dir=path.parent, prefix=f".{path.stem[:50]}.", suffix=path.suffix)
        os.close(descriptor)
        temporary = Path(name)
        yield temporary
        flush(temporary)
        temporary.chmod(0o666 & ~umask())  # mkstemp, and some libraries, make files that only their owner can read
        final = path if rename is None else rename(temporary)
        replace(temporary, final)
        flush_folder(final.parent)
    except OSError as error:
        raise UserError(f"output {path}: cannot be written ({error.strerror or error})") from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def files_written_together(folder: str | Path, argument: str = "--out") -> Iterator[Path]:
    """Yield an empty folder inside ``folder``; on success its files move out of it, else nothing is left of them.

    Files of the same names are replaced, all at once: of two processes that write into one folder, it then holds the
    files of one, not some of each. The folder is made if need be, and a new one does not outlive a failure.

    Raises:
        UserError: the folder cannot be made or written to; the message names ``argument``.
    """
    folder = Path(folder)
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder, argument)
    try:
        with TemporaryDirectory(dir=folder, prefix=".", ignore_cleanup_errors=True) as name:
            yield Path(name)
            with _locked(folder):
                for path in sorted(Path(name).iterdir()):
                    replace(path, folder / path.name)
                flush_folder(folder)
    except BaseException as error:
        for path in new:
            with suppress(OSError):
                path.rmdir()
        if isinstance(error, OSError):
            raise UserError(f"{argument} {folder}: cannot be written ({error.strerror or error})") from error
        raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Take turns with other processes that write into the folder, each for a moment."""
    from filelock import SoftFileLock, Timeout  # a tenth of a second, which most commands do not need

    lock = SoftFileLock(folder / LOCK, timeout=LONGEST)
    with suppress(OSError):  # moving the files unlocked is better than losing them
        try:
            lock.acquire()
        except Timeout:  # a process that was killed, on another machine, say
            Path(folder, LOCK).unlink()
    try:
        yield
    finally:
        lock.release()


def replace(source: Path, target: Path) -> None:
    """Rename a file onto another, as ``os.replace``; on Windows, wait for programs that have the other one open.

    Raises:
        OSError: it cannot be renamed, or another program keeps the target open.
    """
    deadline = time.monotonic() + (PATIENCE if WINDOWS else 0)
    while True:
        try:
            return os.replace(source, target)
        except PermissionError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.05)


def write_text(path: str | Path, text: str) -> Path:
    """Write a UTF-8 text file, the same on every system, by way of ``written_whole``. Returns ``path``.

    Lone surrogates become escapes.
    """
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    return Path(path)


def flush(file: Path) -> None:
    """Wait until the content of a file has reached the disk."""
    with file.open("r+b") as stream:  # Windows flushes only what is open for writing
        os.fsync(stream.fileno())


def flush_folder(folder: Path) -> None:
    """Wait until the names in a folder have reached the disk, where the system can do so: Windows opens no folders."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: str | Path, argument: str = "--out") -> Path:
    """The folder, made if need be.

    Raises:
        UserError: it cannot be made or written to; the message names ``argument``.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{argument} {folder}: this folder cannot be made ({error.strerror})") from None
    try:
        NamedTemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"{argument} {folder}: nothing can be written there ({error.strerror})") from None
    return folder


def check_folder(folder: str | Path, argument: str = "--out") -> None:
    """As ``make_folder``, to find a wrong one before minutes of work; leaves no new folder behind.

    Raises:
        UserError: it cannot be made or written to.
    """
    folder = Path(folder)
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder, argument)
    for path in missing:
        path.rmdir()


def umask() -> int:
    """Of the process, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
