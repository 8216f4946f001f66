"""Trainings that are killed and resumed: run as a script, in a process that forks one child per training.

Importing torch and mmengine takes seconds, a training of this model a fraction of one. The parent computes nothing with
torch, so that its children can be forked safely. Usage: ``killed_runs.py FOLDER SCENARIO...``; prints a JSON line each,
and one of a training in two processes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import warnings
from pathlib import Path

import matplotlib.pyplot  # noqa: F401 - here, for all children
import numpy as np
import torch
import torch._dynamo
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import loops
from mmengine.runner import runner as mmengine_runner

import mmms_plugin.files as files
from mmms_plugin.errors import RunError
from mmms_plugin.signals import Interrupted
from mmms_plugin.train.runner import ResumableRunner
from mmms_plugin.train.stopping import TRAINING, peers_watched
from mmms_plugin.weights.newest import newest_checkpoint
from mmms_plugin.weights.reader import read

ITERATIONS, BATCHES = 12, 4  # three epochs of four batches


class Noisy(torch.utils.data.Dataset):
    """Samples that draw from every generator that transforms use."""

    metainfo = {"classes": ("a",)}  # noqa: RUF012

    def __len__(self) -> int:
        return 3 * BATCHES

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        noise = random.random() + np.random.rand() + torch.rand(3)  # noqa: NPY002
        return {"x": torch.arange(3.0) * index + noise}


class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1)
        )

    def forward(self, x: torch.Tensor, mode: str = "tensor") -> dict[str, torch.Tensor] | list[torch.Tensor]:
        y = self.layers(x)
        return {"loss_y": (y - 1).square().mean()} if mode == "loss" else [y]


class Kill(Hook):
    """End the process as the kernel does, or send it another signal, after an iteration."""

    priority = "LOWEST"

    def __init__(self, iteration: int, number: int) -> None:
        self.iteration, self.number = iteration, number

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 == self.iteration:
            kill(self.number)


def kill(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)


def kill_while_saving(moment: str, name: str) -> None:
    """Let the process end while a file is written, or between two steps of ``files.written_whole``."""
    replace, flush = os.replace, files.flush

    def replace_or_die(source: Path, target: Path) -> None:
        if Path(target).name == name and moment == "before the renaming":
            kill()
        replace(source, target)
        if Path(target).name == name and moment == "after the renaming":
            kill()

    def flush_or_die(path: Path) -> None:
        if path.name == name and moment == "half written":
            os.truncate(path, path.stat().st_size // 2)
            kill()
        flush(path)

    files.os.replace, files.flush = replace_or_die, flush_or_die


def train(
    folder: Path, loop: str, workers: int, seed: int | None, kill_at: object = None, launcher: str = "none",
    number: int = signal.SIGKILL,
) -> None:  # fmt: skip
    """Train to the end, resuming what is there, or until the kill: an iteration, or a moment of saving a file."""
    torch.set_num_threads(1)
    loops.time.sleep = lambda seconds: None
    mmengine_runner.collect_env = dict  # for the log, it asks compilers for their versions
    by_epoch, iterations = loop.startswith("epoch"), {"by_epoch": False, "interval": 2, "max_keep_ckpts": 1}
    sampler = {"type": "InfiniteSampler" if loop == "infinite" else "DefaultSampler", "shuffle": True}
    hooks = [Kill(kill_at, number)] if isinstance(kill_at, int) else []
    if isinstance(kill_at, list):
        kill_while_saving(*kill_at)
    model = Model() if launcher == "none" else torch.nn.SyncBatchNorm.convert_sync_batchnorm(Model())
    runner = ResumableRunner(
        model, launcher=launcher, work_dir=str(folder), default_scope="mmengine", custom_hooks=hooks, resume=True,
        train_dataloader={"dataset": Noisy(), "batch_size": 3, "num_workers": workers, "sampler": sampler,
                          "persistent_workers": workers > 0, "collate_fn": {"type": "default_collate"}},
        train_cfg={"by_epoch": True, "max_epochs": 3} if by_epoch else {"by_epoch": False, "max_iters": ITERATIONS},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.01, "momentum": 0.9}},
        param_scheduler={"type": "CosineAnnealingLR", "T_max": ITERATIONS, "by_epoch": False},
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 1, "max_keep_ckpts": 1}
                       | ({} if loop == "epoch" else iterations)},
        randomness={"seed": seed}, log_level="WARNING",
    )  # fmt: skip
    runner.train()


def in_child(folder: Path, *arguments: object) -> int:
    """Train in a forked process; its exit status, negative if a signal ended it."""
    return end_of(child(folder, *arguments))


def end_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_two(folder: Path, kill_at: int | None, number: int = signal.SIGKILL, signalled: int = 0) -> list[int]:
    """Train in two processes, as torchrun starts them; the one of rank ``signalled`` is killed, if any."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pids = []
    for rank in (0, 1):
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                          MASTER_PORT=str(port))  # fmt: skip
        pids.append(child(folder, "infinite", 0, 1, kill_at if rank == signalled else None, "pytorch", number))
    return [end_of(pid) for pid in pids]


def child(folder: Path, *arguments: object) -> int:
    """The process id of a training."""
    folder.mkdir(parents=True, exist_ok=True)
    pid = os.fork()
    if pid == 0:
        log = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            with peers_watched("start it again", TRAINING):
                train(folder, *arguments)
        except (Interrupted, RunError) as error:
            print(error, flush=True)
            os._exit(getattr(error, "status", 1))
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid


def weights(folder: Path) -> tuple[dict, int, int]:
    path, _ = newest_checkpoint(folder)
    content = read(path)
    momentum = {f"momentum {k}": v["momentum_buffer"] for k, v in content["optimizer"]["state"].items()}
    return content["state_dict"] | momentum, content["meta"]["iter"], content["meta"]["seed"]


def play(folder: Path, loop: str, workers: int, seed: int | None, kills: list) -> dict:
    """Kill a training again and again, then let it end; compare it with one that ran through."""
    folder.mkdir(parents=True)
    statuses = [in_child(folder / "killed", loop, workers, seed, at) for at in kills]
    statuses.append(in_child(folder / "killed", loop, workers, seed))
    parts, done, used = weights(folder / "killed")
    through = in_child(folder / "through", loop, workers, used)
    whole, whole_done, _ = weights(folder / "through")
    worst = max(float((parts[key].double() - whole[key].double()).abs().max()) for key in whole)
    return {"statuses": statuses, "through": through, "done": [done, whole_done], "equal": worst == 0.0,
            "worst": worst, "left": sorted(path.name for path in (folder / "killed").glob("*.pth"))}  # fmt: skip


def play_two(folder: Path) -> dict:
    """As ``play``, with two processes on a CPU."""
    killed, stopped, through = folder / "killed", folder / "stopped", folder / "through"
    statuses = [in_two(killed, 5), in_two(killed, None), in_two(stopped, 5, signal.SIGTERM, signalled=1)]
    saved = newest_checkpoint(stopped)[0].name
    statuses += [in_two(stopped, None), in_two(through, None)]
    whole = weights(through)[0]
    equal = [torch.equal(weights(part)[0][key], whole[key]) for part in (killed, stopped) for key in whole]
    output = [(part / "output.txt").read_text(encoding="utf-8") for part in (killed, stopped)]
    return {"statuses": statuses, "saved": saved, "equal": all(equal), "output": output}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for number, scenario in enumerate(sys.argv[2:]):
        print(json.dumps(play(Path(sys.argv[1], str(number)), *json.loads(scenario))), flush=True)
    print(json.dumps(play_two(Path(sys.argv[1], "two"))))
