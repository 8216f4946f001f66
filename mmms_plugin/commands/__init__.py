"""The console script ``mmms``: one sub-command per module of this package.

A sub-command is a module with a docstring (its help), a dataclass ``Options``, from which the parser is made, and
``run(options) -> int | None``. Heavy imports stand in ``run``, so that help needs neither torch nor a host.

Exit status: 0 if all is done, 1 if the run had to stop (its loss became NaN, say), 2 if the user's input is at fault,
130 after Ctrl-C, 143 after SIGTERM, 129 if the terminal was closed; all but 0 print one line and no traceback. Anything
else is a bug.
"""

from __future__ import annotations

import argparse
import atexit
import errno
import gc
import importlib
import io
import locale
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from difflib import get_close_matches
from types import ModuleType

from mmms_plugin import signals
from mmms_plugin.compat.hosts import not_installed
from mmms_plugin.compat.processes import VARIABLES, first_to_fail, joined, others_failed
from mmms_plugin.errors import RunError, UserError, first_line, memory_checked, one_line
from mmms_plugin.options import add_options, from_args

UNKNOWN = "unrecognized arguments"  # argparse's words
UNUSABLE = (errno.ENAMETOOLONG, errno.ELOOP)  # as a path
# Variables of processes that torchrun, srun or mpirun started; RANK alone says nothing.
LAUNCHED = {"TORCHELASTIC_RUN_ID", VARIABLES["slurm"][1], VARIABLES["mpi"][1]}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)

COMMANDS = (
    "train", "test", "predict", "export", "check-data", "configs", "run", "make-shapes", "convert-data", "convert",
    "publish", "weights", "demo", "size-ap", "benchmark", "stress-test", "early-exit", "compare-seeds", "runs",
    "reproduce", "flops", "shapes", "scale-policy", "advise", "completion",
)  # fmt: skip


class _Help(argparse.HelpFormatter):
    """Descriptions keep their paragraphs; indented ones keep their lines. Lines end between words, not at hyphens."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip().split("\n\n")
        wrapped = ("\n".join(indent + line for line in self._split_lines(part, width)) for part in paragraphs)
        return "\n\n".join(
            part if part.startswith("    ") else lines for part, lines in zip(paragraphs, wrapped, strict=True)
        )

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        """A name of several words once: ``CHECKPOINT IMAGE [IMAGE ...]``."""
        words = action.metavar.split() if isinstance(action.metavar, str) else []
        if action.nargs == "+" and len(words) > 1:
            return f"{action.metavar} [{words[-1]} ...]"
        return super()._format_args(action, default_metavar)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False, break_long_words=False)


class _Parser(argparse.ArgumentParser):
    """argparse, with errors in one line instead of two, and the options that were probably meant."""

    def error(self, message: str) -> None:  # type: ignore[override]
        unknown, _, rest = message.partition(": ")
        meant = get_close_matches(rest.split()[0], self._option_string_actions, 2, 0.7) if unknown == UNKNOWN else []
        hint = f"; did you mean {' or '.join(meant)}?" if meant else ""
        raise UserError(f"{message}{hint} (see {self.prog} --help)")


def module_of(command: str) -> ModuleType:
    """The module of a command; its docstring is the help, the first line a summary."""
    return importlib.import_module(f"mmms_plugin.commands.{command.replace('-', '_')}")


def summary(command: str) -> str:
    """What a command does, in a few words."""
    return str(module_of(command).__doc__).partition("\n")[0].rstrip(".")


def script(*command: str) -> int:
    """What ``mmms`` and the scripts in ``tools/`` call: run ``main`` with ``command`` before their arguments.

    Hosts and pycocotools read and write text in the encoding of the system. Where that is not UTF-8, as on Windows
    before Python 3.15, Python is restarted in its UTF-8 mode, which keeps class names intact.
    """
    if sys.flags.utf8_mode or locale.getpreferredencoding(False).lower().replace("-", "") == "utf8":
        atexit.register(signals.ignore)  # the last: then Python drops its handlers, and a signal would be the status
        status = main([*command, *sys.argv[1:]])
        signals.end_at_once(status)
        gc.freeze()  # Python's end looks for garbage in every imported module, for seconds
        return status
    again = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
    if os.name != "nt":
        os.execv(sys.executable, again)
    for number in (signal.SIGINT, signal.SIGBREAK):  # type: ignore[attr-defined]  # the new process handles them
        signal.signal(number, signal.SIG_IGN)
    return subprocess.call(again)  # on Windows execv returns to the prompt at once


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``mmms COMMAND ...`` and return its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")  # a character that the encoding lacks ("≥" in cp1252) becomes "?"
    name = argv[0] if argv else ""
    if name != "benchmark":  # which measures with torch's own settings; train.processes explains the variable
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not os.environ.get("COLUMNS", "").strip("0"):  # 0, with which rich prints nothing
        os.environ.pop("COLUMNS", None)
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # operators that MPS lacks run on the CPU
    if name != "run":  # whose script is the user's own
        warnings.filterwarnings("ignore", "pkg_resources is deprecated")  # of mmengine 0.10, on import
        # The hosts warn about defaults that the user did not choose.
        for category in (UserWarning, FutureWarning):
            warnings.filterwarnings("ignore", category=category, module=r"mm(cv|det|engine|pretrain|seg)\.")
    with nullcontext() if name == "run" else signals.catching():
        return _guarded(name, argv)


def _guarded(name: str, argv: list[str]) -> int:
    """Run a command; what stops it becomes one line and a status."""
    try:
        with signals.explained():
            return _run(name, argv)
    except KeyboardInterrupt as error:
        signals.end()
        if (os.environ.get("RANK", "0") == "0" or not LAUNCHED & os.environ.keys()) and not others_failed():
            with suppress(OSError):
                print(one_line(f"mmms {name}: interrupted {error}".rstrip()), file=sys.stderr)
        return error.status if isinstance(error, signals.Interrupted) else 130
    except UserError as error:
        return _refuse(name, str(error)) if _speaks(argv) else 2
    except RunError as error:
        return _refuse(name, str(error), status=1) if first_to_fail() else 1
    except ImportError as error:
        if line := not_installed(error.name):
            return _refuse(name, line)
        if error.name != "cv2":
            raise
        pip = f"{sys.executable} -m pip"
        remedy = (
            f"{pip} uninstall -y opencv-python, then {pip} install --no-deps --force-reinstall opencv-python-headless"
        )
        return _refuse(name, f"OpenCV cannot be loaded on this system, {first_line(error)}: {remedy}")
    except BrokenPipeError:  # as in `mmms ... | head`
        _drop_output()
        return 141
    except OSError as error:
        if error.errno in UNUSABLE:
            return _refuse(name, f"{error.filename}: {error.strerror}")
        if error.errno not in FULL and not isinstance(error, PermissionError):
            raise
        _drop_output()
        return _refuse(name, f"{error.filename or 'output'} cannot be written ({error.strerror})")


def _run(name: str, argv: list[str]) -> int:
    if name in ("", "-h", "--help"):
        print("usage: mmms COMMAND ... (mmms COMMAND --help lists its options)\n")
        print("\n".join(f"  {command:<14}{summary(command)}" for command in COMMANDS))
        return 0 if name else 2
    if name == "--version":
        from mmms_plugin import __version__

        print(__version__)
        return 0
    if name not in COMMANDS:
        nearest = ", ".join(get_close_matches(name, COMMANDS, n=2))
        meant = f"did you mean {nearest}?" if nearest else f"allowed are {', '.join(COMMANDS)}"
        raise UserError(f"unknown command {name!r}: {meant}")
    with memory_checked("the run"):
        module = module_of(name)
        parser = _Parser(prog=f"mmms {name}", description=module.__doc__, formatter_class=_Help)
        add_options(parser, module.Options)
        options = from_args(module.Options, parser.parse_args(argv[1:]))
        if hasattr(options, "words"):
            options.words = tuple(argv[1:])
        options.check_files()
        with nullcontext() if name == "run" else _loading(f"mmms {name}: loading ..."):
            status: int = module.run(options) or 0
    sys.stdout.flush()
    return status


@contextmanager
def _loading(text: str) -> Iterator[None]:
    """Show a line on a terminal until the command prints: its imports take seconds. The first process shows it."""
    terminal = sys.stderr  # which rich replaces while it shows a bar
    streams = [sys.stdout, terminal]
    if os.environ.get("RANK", "0") != "0" or not all(stream is not None and stream.isatty() for stream in streams):
        yield
        return

    def erase() -> None:
        for stream in streams:
            vars(stream).pop("write", None)
        if streams:
            streams.clear()
            print(f"\r{' ' * len(text)}\r", end="", file=terminal, flush=True)

    def erasing(write: Callable[[str], int]) -> Callable[[str], int]:
        def erase_and_write(output: str) -> int:
            erase()
            return write(output)

        return erase_and_write

    print(text, end="", file=terminal, flush=True)
    for stream in streams:
        stream.write = erasing(stream.write)  # type: ignore[method-assign]
    try:
        yield
    finally:
        erase()


def _speaks(argv: Sequence[str]) -> bool:
    """Whether this process reports the user's fault: of those that a launcher started, one is enough.

    Before the processes have joined, faults are in options and files, the same for all processes of a machine.
    """
    launched = any(word.startswith("--launcher") for word in argv)
    local_ranks = [os.environ.get(names[2]) or "0" for names in VARIABLES.values()]
    return first_to_fail() if joined() else not launched or set(local_ranks) == {"0"}


def _refuse(name: str, message: str, status: int = 2) -> int:
    print(f"mmms{f' {name}' if name in COMMANDS else ''}: error: {one_line(message)}", file=sys.stderr)
    return status


def _drop_output() -> None:
    """Keep Python from trying again, at exit, to write what standard output did not take."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
