"""Files that are whole or absent: written in a temporary folder, flushed to the disk, then renamed.

Also what names of files mean: which are the system's own, and which are the same in two spellings.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import stat
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile, mkdtemp

from mmms_plugin.errors import UserError

WINDOWS = os.name == "nt"
PATIENCE = 2.0  # seconds for another program to let go of a file on Windows
LOCK = ".writing.lock"
LONGEST = 5.0  # seconds that nobody holds it for
OTHERS = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip
OF_SYSTEM = ("__macosx", "@eadir", "$recycle.bin", "thumbs.db", "desktop.ini")  # of macOS, Synology and Windows
UNFINISHED = ".mmms-"  # begins the names of temporary folders
OWNER = ".mmms.lock"  # in a temporary folder: locked while the process that made it lives
ATTEMPTS = 10  # at making one; another process can only spoil it in the instant before it is locked
_cleared: set[str] = set()  # folders that this process has cleared of what killed ones left


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden or the system's own: ``.DS_Store``, macOS's ``._x.jpg``, ``Thumbs.db``."""
    return name.startswith(".") or name.lower() in OF_SYSTEM


def composed(name: str) -> str:
    """A name with each accented letter as one character (Unicode's NFC), where macOS may write letter and accent."""
    return unicodedata.normalize("NFC", name)


def check_path(path: str | Path, argument: str) -> Path:
    """The path, if the system can look it up, whether or not it exists.

    Raises: UserError for names that are too long and folders without access.
    """
    path = Path(path)
    try:
        path.stat()  # from Python 3.14 on, path.exists() is False for names that are too long
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        detail = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{argument} {path}: cannot be used ({detail})") from error
    return path


def existing_file(path: str | Path, argument: str) -> Path:
    """The path of a file that exists.

    Raises: UserError for anything but a file.
    """
    path = check_path(path, argument)
    if path.is_dir():
        raise UserError(f"{argument} {path}: it is a directory, give a file")
    if not path.is_file():
        raise UserError(f"{argument} {path}: {'not a regular file' if path.exists() else 'no such file'}")
    return path


def checkpoint_file(path: str | Path) -> Path:
    """As ``existing_file``, of a checkpoint."""
    return existing_file(path, "checkpoint")


def exits_file(checkpoint: str | Path) -> Path:
    """Where the thresholds of a checkpoint are kept: ``NAME.exits.json`` beside ``NAME.pth``."""
    return Path(checkpoint).with_suffix(".exits.json")


def check_picture_source(argument: str) -> None:
    """Raises: UserError unless an argument is a file, a folder, or a pattern such as ``shots/*.png``."""
    path = Path(argument)
    if path.is_file() or path.is_dir() or glob.has_magic(argument):
        return
    try:
        other = what_else(path)
    except OSError as error:
        raise UserError(f"{argument}: no such picture or folder") from error
    raise UserError(f"{argument}: this is {other}, give a picture or folder")


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """Yield a new folder inside ``folder`` for files that are not whole yet; it is removed afterwards.

    A killed process leaves it behind, and the next one that writes into ``folder`` removes it. The name cannot be
    guessed, so that nobody can plant a link in it.

    Raises:
        OSError: it cannot be made.
    """
    from filelock import FileLock, Timeout

    clear_unfinished(folder)
    for _ in range(ATTEMPTS):
        place = Path(mkdtemp(dir=folder, prefix=UNFINISHED))
        owner = FileLock(place / OWNER, timeout=0, fallback_to_soft=False)
        try:
            owner.acquire()
        except Timeout:  # which is an OSError
            continue
        except OSError:  # a file system without locks: no process will take the folder for a killed one's
            with suppress(OSError):
                (place / OWNER).unlink()
            break
        if (place / OWNER).exists():
            break
        owner.release()
    try:
        yield place
    finally:
        owner.release()
        shutil.rmtree(place, ignore_errors=True)


def clear_unfinished(folder: str | Path) -> None:
    """Remove the temporary folders of killed processes, once in the life of this one.

    The system releases a lock however its process ends, so a folder whose lock is free belongs to none that lives.
    Nothing else is removed, nor anything on a file system without locks.
    """
    key = os.path.realpath(folder)
    if key in _cleared:
        return
    _cleared.add(key)
    pattern = re.compile(re.escape(UNFINISHED) + r"\w{8}")
    with suppress(OSError), os.scandir(folder) as entries:
        places = [
            Path(entry) for entry in entries if pattern.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        ]
        for place in places:
            with suppress(OSError):
                _remove_abandoned(place)


def _remove_abandoned(place: Path) -> None:
    from filelock import FileLock, Timeout

    if not (place / OWNER).is_file():
        return
    try:
        with FileLock(place / OWNER, timeout=0, fallback_to_soft=False):
            shutil.rmtree(place, ignore_errors=True)
    except Timeout:
        return
    shutil.rmtree(place, ignore_errors=True)  # Windows removes no lock that is held


@contextmanager
def written_whole(path: str | Path, rename: Callable[[Path], Path] | None = None) -> Iterator[Path]:
    """Yield a file of the name of ``path`` in a temporary folder; on success it moves to ``path``, else it is removed.

    The file and its folder reach the disk before and after the renaming: a crash leaves the old file or the new one.

    Args:
        path: the file to write; missing folders are made, an existing file is replaced.
        rename: makes the final path from the finished temporary file instead (a name with its hash, say).

    Raises:
        UserError: the folder or the file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(path.parent) as place:
            temporary = place / path.name
            temporary.touch()
            yield temporary
            flush(temporary)
            temporary.chmod(0o666 & ~umask())  # some libraries make files that only their owner can read
            final = path if rename is None else rename(temporary)
            replace(temporary, final)
            flush_folder(final.parent)
    except OSError as error:
        raise UserError(f"output {path}: cannot be written ({error.strerror or error})") from error


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
        with unfinished(folder) as place:
            files = place / "files"
            files.mkdir()
            yield files
            with _locked(folder):
                for path in sorted(files.iterdir()):
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


def what_else(path: str | Path) -> str:
    """What a path names in place of a regular file, such as 'a named pipe', from which reading may never end; or ''.

    Raises:
        FileNotFoundError: there is nothing.
        OSError: the system cannot tell.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if os.path.islink(path):
            return "a link to a file that is missing"
        raise
    except ValueError as error:  # a character that no name can have
        raise FileNotFoundError(str(error)) from error
    return "" if stat.S_ISREG(mode) else next((name for holds, name in OTHERS if holds(mode)), "a special file")


def refuse_existing(path: str | Path, argument: str, force: bool) -> None:
    """Raise UserError if a file that the user may have edited would be replaced without ``--force``."""
    if os.path.lexists(path) and not force:
        raise UserError(f"{argument} {path}: it exists already; give --force to overwrite it")


def make_folder(folder: str | Path, argument: str = "--out") -> Path:
    """The folder, made if need be.

    Raises:
        UserError: it cannot be made or written to; the message names ``argument``.
    """
    if folder == "":
        raise UserError(f"{argument}: the name of the folder is empty")
    folder = Path(folder)
    for left in reversed(range(ATTEMPTS)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{argument} {folder}: this folder cannot be made ({error.strerror})") from None
        try:
            NamedTemporaryFile(dir=folder).close()
            break
        except OSError as error:
            if left and not folder.exists():  # another process has just checked it, and removed it again
                continue
            raise UserError(f"{argument} {folder}: nothing can be written there ({error.strerror})") from None
    clear_unfinished(folder)
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
        with suppress(OSError):  # another process uses it
            path.rmdir()


def umask() -> int:
    """Of the process, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
