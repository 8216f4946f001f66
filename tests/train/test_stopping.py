"""A training that a signal ends is saved whole, and goes on as if nothing had happened."""

from __future__ import annotations

import functools
import itertools
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import loops
from mmengine.runner import runner as mmengine_runner
from torch.utils.data import Dataset

from mmms_plugin import files, signals
from mmms_plugin.commands import main
from mmms_plugin.errors import RunError, UserError
from mmms_plugin.train import launch, stopping
from mmms_plugin.train.runner import ResumableRunner
from mmms_plugin.weights.newest import newest_checkpoint
from mmms_plugin.weights.reader import read

RUNS = itertools.count()  # mmengine shares the state of runs of the same name in the same second
PICTURES, BATCH, EPOCHS = 8, 2, 3  # 12 iterations; the first picture is also loaded before them, to try it


class Signal:
    """Sends a signal to this process where a training is for the n-th time."""

    def __init__(self, place: str = "", count: int = 0, number: int = signal.SIGINT) -> None:
        self.place, self.count, self.number = place, count, number

    def __call__(self, place: str) -> None:
        self.count -= place == self.place
        if place == self.place and self.count == 0:
            signal.raise_signal(self.number)


class Data(Dataset):
    metainfo = {"classes": ("a",)}  # noqa: RUF012

    def __init__(self, send: Signal) -> None:
        self.send = send

    def __len__(self) -> int:
        return PICTURES

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        self.send("loading")
        return {"x": torch.arange(3.0) * index + random.random()}


class Model(BaseModel):
    def __init__(self, send: Signal) -> None:
        super().__init__()
        self.layers, self.send = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.5)), send

    def forward(self, x: torch.Tensor, mode: str = "tensor") -> Any:
        self.send("iteration" if mode == "loss" else "evaluation")
        y = self.layers(x)
        return {"loss": (y - 1).square().mean()} if mode == "loss" else [y]


class Metric(BaseMetric):
    def __init__(self, send: Signal) -> None:
        super().__init__(prefix="m")
        self.send = send

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(0.5)

    def compute_metrics(self, results: list) -> dict[str, float]:
        self.send("metrics")
        return {"acc": 0.5}


class Watch(Hook):
    """Passes on where the training is, and notes when it evaluates."""

    def __init__(self, send: Signal, evaluations: list[int]) -> None:
        self.send, self.evaluations = send, evaluations

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.send("after_train_iter")

    def after_train_epoch(self, runner) -> None:
        self.send("after_train_epoch")

    def before_train(self, runner) -> None:
        self.send("before_train")

    def before_val(self, runner) -> None:
        self.send("before_val")

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.send("after_val_epoch")
        self.evaluations.append(runner.iter)

    def before_save_checkpoint(self, runner, checkpoint) -> None:
        self.send("saving")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(mmengine_runner, "collect_env", dict)  # for the log, it asks compilers for their versions
    monkeypatch.setattr(loops.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(signals, "AGAIN", 0.0)


def train(folder: Path, loop: str, send: Signal | None = None, **more: Any) -> list[int]:
    """Train to the end, resuming what is there; the iterations after which it was evaluated."""
    send, evaluations = send or Signal(), []  # type: ignore[var-annotated]
    sampler = {"type": "InfiniteSampler" if loop == "infinite" else "DefaultSampler", "shuffle": True}
    loader = {"dataset": Data(send), "batch_size": BATCH, "num_workers": 0, "sampler": sampler,
              "collate_fn": {"type": "default_collate"}}  # fmt: skip
    by_epoch, per_epoch = loop == "epochs", PICTURES // BATCH
    options: dict[str, Any] = dict(
        work_dir=str(folder), default_scope="mmengine", experiment_name=str(next(RUNS)), resume=True,
        train_dataloader=loader, log_level="WARNING",
        val_dataloader={"dataset": Data(Signal()), "batch_size": 4, "num_workers": 0, "sampler": dict(
            type="DefaultSampler", shuffle=False), "collate_fn": {"type": "default_collate"}},
        train_cfg={"by_epoch": True, "max_epochs": EPOCHS} if by_epoch
        else {"by_epoch": False, "max_iters": EPOCHS * per_epoch, "val_interval": per_epoch},
        val_cfg={}, val_evaluator=Evaluator([Metric(send)]),
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
        param_scheduler=[{"type": "CosineAnnealingLR", "T_max": EPOCHS * per_epoch, "by_epoch": False},
                         {"type": "StepLR", "step_size": 1, "gamma": 0.5, "by_epoch": by_epoch}],
        default_hooks={"checkpoint": {"type": "CheckpointHook", "by_epoch": by_epoch, "interval": 100}},
        custom_hooks=[Watch(send, evaluations)], randomness={"seed": 3},
    ) | more  # fmt: skip
    if "custom_hooks" in more:
        options["custom_hooks"] = [Watch(send, evaluations), *more["custom_hooks"]]
    torch.manual_seed(1)
    try:
        runner = ResumableRunner(Model(send), **options)
        runner.stop.command = "mmms train x"
        runner.train()
    finally:
        train.evaluations = evaluations  # type: ignore[attr-defined]
    return evaluations


def state(folder: Path) -> dict[str, Any]:
    path, _ = newest_checkpoint(folder)
    content = read(path)
    momentum = {f"momentum {k}": v["momentum_buffer"] for k, v in content["optimizer"]["state"].items()}
    rates = {"rates": torch.tensor([group["lr"] for group in content["optimizer"]["param_groups"]])}
    return content["state_dict"] | content.get("ema_state_dict", {}) | momentum | rates


MOMENTS = [
    ("infinite", "iteration", 6, 6),
    ("infinite", "loading", 12, 5),
    ("infinite", "before_val", 2, 8),
    ("infinite", "evaluation", 2, 4),
    ("infinite", "metrics", 3, 12),
    ("infinite", "after_val_epoch", 1, 4),
    ("passes", "iteration", 9, 9),
    ("epochs", "iteration", 6, 6),
    ("epochs", "iteration", 4, 4),
    ("epochs", "loading", 14, 6),
    ("epochs", "after_train_epoch", 2, 8),
    ("epochs", "evaluation", 1, 4),
    ("epochs", "metrics", 3, 12),
    ("epochs", "after_val_epoch", 2, 8),
    ("epochs", "saving", 1, 12),
]


@functools.cache
def straight(loop: str, ema: bool = False) -> tuple[dict[str, Any], list[int]]:
    """The state after a training that nothing stops, and when it was evaluated."""
    with tempfile.TemporaryDirectory() as folder:
        hooks = dict(custom_hooks=[dict(type="EMAHook", momentum=0.3)]) if ema else {}
        evaluations = train(Path(folder), loop, **hooks)
        return state(Path(folder)), evaluations


def check_equal(resumed: dict[str, Any], whole: dict[str, Any]) -> None:
    assert resumed.keys() == whole.keys()
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name


@pytest.mark.parametrize(("loop", "place", "count", "done"), MOMENTS)
def test_a_signal_saves_the_whole_state_and_the_training_goes_on_from_it(loop, place, count, done, tmp_path):
    """Also where the config saves only at the end: weights, rates and evaluations equal those of a straight run."""
    with pytest.raises(signals.Interrupted) as stopped:
        train(tmp_path / "stopped", loop, Signal(place, count))
    evaluations = train.evaluations
    ends_epoch = loop == "epochs" and place not in ("iteration", "loading")
    path = tmp_path / "stopped" / (f"epoch_{done // 4}.pth" if ends_epoch else f"iter_{done}.pth")
    assert str(stopped.value).startswith(f"after iteration {done} of 12; saved as {path}; resume with: mmms train x")
    assert newest_checkpoint(tmp_path / "stopped")[0] == path
    assert sorted(tmp_path.glob("stopped/.*")) == []
    evaluations += train(tmp_path / "stopped", loop)
    assert evaluations == straight(loop)[1] == [4, 8, 12]
    check_equal(state(tmp_path / "stopped"), straight(loop)[0])


@pytest.mark.parametrize("loop", ["infinite", "epochs"])
@pytest.mark.parametrize("place", ["iteration", "evaluation"])
def test_averaged_weights_are_not_exchanged_for_the_model_s(loop, place, tmp_path):
    """``EMAHook`` puts the average into the model while it is evaluated."""
    hooks = dict(custom_hooks=[dict(type="EMAHook", momentum=0.3)])
    with pytest.raises(signals.Interrupted):
        train(tmp_path / "stopped", loop, Signal(place, 2), **hooks)
    train(tmp_path / "stopped", loop, **hooks)
    resumed = state(tmp_path / "stopped")
    assert any(name.startswith("module.") for name in resumed)
    check_equal(resumed, straight(loop, ema=True)[0])


@pytest.mark.parametrize("place", ["before_train", "loading"])
def test_before_the_first_step_there_is_nothing_to_save(place, tmp_path):
    with pytest.raises(signals.Interrupted, match=r"^$"):
        train(tmp_path, "infinite", Signal(place, 1))
    assert list(tmp_path.rglob("*.pth")) == []


@pytest.mark.parametrize(("kept", "message"), [(False, "there is no checkpoint"), (True, "the newest checkpoint is ")])
def test_a_second_ctrl_c_stops_at_once_and_leaves_no_half_file(kept, message, tmp_path, monkeypatch):
    """In the middle of an iteration, and of the writing of a checkpoint."""
    if kept:
        with pytest.raises(signals.Interrupted):
            train(tmp_path, "infinite", Signal("iteration", 2))
    before = sorted(tmp_path.rglob("*.pth"))

    class Twice(Signal):
        def __call__(self, place: str) -> None:
            super().__call__(place)
            if place == self.place and self.count == 0:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(signals.Interrupted) as stopped:
        train(tmp_path, "infinite", Twice("iteration", 3))
    done = 4 if kept else 2
    assert str(stopped.value).startswith(f"within iteration {done + 1} of 12; not saved; {message}")
    flush = files.flush
    monkeypatch.setattr(files, "flush", lambda path: (flush(path), signal.raise_signal(signal.SIGINT)))
    with pytest.raises(signals.Interrupted) as stopped:
        train(tmp_path, "infinite", Signal("iteration", 3))
    assert str(stopped.value).startswith(f"after iteration {done + 1} of 12; not saved; {message}")
    assert sorted(tmp_path.rglob("*.pth")) == before
    assert ("resume with: " in str(stopped.value)) == kept


def test_a_disk_that_is_full_is_said_beside_what_happened(tmp_path, monkeypatch):
    def refuse(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "flush", refuse)
    with pytest.raises(signals.Interrupted, match=r"^after iteration 2 of 12; not saved \(.*No space left on device"):
        train(tmp_path, "epochs", Signal("iteration", 2))
    assert list(tmp_path.rglob("*.pth")) == []


def test_checkpoints_beyond_max_keep_ckpts_go(tmp_path):
    hooks = {"checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 2, "max_keep_ckpts": 2}}
    for _ in range(2):
        with pytest.raises(signals.Interrupted):
            train(tmp_path, "infinite", Signal("iteration", 5), default_hooks=hooks)
    assert {path.name for path in tmp_path.glob("*.pth")} >= {"iter_8.pth", "iter_10.pth"}
    train(tmp_path, "infinite", default_hooks=hooks)
    assert {path.name for path in tmp_path.glob("*.pth")} == {"iter_10.pth", "iter_12.pth"}


def test_a_config_without_a_hook_that_saves_is_saved_too(tmp_path):
    with pytest.raises(signals.Interrupted, match=r"saved as .*iter_7\.pth; resume"):
        train(tmp_path, "infinite", Signal("iteration", 7), default_hooks={"checkpoint": None})
    assert train(tmp_path, "infinite", default_hooks={"checkpoint": None}) == [8, 12]


@pytest.mark.slow
@pytest.mark.needs(hasattr(signal, "SIGKILL"), reason="signals that Windows lacks")
@pytest.mark.parametrize(("name", "words"), [("SIGKILL", "memory ran out"), ("SIGBUS", "shared memory (")])
def test_a_dead_data_worker_is_one_line_and_costs_no_work(name, words, tmp_path, monkeypatch):
    """torch raises it in the middle of an iteration, with 69 lines; it waits five seconds for the next batch."""
    monkeypatch.setattr(stopping, "_deaths", [])

    class Dies(Data):
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            if torch.utils.data.get_worker_info() is not None and index == 7:
                os.kill(os.getpid(), getattr(signal, name))
            return super().__getitem__(index)

    loader = {"dataset": Dies(Signal()), "batch_size": 2, "num_workers": 1, "collate_fn": {"type": "default_collate"},
              "sampler": {"type": "DefaultSampler", "shuffle": False}}  # fmt: skip
    with pytest.raises(RunError) as stopped:
        train(tmp_path, "passes", train_dataloader=loader)
    text = str(stopped.value)
    assert text.startswith("a data worker was killed (")
    assert f"most likely because {words}" in text
    assert "(--cfg-options train_dataloader.num_workers=1 val_dataloader.num_workers=1, 0 for none)" in text
    assert re.search(r"; the training stopped after iteration (\d) of 12; saved as .*iter_\1\.pth; resume with: ", text)


@pytest.mark.slow
@pytest.mark.needs(hasattr(signal, "SIGKILL"), reason="signals that Windows lacks")
def test_a_data_worker_ignores_signals_and_ends_with_a_training_that_is_killed():
    """It would keep the connections open that it has inherited, here standard output."""
    code = (
        "import multiprocessing, os, signal, time\n"
        "from mmms_plugin.train.stopping import shield_worker\n"
        "def work(end):\n"
        "    shield_worker()\n"
        "    end.send('ready')\n"
        "    print(end.recv(), flush=True)\n"
        "    end.send('printed')\n"
        "    time.sleep(60)\n"
        "fork = multiprocessing.get_context('fork')\n"
        "end, other = fork.Pipe()\n"
        "worker = fork.Process(target=work, args=(other,), daemon=True)\n"
        "worker.start()\n"
        "end.recv()\n"
        "for number in (signal.SIGTERM, signal.SIGINT):\n"
        "    os.kill(worker.pid, number)\n"
        "end.send('alive')\n"
        "end.recv()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "alive\n")


@pytest.mark.parametrize("swallowed", [False, True])
def test_the_command_says_that_nothing_is_lost_before_the_first_step(swallowed, tmp_path, monkeypatch, capsys):
    """Also where mmengine, which formats the config, turns the signal into a SyntaxError."""

    def start(options: Any) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            if swallowed:
                raise SyntaxError("Failed to format the config file, please check the syntax of: ...") from None
            raise

    monkeypatch.setattr(launch, "train", start)
    config = tmp_path / "x.py"
    config.touch()
    assert main(["train", str(config)]) == 143
    assert capsys.readouterr().err == "mmms train: interrupted before the first step; there is nothing to save\n"


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("a.py --coco-dir 'my data'", "mmms train a.py --coco-dir 'my data' --resume"),
        ("a.py --resume --iters 4", "mmms train a.py --iters 4 --resume"),
        ("a.py --resume=old.pth --resume older.pth", "mmms train a.py --resume"),
        ("--launcher pytorch a.py --local_rank=0", "torchrun --nproc-per-node 3 -m mmms_plugin train --launcher "
         "pytorch a.py --resume"),
        ("a.py --launcher slurm", "srun --ntasks=2 mmms train a.py --launcher slurm --resume"),
    ],
)  # fmt: skip
def test_the_command_that_resumes_is_the_one_that_was_given(words, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my data").mkdir()
    for name in ("a.py", "old.pth", "older.pth"):
        (tmp_path / name).touch()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    given: list[str] = []

    def note(options: Any) -> None:
        given.append(launch._command_to_resume(options))

    monkeypatch.setattr(launch, "train", note)
    assert main(["train", *shlex.split(words)]) == 0
    assert given == [command.replace("'", '"') if os.name == "nt" else command]


@pytest.mark.parametrize(
    ("error", "known"),
    [
        (RuntimeError("DataLoader worker (pid(s) 5) exited unexpectedly"), True),
        (RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed. "), True),
        (RuntimeError("Caught KeyError in DataLoader worker process 0."), False),
        (ConnectionResetError(), False),  # no worker has died
        (BrokenPipeError(), False),
    ],
)
def test_only_a_dead_worker_is_taken_for_one(error, known, monkeypatch):
    monkeypatch.setattr(stopping, "PATIENCE", 0.0)
    text = stopping.worker_death(error, stopping.TESTING)
    assert (text is not None) == known
    assert not known or "(--cfg-options test_dataloader.num_workers=1, 0 for none)" in text


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"), True),
        (RuntimeError("NCCL error: remote process exited or there was a network error"), True),
        (torch.distributed.DistNetworkError("failed to recv, got 0 bytes"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (KeyError("x"), False),
    ],
)
def test_a_lost_process_is_one_line_also_behind_a_fault_of_the_config(error, lost):
    for raised in (error, UserError("the first iteration failed: ...")):
        raised.__cause__ = None if raised is error else error
        with (
            pytest.raises(RunError if lost else type(raised)) as stopped,
            stopping.peers_watched("start it again", stopping.TESTING),
        ):
            raise raised
        assert str(stopped.value).endswith("; start it again") == lost


@pytest.mark.needs(hasattr(signal, "SIGCHLD"), reason="a signal that Windows lacks")
def test_workers_that_are_killed_at_the_end_of_python_are_no_deaths(monkeypatch):
    """From Python 3.12 on, no thread can start then, and a death would have started a timer."""

    def fail() -> None:
        raise RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed. ")

    monkeypatch.setattr(stopping.signal_handling, "_error_if_any_worker_fails", fail)
    monkeypatch.setattr(stopping, "_deaths", [])
    stopping.note_deaths()
    monkeypatch.setattr(
        signals, "send_later", lambda *_: pytest.fail("can't create new thread at interpreter shutdown")
    )
    worker = SimpleNamespace(daemon=True, kill=lambda: stopping.signal_handling._error_if_any_worker_fails())
    monkeypatch.setattr(stopping.multiprocessing, "active_children", lambda: [worker])
    stopping.kill_workers()
    assert not stopping._deaths


@pytest.mark.needs(hasattr(signal, "SIGCHLD"), reason="a signal that Windows lacks")
def test_a_death_that_nothing_else_reveals_is_raised_after_all(monkeypatch):
    """The worker died while it sent a batch, and the training waits for the rest."""
    reports, now, later = ["DataLoader worker (pid 5) is killed by signal: Killed. "], [100.0], []

    def fail_once() -> None:
        if reports:
            raise RuntimeError(reports.pop())

    monkeypatch.setattr(stopping.signal_handling, "_error_if_any_worker_fails", fail_once)
    monkeypatch.setattr(stopping, "_deaths", [])
    monkeypatch.setattr(stopping, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(signals, "send_later", lambda number, seconds: later.append(seconds))
    stopping.note_deaths()
    notice = stopping.signal_handling._error_if_any_worker_fails
    notice()
    notice()
    now[0] += later[0]
    monkeypatch.setattr(stopping, "_within", True)  # an iteration
    notice()
    monkeypatch.setattr(stopping, "_within", False)
    with pytest.raises(RuntimeError, match="is killed by signal: Killed"):
        notice()
    assert len(later) == 1
