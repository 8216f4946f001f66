"""Trainings that end early: by a signal, a data worker that dies, or another process of theirs that does.

A signal waits until the state of the training is whole: weights, optimizer, schedules and counters belong to the same
iteration. Then the state is saved, and ``--resume`` goes on from there to the result of an uninterrupted training. The
training is whole while it waits for data and while it evaluates, so a signal does not wait there. Several processes
agree after each iteration whether to end: all of them end after the same one, and the first one saves.

torch raises the death of a data worker in the middle of anything. Here that waits until the state is whole, which is
then saved. Data workers leave signals to the process that started them.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, barrier
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.runner import Runner
from torch.utils.data._utils import signal_handling

from mmms_plugin import signals
from mmms_plugin.errors import RunError, UserError, first_line
from mmms_plugin.files import write_text
from mmms_plugin.weights.newest import newest_checkpoint

EVALUATION_DUE = "evaluation_due"  # in checkpoints that were saved before or within an evaluation
BETWEEN = ("before_train_epoch", "before_val", "after_train")  # hooks before which the state is whole
WITHIN = ("after_train_epoch", "before_val_epoch", "after_val_epoch")  # hooks that change the state, or save it
TRAINING, TESTING = ("train_dataloader", "val_dataloader"), ("test_dataloader",)  # parts of a config that load data
PICTURES = ()  # of no loader: single pictures
LESS_MEMORY = {
    TRAINING: "a smaller --batch-size or --image-size",
    TESTING: "--cfg-options test_dataloader.batch_size=1 or a smaller --image-size",
    PICTURES: "a smaller --image-size",
}
DEAD_WORKER = re.compile(r"DataLoader worker \(pid.*\) (?:exited unexpectedly|is killed by signal)")

PATIENCE, OVERDUE = 0.5, 10.0  # seconds
AGAIN = "start it again"

_deaths: list[str] = []  # what torch reports about data workers of this process
_within = False  # whether the state of a training is not whole at the moment


class SafeStop:
    """Ends a training only where its state is whole, and saves that.

    Attributes:
        command: the command that resumes the training, for messages; '' if there is none.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.command = ""
        self._evaluates = False
        self._evaluation_due = False
        self._steps = 0  # iterations done
        self._agreed: int | None = None  # signal that all processes end for
        note_deaths()
        _deaths.clear()

    def before_hooks(self, name: str) -> None:
        """Note that the runner is about to call its hooks of this name."""
        if name in BETWEEN:
            self._evaluation_due = name == "before_val"
            self.pause()
        if name in WITHIN:
            _set_within(True)
            self._evaluates = False

    def after_hooks(self, name: str) -> None:
        """Note that the runner has called its hooks of this name."""
        if name == "before_val_epoch":  # ranks evaluate at different speeds, so each obeys its own signal
            self._evaluates = True
            _set_within(False)
            signals.release()
        elif name == "after_val":
            self._evaluation_due = False
            self.pause()

    def pause(self) -> None:
        """End the training here if a signal waits. The state is whole here, and stays so until the next iteration."""
        _set_within(False)
        if not self.runner.distributed:
            signals.release()
        elif self._agreed:
            raise signals.Interrupted(self._agreed)

    def guard(self, loop: Any, pauses_to_load: bool) -> None:
        """Let signals wait during the iterations of a training loop.

        Args:
            loop: changed in place.
            pauses_to_load: whether the loop calls ``pause`` before it loads a batch. Otherwise every iteration ends
                with a pause, before an evaluation that may follow.
        """
        run_iter: Callable[..., None] = loop.run_iter

        def run_whole(*args: Any) -> None:
            _set_within(True)
            run_iter(*args)
            self._steps += 1
            if self.runner.distributed:
                number = torch.tensor(signals.asked() or 0)
                all_reduce(number, "max")
                self._agreed = int(number) or None
            if not pauses_to_load:
                self.pause()

        loop.run_iter = run_whole

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Save the state when a signal or a dead data worker ends the context; say what became of it in one line.

        Raises:
            Interrupted: a signal ended the training.
            RunError: a data worker died.
        """
        try:
            yield
        except BaseException as error:
            whole = not _within
            _set_within(True)
            number, death = signals.asked() or self._agreed, worker_death(error, TRAINING)
            if isinstance(error, KeyboardInterrupt):
                number = number or signal.SIGINT
            lost = self.runner.distributed and not whole and not isinstance(error, KeyboardInterrupt)
            if (number is None and death is None) or isinstance(error, RunError) or lost:
                raise
            text = self._outcome(whole) if self.runner.rank == 0 else ""
            if self._agreed:
                barrier()  # the others wait for the first one: torchrun ends all once one has ended
            if number is None:
                raise RunError(f"{death}; the training stopped {text}".rstrip()) from error
            raise signals.Interrupted(number, text) from error
        finally:
            _deaths.clear()
            _set_within(False)

    def _outcome(self, whole: bool) -> str:
        """Save what can be saved; where the training ended and how it can be resumed, '' before the first step."""
        runner = self.runner
        if not self._steps and whole:
            return ""
        place = f"after iteration {runner.iter}" if whole else f"within iteration {runner.iter + 1}"
        parts = [f"{place} of {runner.max_iters}"]
        saved = None
        try:
            saved = self._save() if whole else None
            parts.append(f"saved as {shown(saved)}" if saved else "not saved")
        except KeyboardInterrupt:
            parts.append("not saved")
        except (OSError, RunError, UserError) as error:
            parts.append(f"not saved ({first_line(error)})")
        checkpoint = saved or newest_checkpoint(runner.work_dir)[0]
        if saved is None:
            parts.append(f"the newest checkpoint is {shown(checkpoint)}" if checkpoint else "there is no checkpoint")
        if checkpoint and self.command:
            parts.append(f"resume with: {self.command}")
        return "; ".join(parts)

    def _save(self) -> str:
        """Save the whole state, as ``CheckpointHook`` names its files where it counts as the training stands."""
        runner = self.runner
        if self._evaluates:
            for hook in runner.hooks:
                if isinstance(hook, EMAHook) and getattr(hook, "evaluate_on_ema", True):
                    hook._swap_ema_parameters()  # back: it evaluates the average in place of the model
        hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        folder, name, backend = runner.work_dir, f"iter_{runner.iter}.pth", None
        if hook is not None:
            folder, backend = hook.out_dir, hook.backend_args
            ends_epoch = runner.epoch and runner.iter == runner.epoch * len(runner.train_dataloader)
            if not hook.by_epoch or ends_epoch:
                step = runner.epoch if hook.by_epoch else runner.iter
                name = hook.filename_tmpl.format(step)
                if hook.max_keep_ckpts > 0:  # the resumed training removes the oldest
                    kept = [number for number in hook.keep_ckpt_ids if number != step]
                    runner.message_hub.update_info("keep_ckpt_ids", [*kept, step])
        path = os.path.join(folder, name)
        runner.message_hub.update_info("last_ckpt", path)
        runner.message_hub.update_info(EVALUATION_DUE, self._evaluation_due)
        meta = dict(epoch=runner.epoch, iter=runner.iter)
        runner.save_checkpoint(folder, name, meta=meta, by_epoch=False, backend_args=backend)
        write_text(Path(runner.work_dir, "last_checkpoint"), path)
        return path


def shown(path: str | Path) -> str | Path:
    """A path as short as the current folder allows."""
    return Path(path).relative_to(Path.cwd()) if Path(path).is_relative_to(Path.cwd()) else path


def _set_within(within: bool) -> None:
    """Note whether the state of the training is not whole; then signals wait, and so do deaths of data workers.

    Raises:
        RuntimeError: a data worker died meanwhile.
    """
    global _within
    _within = within
    if within:
        signals.hold()
    elif _deaths:
        raise RuntimeError(_deaths[0])


def note_deaths() -> None:
    """Let torch note the death of a data worker in ``_deaths`` instead of raising it in the middle of anything.

    It is raised when the training pauses next, or by torch when the next batch is missing for five seconds. If neither
    happens, because the training waits for the rest of a half-sent batch, it is raised after all.
    """
    overdue = 0.0
    raise_death = signal_handling._error_if_any_worker_fails
    if hasattr(raise_death, "notes"):
        return

    def note() -> None:
        nonlocal overdue
        try:
            raise_death()
        except RuntimeError as error:  # once for each death
            _deaths.append(str(error))
            overdue = time.monotonic() + OVERDUE
            signals.send_later(signal.SIGCHLD, OVERDUE + PATIENCE)  # which calls this function again
        if _deaths and not _within and time.monotonic() > overdue:
            raise RuntimeError(_deaths[0])

    note.notes = True  # type: ignore[attr-defined]
    signal_handling._error_if_any_worker_fails = note


def shield_worker() -> None:
    """Let a data worker ignore the signals that ask its training to end, which would come too late without workers.

    Launchers and terminals send them to all processes. At the end of Python, ``kill_workers`` ends the workers. They
    also end at once with a training that is killed. Otherwise they may wait for ever to hand over a batch, and as they
    have inherited its connections, the other processes of a distributed training would wait too.
    """
    signals.ignore()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def kill_workers() -> None:
    """End the processes that Python would end itself, by SIGTERM, which data workers ignore."""
    signal_handling._error_if_any_worker_fails = lambda: None  # these deaths are no fault
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


def worker_death(error: BaseException, loaders: tuple[str, ...]) -> str | None:
    """What killed a data worker and what helps, if that is what the error says.

    Args:
        error: any.
        loaders: ``TRAINING`` or ``TESTING``.
    """
    lost_batch = isinstance(error, ConnectionError | EOFError | FileNotFoundError)  # the dead one was to hand it over
    if lost_batch and not isinstance(error, BrokenPipeError):
        deadline = time.monotonic() + PATIENCE
        while not _deaths and time.monotonic() < deadline:
            time.sleep(0.01)  # torch hears of the death a moment later
    if not (lost_batch and _deaths) and not (isinstance(error, RuntimeError) and DEAD_WORKER.match(str(error))):
        return None
    details = " ".join([str(error), *_deaths])
    reason = re.search(r"killed by signal: (\w+ ?\w*)", details)
    cause = "shared memory (/dev/shm) ran out" if "Bus error" in details else "memory ran out"
    return (
        f"a data worker was killed{f' ({reason[1].strip()})' if reason else ''}, most likely because {cause}: give "
        f"fewer workers (--cfg-options {' '.join(f'{loader}.num_workers=1' for loader in loaders)}, 0 for none), or "
        f"{LESS_MEMORY[loaders]}"
    )


@contextmanager
def peers_watched(command: str, loaders: tuple[str, ...]) -> Iterator[None]:
    """Turn the loss of another process of a distributed run into one line.

    Args:
        command: what the user can do.
        loaders: ``TRAINING``, ``TESTING`` or ``PICTURES``.

    Raises:
        RunError: the connection to another process is lost.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not _is_loss(cause):
            cause = cause.__cause__
        if cause is None:
            raise
        signals.end()
        raise RunError(
            "another process of this run has ended: killed, most often for lack of memory (then give "
            f"{LESS_MEMORY[loaders]}), or by an error that it printed; {command}"
        ) from error


def _is_loss(error: BaseException) -> bool:
    """Whether an error of torch is about the connection to other processes."""
    if isinstance(error, torch.distributed.DistError):
        return True
    words = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
