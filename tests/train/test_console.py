"""The console shows progress, metrics and warnings; the log file shows everything."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.logging import HistoryBuffer, MMLogger
from rich.console import Console

from mmms_plugin.train.console import ConsoleHandler, ProgressHook, calm, calm_output, say


def runner_at(iteration: int, epochs: int = 1) -> SimpleNamespace:
    scalars = {"train/loss": HistoryBuffer([2.0, 1.0], [1, 1]), "train/time": HistoryBuffer([4.0, 2.0], [1, 1])}
    return SimpleNamespace(
        rank=0, iter=iteration, max_iters=100, epoch=iteration // 20, max_epochs=epochs, val_dataloader=range(8),
        test_dataloader=range(8), message_hub=SimpleNamespace(log_scalars=scalars),
    )  # fmt: skip


def lines_of(hook: ProgressHook, iterations: int, seconds_each: float, now: list[float]) -> list[str]:
    hook.console = Console(file=io.StringIO(), width=60)
    hook.before_train(runner_at(0))
    for iteration in range(iterations):
        now[0] += seconds_each
        hook.after_train_iter(runner_at(iteration), iteration)
    return hook.console.file.getvalue().splitlines()


def test_without_a_terminal_there_is_a_line_now_and_then_and_at_the_end() -> None:
    now = [0.0]
    lines = lines_of(ProgressHook(clock=lambda: now[0]), 100, 1.0, now)
    assert [line.split(",")[0] for line in lines] == [f"training: {done} of 100" for done in (30, 60, 90, 100)]
    assert "loss 1.5, 0:03:30 left, " in lines[0]  # 70 iterations at 3 s
    assert lines[0].endswith(" GiB")
    lines = lines_of(ProgressHook(interval=40, clock=lambda: now[0]), 100, 1.0, now)
    assert [line.split(",")[0] for line in lines] == [f"training: {done} of 100" for done in (40, 80, 100)]
    lines = lines_of(ProgressHook(seconds=5, clock=lambda: now[0]), 21, 1.0, now)
    assert [line.split(",")[0] for line in lines] == [f"training: {done} of 100" for done in (5, 10, 15, 20)]


def test_an_evaluation_without_a_terminal_and_a_run_that_logs_nothing_yet(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda: 3 * 2**29)
    hook = ProgressHook(clock=lambda: now[0])
    hook.console = Console(file=io.StringIO(), width=60)
    for begin, iterate in (
        (hook.before_val_epoch, hook.after_val_iter),
        (hook.before_test_epoch, hook.after_test_iter),
    ):
        now[0] += 10
        begin(runner_at(46))
        for batch in range(8):
            now[0] += 15
            iterate(runner_at(46), batch)
    empty = runner_at(99, epochs=5)
    empty.message_hub.log_scalars = {}
    hook.after_train_iter(empty, 99)
    assert hook.console.file.getvalue().splitlines() == [
        *[
            f"evaluating: {done} of 8, 0:0{left} left, 1.5 GiB"
            for done, left in ((2, "1:30"), (4, "1:00"), (6, "0:30"))
        ],
        "evaluating: 8 of 8, computing metrics, 1.5 GiB",
        *[
            f"evaluating: {done} of 8, 0:0{left} left, 1.5 GiB"
            for done, left in ((2, "1:30"), (4, "1:00"), (6, "0:30"))
        ],
        "evaluating: 8 of 8, computing metrics, 1.5 GiB",
        "epoch 5/5: 100 of 100, 1.5 GiB",
    ]


def test_a_terminal_has_bars_for_training_and_evaluation_and_none_afterwards() -> None:
    now = [0.0]
    hook = ProgressHook(clock=lambda: now[0])
    hook.console = Console(file=io.StringIO(), force_terminal=True, width=80)
    hook.before_train(runner_at(0, epochs=5))
    hook.after_train_iter(runner_at(45, epochs=5), 5)
    hook.before_val_epoch(runner_at(46))
    now[0] = 4.0
    hook.after_val_iter(runner_at(46), 3)
    hook._bars.refresh()
    shown = hook.console.file.getvalue()
    assert "epoch 3/5" in shown
    assert "46/100" in shown
    assert "loss 1.5, 0:02:42 left" in shown
    assert "evaluating" in shown
    assert "0:00:04 left" in shown  # half of 8 batches took 4 s
    hook.after_val_epoch(runner_at(46), None)
    hook._bars.refresh()
    assert "evaluating" not in hook.console.file.getvalue().rpartition("epoch 3/5")[2]
    hook.after_train(runner_at(99))
    assert hook.console.file.getvalue().endswith("\x1b[2K"), "the bars are taken away"


def test_metrics_are_shown_and_empty_bins_are_not_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    calm(MMLogger.get_instance("metrics shown"))
    hook, metrics = ProgressHook(), {"mAP": np.float32(0.25), "mAP_l": -1.0, "mAP_tiny": float("nan"), "table": "text"}
    hook.after_val_epoch(runner_at(46), metrics)
    hook.after_val_epoch(runner_at(46), {f"m{n}": n / 2 for n in range(14)})
    hook.after_val_epoch(runner_at(60, epochs=5), {f"m{n}": n / 2 for n in range(12)})
    hook.after_val_epoch(runner_at(46), {})
    hook.after_test_epoch(runner_at(46), metrics)
    hook.after_test_epoch(runner_at(46), {f"m{n}": n / 2 for n in range(14)})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "iteration 46: mAP: 0.2500, mAP_l: n/a, mAP_tiny: n/a"
    assert printed[1].endswith("m11: 5.5000, 2 more in the log")
    assert printed[2].startswith("epoch 3: m0: 0.0000, ")
    assert printed[2].endswith("m11: 5.5000")
    assert printed[3:6] == ["mAP: 0.2500", "mAP_l: n/a", "mAP_tiny: n/a"]
    assert printed[6:] == [f"m{n}: {n / 2:.4f}" for n in range(14)]


def test_the_console_shows_what_is_for_the_user(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = MMLogger.get_instance("shown", log_file=str(tmp_path / "log.txt"))
    calm(logger)
    logger.info("2,000 lines of config")
    logger.warning("a class never occurs")
    logger.warning("a class never occurs")
    logger.warning('"FileClient" will be deprecated in future')
    logger.error("no will")
    logger.error("all of it will be deprecated")
    ProgressHook().before_val_epoch(runner_at(46))
    logger.error("The testing results of the whole dataset is empty.")
    logger.warning("Since `metrics` is an empty dict, the behavior to save the best checkpoint will be skipped")
    say("going on from iter_4.pth")
    with calm_output():
        print("printed by the user's own code")
        exec("print('Accumulating evaluation results...')", {"__name__": "pycocotools.cocoeval"})
        exec("print('of mmengine_like')", {"__name__": "mmengine_like.x"})
        assert sys.stdout.write("four") == 4
        print()
        warnings.warn("This DataLoader will create 8 worker processes in total", stacklevel=1)
    assert capsys.readouterr().out.splitlines() == [
        "warning: a class never occurs",
        "error: no will",
        "iteration 46: nothing is detected, so there is no AP",
        "going on from iter_4.pth",
        "printed by the user's own code",
        "of mmengine_like",
        "four",
    ]
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "\n\n" not in log
    for text in ("lines of config", "never occurs", "FileClient", "iter_4.pth", "Accumulating evaluation"):
        assert text in log


@pytest.mark.needs(os.path.exists("/dev/full"), reason="a device that is always full")
def test_a_log_on_a_full_disk_is_one_line(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = MMLogger.get_instance("full", log_file="/dev/full")
    calm(logger)
    logger.info("first")
    logger.info("second")
    assert capsys.readouterr().err == ("warning: the log file cannot be written ([Errno 28] No space left on device)\n")


def test_only_the_first_process_prints() -> None:
    handler = ConsoleHandler(logging.ERROR)  # the level that mmengine gives the others
    assert handler.level == logging.ERROR
    hook = ProgressHook(interval=1)
    hook.console = Console(file=io.StringIO())
    other = runner_at(5)
    other.rank = 1
    hook.after_train_iter(other, 5)
    assert not hook.console.file.getvalue()
    hook.console = Console(file=io.StringIO(), force_terminal=True)
    hook.before_train(other)
    hook.after_train_iter(other, 5)
    hook.close()
    assert not hook.console.file.getvalue()


def test_lines_are_printed_above_a_bar_and_plainly_once_it_is_gone(tmp_path, monkeypatch, capsys) -> None:
    """What has no log file either, the chatter of an evaluation, is dropped."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    calm(MMLogger.get_instance("above a bar"))
    hook = ProgressHook()
    hook.console = Console(file=io.StringIO(), force_terminal=True, width=80)
    hook.before_test_epoch(runner_at(0))
    say("above [bold]the bar")
    assert "above [bold]the bar" in hook.console.file.getvalue()
    hook.after_test_epoch(runner_at(0))
    say("after the bar")
    with calm_output():
        exec("print('Accumulating')", {"__name__": "pycocotools.cocoeval"})
    assert "after" not in hook.console.file.getvalue()
    assert capsys.readouterr().out == "after the bar\n"
