"""Ctrl-C and SIGTERM end a command at once, or as soon as what it holds is whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

import mmms_plugin.commands as cli
from mmms_plugin import signals
from mmms_plugin.errors import RunError, UserError

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
SIGNALS += [
    (getattr(signal, name), status) for name, status in (("SIGHUP", 129), ("SIGBREAK", 130)) if hasattr(signal, name)
]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(signals, "AGAIN", 0.0)


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_a_signal_ends_a_command_at_once_or_when_it_is_released(number, status):
    before = signal.getsignal(number)
    with signals.catching():
        with pytest.raises(signals.Interrupted) as stopped:
            signal.raise_signal(number)
        assert (stopped.value.status, signals.asked()) == (status, number)
    assert signals.asked() is None
    with signals.catching():
        signals.hold()
        signal.raise_signal(number)
        with pytest.raises(signals.Interrupted), signals.catching():  # the inner one changes nothing
            signals.release()
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_does_not_wait_but_what_a_launcher_repeats_does(monkeypatch):
    with signals.catching():
        signals.hold()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            signal.raise_signal(number)
        monkeypatch.setattr(signals, "AGAIN", 100.0)
        signal.raise_signal(signal.SIGINT)
        monkeypatch.setattr(signals, "AGAIN", 0.0)
        with pytest.raises(signals.Interrupted):
            signal.raise_signal(signal.SIGINT)
        signals.end()
        signal.raise_signal(signal.SIGINT)


def test_signals_that_are_ignored_or_of_another_process_change_nothing(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of a job in the background of a script
    try:
        with signals.catching():
            signal.raise_signal(signal.SIGINT)
            assert signals.asked() is None
            monkeypatch.setattr(os, "getpid", lambda: -1)  # a data worker, forked from a training
            signal.raise_signal(signal.SIGTERM)
            monkeypatch.undo()
            assert signals.asked() is None
    finally:
        signal.signal(signal.SIGINT, before)
    thread = threading.Thread(target=lambda: signals.catching().__enter__())
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("error", [SyntaxError("Failed to format the config file"), UserError("config: x"), OSError()])
def test_an_error_that_a_library_makes_of_a_signal_is_still_the_signal(error):
    """mmengine formats configs within ``except: raise SyntaxError(...)``."""
    with signals.catching():
        with pytest.raises(type(error)), signals.explained():
            raise error

        @signals.explained("nothing is lost")
        def swallow() -> None:
            try:
                signal.raise_signal(signal.SIGTERM)
            except KeyboardInterrupt:
                raise error from None

        with pytest.raises(signals.Interrupted, match=r"^nothing is lost$"):
            swallow()
        with pytest.raises(RunError), signals.explained():  # which says more
            raise RunError
        with pytest.raises(signals.Interrupted, match=r"^saved$"), signals.explained("lost"):
            raise signals.Interrupted(signal.SIGINT, "saved")


def test_a_signal_within_a_finalizer_is_not_lost(capsys):
    """Python prints what a finalizer raises, and goes on: "Exception ignored in ..."."""

    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    @signals.catching()
    def finalize() -> None:
        value = [Finalized()]
        value.clear()
        threading.Event().wait(20)

    with pytest.raises(signals.Interrupted):
        finalize()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("number", "status"), SIGNALS)
@pytest.mark.parametrize("rank", [None, "0", "1"])
@pytest.mark.parametrize("launcher", ["TORCHELASTIC_RUN_ID", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"])
def test_a_command_says_so_in_one_line(number, status, rank, launcher, monkeypatch, capsys):
    import mmms_plugin.commands.weights as command

    monkeypatch.setattr(command, "run", lambda options: signal.raise_signal(number))
    if rank is not None:
        monkeypatch.setenv(launcher, "1")
        monkeypatch.setenv("RANK", rank)
    assert cli.main(["weights", "list"]) == status
    assert capsys.readouterr().err == ("" if rank == "1" else "mmms weights: interrupted\n")


@pytest.mark.parametrize("late", [False, True])
def test_a_signal_at_the_very_end_is_silent(late):
    """Python's own end would print a traceback for each, and a late one would become the status."""
    at_exit = "atexit.register(signal.raise_signal, signal.SIGINT)\n"
    in_finalizer = "class Late:\n    def __del__(self, send=signal.raise_signal):\n        send(2)\nsys.late = Late()\n"
    code = (
        "import atexit, signal, sys\n"
        "import mmms_plugin.commands as cli\n"
        "from mmms_plugin.commands import weights\n"
        f"{in_finalizer if late else at_exit}"
        "weights.run = lambda options: signal.raise_signal(signal.SIGTERM)\n"
        "sys.argv[1:] = ['weights', 'list']\n"
        "sys.exit(cli.script())\n"
    )
    done = subprocess.run([sys.executable, "-X", "utf8", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (143, "mmms weights: interrupted\n")
