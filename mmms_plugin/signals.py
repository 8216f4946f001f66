"""Ctrl-C, SIGTERM and their like: where they end a command at once, and where they wait until its work is whole.

``catching`` turns the signals that ask a process to end into ``Interrupted``, so that a command cleans up, prints one
line and returns the usual status. Between ``hold`` and ``release``, such as in an iteration of a training, a signal
waits. A second Ctrl-C does not wait: what was held is then lost.

Python raises in the middle of whatever runs. Some libraries turn that into errors of their own, such as mmengine's
"SyntaxError: Failed to format the config file"; ``explained`` takes any error that follows a signal for its effect.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mmms_plugin.errors import RunError

CAUGHT = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # HUP: the terminal was closed. BREAK: Ctrl-Break on Windows
KEYS = ("SIGINT", "SIGBREAK")
AGAIN = 1.0  # seconds until a signal counts as a second one: launchers pass on what a terminal sent to all processes
WAITING = b"\nstopping as soon as the work is whole; Ctrl-C again stops at once and does not save\n"
SILENT_RETRY = 0.05  # seconds


class Interrupted(KeyboardInterrupt):
    """A signal asks the command to end; the text says what became of its work."""

    def __init__(self, number: int, text: str = "") -> None:
        super().__init__(text)
        self.number = number

    @property
    def status(self) -> int:
        """The usual exit status: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
        return 128 + (signal.SIGINT if _name(self.number) in KEYS else self.number)


@dataclass
class _State:
    """Of the process: signals are.

    Attributes:
        process: that catches signals. A forked process, such as a data worker, inherits the handlers and ignores what
            its parent deals with.
        asked: number of the first signal, or None.
        since: time of it.
        held: whether signals wait.
        ending: whether they change nothing any more.
    """

    process: int | None = None
    asked: int | None = None
    since: float = 0.0
    held: bool = False
    ending: bool = False


_state = _State()


@contextmanager
def catching() -> Iterator[None]:
    """Raise ``Interrupted`` for signals while the context is open; one that the caller ignores stays ignored."""
    global _state
    if threading.current_thread() is not threading.main_thread() or caught():
        yield
        return
    before = {number: handler for number in _numbers() if (handler := signal.getsignal(number)) != signal.SIG_IGN}
    hook, _state = sys.unraisablehook, _State(os.getpid())
    try:
        for number in before:
            signal.signal(number, _on_signal)
        sys.unraisablehook = _repeat(hook)
        yield
    finally:
        _state, sys.unraisablehook = _State(), hook
        for number, handler in before.items():
            signal.signal(number, handler)


def caught() -> bool:
    """Whether this process is within ``catching``."""
    return _state.process == os.getpid()


def asked() -> int | None:
    """The number of the signal that asked this process to end, if one did."""
    return _state.asked


def hold() -> None:
    """Let signals wait from now on."""
    _state.held = True


def release() -> None:
    """Raise ``Interrupted`` if a signal waits, and let signals raise it from now on."""
    _state.held = False
    if _state.asked is not None:
        raise Interrupted(_state.asked)


def end() -> None:
    """Let signals change nothing from now on: the process ends anyway."""
    _state.ending = True


def ignore() -> None:
    """Let this process ignore all signals that ask it to end."""
    for number in _numbers():
        signal.signal(number, signal.SIG_IGN)


def end_at_once(status: int) -> None:
    """From now on, let signals end the process with this status: nothing but Python's own end is left to do."""
    for number in _numbers():
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: os._exit(status))


def send_later(number: int, seconds: float) -> None:
    """Send the main thread a signal after some seconds; where the system can do that, it also ends a wait."""

    def send() -> None:
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(threading.main_thread().ident, number)  # type: ignore[arg-type]
        else:
            signal.raise_signal(number)

    timer = threading.Timer(seconds, send)
    timer.daemon = True
    timer.start()


@contextmanager
def explained(text: str = "") -> Iterator[None]:
    """Turn whatever ends the context after a signal into ``Interrupted`` with this text.

    An ``Interrupted`` with a text of its own passes, and so does a RunError, which was raised on purpose.
    """
    try:
        yield
    except BaseException as error:
        if _state.asked is None or isinstance(error, RunError) or (isinstance(error, Interrupted) and str(error)):
            raise
        raise Interrupted(_state.asked, text) from error


def _numbers() -> list[int]:
    return [number for name in CAUGHT if (number := getattr(signal, name, None)) is not None]


def _name(number: int) -> str:
    return signal.Signals(number).name


def _on_signal(number: int, frame: Any) -> None:
    if not caught() or _state.ending:
        return
    now, again = time.monotonic(), _state.asked is not None
    if again and (_name(number) not in KEYS or now - _state.since < AGAIN):
        return
    _state.asked, _state.since = number, now
    if _state.held and not again:
        if _name(number) in KEYS and os.isatty(2):
            os.write(2, WAITING)  # a stream may be in use by the code that the signal interrupts
        return
    raise Interrupted(number)


def _repeat(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A ``sys.unraisablehook`` that raises ``Interrupted`` again soon: in a finalizer, Python only prints it."""

    def repeat(unraisable: Any) -> None:
        error = unraisable.exc_value
        if not isinstance(error, Interrupted):
            hook(unraisable)
            return
        _state.asked = None
        send_later(error.number, SILENT_RETRY)

    return repeat
