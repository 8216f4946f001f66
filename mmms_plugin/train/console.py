"""What a run shows on the console: what the user is to read. The whole log of mmengine goes to its file."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from mmengine.logging import MMLogger
from rich.console import Console

# Warnings of mmengine and the hosts in every run, about nothing that the user did.
USUAL = (
    "will be deprecated",
    'is the alias of "LocalBackend"',
    "The prefix is not set in metric class",
    "Advance dataloader",
    "it will be restarted and continue to iterate",
    "The dataset metainfo from the resumed checkpoint is different",
)
# Python warnings of the same kind
USUAL_PYTHON = ("This DataLoader will create .* worker processes",)
CHATTY = ("pycocotools", "mmengine")  # print their progress and tables; the metrics are shown by ProgressHook

_bars: list[Console] = []  # that show a progress bar, which must not be written into


@contextlib.contextmanager
def bar_on(console: Console) -> Iterator[None]:
    """While this lasts, lines are printed above the progress bar of ``console``."""
    _bars.append(console)
    try:
        yield
    finally:
        _bars.remove(console)


def _print(text: str, stream: Any, end: str = "\n") -> None:
    if _bars and stream.isatty():
        _bars[-1].print(text, end=end, markup=False, highlight=False, soft_wrap=True)
    else:
        print(text, end=end, file=stream, flush=True)


class ConsoleHandler(logging.Handler):
    """Print warnings, and lines given to ``say``, on the standard output that there was when it was made."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.stream = sys.stdout

    def filter(self, record: logging.LogRecord) -> bool:  # type: ignore[override]
        """Whether to show a record."""
        shown = getattr(record, "console", False)
        if not shown and (record.levelno < logging.WARNING or any(text in record.getMessage() for text in USUAL)):
            return False
        return bool(super().filter(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Print it as one message, without date and level."""
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        _print(f"{prefix}{record.getMessage()}", self.stream)


def calm(logger: logging.Logger) -> None:
    """Let a logger of mmengine print only what the user is to read; its file gets everything."""
    for index, handler in enumerate(logger.handlers):
        if isinstance(handler, logging.FileHandler):
            handler.handleError = _Unwritable()  # type: ignore[method-assign]
        if type(handler) is logging.StreamHandler:
            logger.handlers[index] = ours = ConsoleHandler(handler.level)
            for known in handler.filters:  # mmengine's own, against repeated warnings
                ours.addFilter(known)


class _Unwritable:
    """Tells once, in a line, that the log file cannot be written, where logging prints a traceback for every record."""

    told = False

    def __call__(self, record: logging.LogRecord) -> None:
        if not self.told:
            self.told = True
            print(f"warning: the log file cannot be written ({sys.exc_info()[1]})", file=sys.stderr)


def say(line: str) -> None:
    """A line for the user and for the log file; in distributed runs the first process prints it."""
    MMLogger.get_current_instance().info(line, extra={"console": True})


class _Output:
    """Standard output that leads what ``CHATTY`` prints into the log."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.partition(".")[0] in CHATTY:
            logger = MMLogger.get_current_instance()
            if text.strip() and any(isinstance(handler, logging.FileHandler) for handler in logger.handlers):
                logger.info(text.rstrip())
        else:
            _print(text, self._stream, end="")
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def calm_output() -> Iterator[None]:
    """While this lasts, the chatter of evaluation goes to the log file, and usual warnings nowhere."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(_Output(sys.stdout)):  # type: ignore[type-var]
        for message in USUAL_PYTHON:
            warnings.filterwarnings("ignore", message)
        yield
