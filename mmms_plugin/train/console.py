"""What a run shows on the console: messages for the user, progress and metrics. mmengine's log goes to its file.

Bars are drawn by rich. mmengine has none for training, and rich prints nothing where there is no terminal: there
``ProgressHook`` prints a line now and then.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from mmms_plugin import signals
from mmms_plugin.processes import peak_memory
from mmms_plugin.registry import HOOKS
from mmms_plugin.report.tables import NOT_AVAILABLE, metric_figure

# Parts of warnings that mmengine and the hosts print in every run, whatever the user does
USUAL = (
    "will be deprecated",
    'is the alias of "LocalBackend"',
    "The prefix is not set in metric class",
    "Advance dataloader",
    "it will be restarted and continue to iterate",
    "The dataset metainfo from the resumed checkpoint is different",
    "Since `metrics` is an empty dict",
    "Resumed iteration number is not divisible by",  # gradients of a half-done accumulation are in the checkpoint
)
# Messages of the hosts in our words
REWORDED = {
    "The testing results of the whole dataset is empty.": "{place}nothing is detected, so there is no AP",
    "Gradient accumulative may slightly decrease performance because the model has BatchNorm layers.": "batches are "
    "accumulated, and batch norm sees each of them alone: not quite the same as one large batch",
}
# The same for Python's own warnings
USUAL_PYTHON = ("This DataLoader will create .* worker processes", "Skip early stopping process")
CHATTY = ("pycocotools", "mmengine")  # they print progress and tables; ProgressHook shows the metrics
WINDOW = 50  # iterations over which loss and time are averaged
MOST = 12  # metrics on one line

_place = ""  # where in the training the evaluation is
_bars: list[Console] = []  # consoles with a progress bar, which other output must not break


@contextlib.contextmanager
def bar_on(console: Console) -> Iterator[None]:
    """Print lines above the progress bar of ``console`` while the context is open."""
    _bars.append(console)
    try:
        yield
    finally:
        _bars.remove(console)


def _print(text: str, stream: Any, end: str = "\n") -> None:
    if _bars and stream.isatty():
        _bars[-1].print(text, end=end, markup=False, highlight=False, soft_wrap=True)
        return
    try:
        print(text, end=end, file=stream, flush=True)
    except OSError:
        if signals.asked() is None:
            raise
        # The terminal was closed, or Ctrl-C ended the `tee` behind the command. The state is yet to be saved.


class ConsoleHandler(logging.Handler):
    """Print warnings and the lines of ``say`` on the standard output that was current when the handler was made."""

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
        """Print the message without its date."""
        text = record.getMessage()
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING and text not in REWORDED else ""
        ours = REWORDED.get(text)
        _print(ours.format(place=_place) if ours else f"{prefix}{text}", self.stream)


def calm(logger: logging.Logger) -> None:
    """Let a logger of mmengine print only what the user should read; its file gets everything."""
    for index, handler in enumerate(logger.handlers):
        if isinstance(handler, logging.FileHandler):
            handler.handleError = _Unwritable()  # type: ignore[method-assign]
        if type(handler) is logging.StreamHandler:
            logger.handlers[index] = ours = ConsoleHandler(handler.level)
            for repeated in handler.filters:  # mmengine's own, against repeated warnings
                ours.addFilter(repeated)


class _Unwritable:
    """Warns once, in one line, that the log file cannot be written; logging prints a traceback for every record."""

    warned = False

    def __call__(self, record: logging.LogRecord) -> None:
        if not self.warned:
            self.warned = True
            print(f"warning: the log file cannot be written ({sys.exc_info()[1]})", file=sys.stderr)


def say(line: str) -> None:
    """Print a line and log it; in distributed runs only the first process prints it."""
    MMLogger.get_current_instance().info(line, extra={"console": True})


class _Output:
    """Standard output, from which the output of ``CHATTY`` is redirected to the log."""

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
    """Send the chatter of evaluation to the log file and hide the usual warnings while the context is open."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(_Output(sys.stdout)):  # type: ignore[type-var]
        for message in USUAL_PYTHON:
            warnings.filterwarnings("ignore", message)
        yield


@HOOKS.register_module()
class ProgressHook(Hook):
    """Show iterations, loss, time left and memory, and the metrics of every evaluation.

    A terminal gets a bar, other outputs a line now and then.

    Args:
        interval: iterations between two lines; None for a line every ``seconds``.
        seconds: time between two lines.
        clock: returns the time in seconds.
    """

    priority = "VERY_LOW"

    def __init__(
        self, interval: int | None = None, seconds: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.interval, self.seconds, self.clock = interval, seconds, clock
        self.console = Console(file=sys.stderr)
        self._bars: Progress | None = None
        self._open = contextlib.ExitStack()
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self._last_line = clock()

    def before_train(self, runner: Runner) -> None:
        self._begin(runner, "train", "training", runner.max_iters, runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None, outputs: dict | None = None
    ) -> None:
        done, total, scalars = runner.iter + 1, runner.max_iters, runner.message_hub.log_scalars
        name = "training" if runner.max_epochs == 1 else f"epoch {runner.epoch + 1}/{runner.max_epochs}"
        notes = [f"loss {scalars['train/loss'].mean(WINDOW):.3g}"] if "train/loss" in scalars else []
        if "train/time" in scalars:
            notes.append(f"{_time(scalars['train/time'].mean(WINDOW) * (total - done))} left")
        due = done == total or (self.interval is not None and done % self.interval == 0)
        self._show(runner, "train", name, done, total, notes, due)

    def after_train(self, runner: Runner) -> None:
        self.close()

    def _before_epoch(self, runner: Runner, mode: str = "train") -> None:
        """Start the bar of an evaluation; ``before_train`` starts that of the training."""
        global _place
        _place = f"{_done(runner)}: " if mode == "val" else ""
        if mode != "train":
            self._begin(runner, mode, "evaluating", len(getattr(runner, f"{mode}_dataloader")))

    def _after_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None,
        outputs: Sequence | dict | None = None, mode: str = "train",
    ) -> None:  # fmt: skip
        """Show the progress of an evaluation; ``after_train_iter`` shows that of the training."""
        done, total = batch_idx + 1, len(getattr(runner, f"{mode}_dataloader"))
        left = (self.clock() - self._started[mode]) / done * (total - done)
        note = f"{_time(left)} left" if done < total else "computing metrics"
        self._show(runner, mode, "evaluating", done, total, [note], due=False)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if self._bars is not None and "val" in self._tasks:
            self._bars.remove_task(self._tasks.pop("val"))
            if not self._tasks:
                self.close()
        if metrics:
            say(f"{_done(runner)}: {', '.join(_metric_texts(metrics, MOST))}")

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.close()
        for text in _metric_texts(metrics or {}):
            say(text)

    def close(self) -> None:
        """Remove the bars from the terminal, also after an error."""
        if self._bars is not None:
            self._bars.stop()
        self._open.close()
        self._bars, self._tasks = None, {}

    def _begin(self, runner: Runner, stage: str, name: str, total: int, done: int = 0) -> None:
        self._started[stage] = self.clock()
        if runner.rank or not self.console.is_terminal:
            return
        if self._bars is None:
            columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn())
            self._bars = Progress(
                *columns, TextColumn("{task.fields[note]}"), console=self.console, transient=True,
                redirect_stdout=False,
            )  # fmt: skip
            self._bars.start()
            self._open.enter_context(bar_on(self.console))
        self._tasks[stage] = self._bars.add_task(name, total=total, completed=done, note="")

    def _show(
        self, runner: Runner, stage: str, name: str, done: int, total: int, notes: list[str], due: bool
    ) -> None:  # fmt: skip
        if runner.rank or signals.asked() is not None:  # Ctrl-C may have ended the program that the output goes to
            return
        used = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_memory()
        note = ", ".join([*notes, f"{used / 2**30:.1f} GiB"])  # peak so far, of the GPU or of this process
        if self._bars is not None:
            self._bars.update(self._tasks[stage], description=name, completed=done, note=note)
        elif due or (self.interval is None and self.clock() - self._last_line >= self.seconds):
            self._last_line = self.clock()
            self.console.print(f"{name}: {done} of {total}, {note}", highlight=False, soft_wrap=True)


def _done(runner: Runner) -> str:
    return f"iteration {runner.iter}" if runner.max_epochs == 1 else f"epoch {runner.epoch}"


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _metric_texts(metrics: Mapping[str, Any], most: int | None = None) -> list[str]:
    """Names and values, at most ``most`` of them."""
    numbers = {name: metric_figure(float(v)) for name, v in metrics.items() if isinstance(v, int | float | np.number)}
    texts = [f"{name}: {NOT_AVAILABLE if v is None else f'{v:.4f}'}" for name, v in numbers.items()]
    shown = texts if most is None else texts[:most]
    return [*shown, f"{len(texts) - len(shown)} more in the log"] if len(shown) < len(texts) else shown
