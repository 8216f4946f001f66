"""A process in which this package finds what Windows has: ``python -m tests.windows COMMAND ...``.

Every module is imported, then each COMMAND is run, a whole command line of ``mmms`` as one argument. On Windows some
modules and functions of POSIX do not exist, folders cannot be opened, links cannot be made, and a file that is open
anywhere can neither be replaced nor removed. New processes are spawned, not forked. Other packages have their own
support of Windows: what does not exist is hidden from this package alone.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import multiprocessing
import os
import pkgutil
import shlex
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "readline", "syslog", "curses", "posix"}
OS_NAMES = ("fork", "forkpty", "getuid", "geteuid", "getgid", "wait4", "wait3", "sched_getaffinity", "getloadavg",
            "mkfifo", "statvfs", "nice", "killpg", "getpgid", "chown", "O_DIRECTORY", "O_NOFOLLOW")  # fmt: skip


class _OsOfWindows(ModuleType):
    """``os`` without the functions that Windows lacks."""

    def __getattr__(self, name: str) -> Any:
        if name in OS_NAMES:
            raise AttributeError(f"module 'os' has no attribute {name!r}")
        return getattr(os, name)


def hide_modules() -> None:
    """Let this package's own imports of POSIX modules fail, and its ``import os`` find what Windows has."""
    original, windows = builtins.__import__, _OsOfWindows("os")

    def importing(name: str, globals: Any = None, *rest: Any, **options: Any) -> Any:
        importer = str((globals or {}).get("__name__", ""))
        if importer.partition(".")[0] == "mmms_plugin":
            if name.partition(".")[0] in MODULES:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            if name == "os":
                return windows
        return original(name, globals, *rest, **options)

    builtins.__import__ = importing


def is_open(path: str | os.PathLike[str]) -> bool:
    """Whether this process has the file open or mapped."""
    wanted = os.path.realpath(path)
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{descriptor}") == wanted:
                return True
        except OSError:
            continue
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        return any(line.rstrip("\n").endswith(f" {wanted}") for line in maps)


def refuse_open_files() -> None:
    """Let replacing, renaming and removing of open files fail, and renaming onto a file that is there."""

    def refusing(function: Callable[..., Any], onto_existing: bool) -> Callable[..., Any]:
        @functools.wraps(function)
        def checked(*paths: Any, **options: Any) -> Any:
            if options.get("dir_fd") is None and isinstance(paths[0], str | os.PathLike):
                for path in paths[:2]:
                    if isinstance(path, str | os.PathLike) and os.path.lexists(path) and is_open(path):
                        raise PermissionError(13, "the file is open in a process", str(path))
                if not onto_existing and os.path.lexists(paths[1]):
                    raise FileExistsError(17, "the file exists", str(paths[1]))
            return function(*paths, **options)

        return checked

    for name in ("replace", "unlink", "remove", "rename"):
        setattr(os, name, refusing(getattr(os, name), onto_existing=name != "rename"))


def refuse_folders_and_links() -> None:
    """Let ``os.open`` of a folder fail, and the making of symbolic links."""
    plain_open = os.open

    def opening(path: Any, *arguments: Any, **options: Any) -> int:
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        return plain_open(path, *arguments, **options)

    def linking(source: Any, *_: Any, **__: Any) -> None:
        raise OSError(22, "A required privilege is not held by the client", str(source))

    os.open, os.symlink = opening, linking  # type: ignore[assignment]


def emulate() -> None:
    """Take away, for the rest of this process, what Windows lacks."""
    hide_modules()
    refuse_open_files()
    refuse_folders_and_links()
    multiprocessing.set_start_method("spawn", force=True)
    multiprocessing.set_start_method = lambda *_, **__: None  # mmengine keeps 'spawn' on Windows


def main() -> int:
    """Exit status of the first command that fails, or 0."""
    emulate()
    from mmms_plugin import __path__
    from mmms_plugin import commands as cli

    for module in pkgutil.walk_packages(__path__, "mmms_plugin."):
        importlib.import_module(module.name)
    return next((status for line in sys.argv[1:] if (status := cli.main(shlex.split(line)))), 0)


if __name__ == "__main__":
    sys.exit(main())
