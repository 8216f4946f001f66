"""Processes and threads of a run: how several processes are started, and how many threads each computes with.

That processes also run on a CPU is ``compat.cpu_processes``.

Idle threads of OpenMP wait by spinning. On a machine with other work, data loading included, they take the cores from
the threads that are waited for: an iteration took 10 times as long (2 cores, 12 busy processes: 4.1 s, 0.44 s with
``OMP_WAIT_POLICY=PASSIVE``, 0.46 s with one thread). The command line sets that policy before torch is imported; here
the number is kept to what a container may use, and shared between the processes of a node.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

from mmms_plugin.compat.cpu_processes import on_cpu
from mmms_plugin.errors import UserError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # set by torchrun
SHARED_MEMORY = Path("/dev/shm")
CGROUP = Path("/sys/fs/cgroup/cpu.max")  # "quota period" in microseconds, or "max period"


def check_launcher(launcher: str) -> None:
    """Raise UserError if processes were not started as ``--launcher`` says, or it has none for a CPU."""
    if launcher == "pytorch" and (missing := [name for name in VARIABLES if name not in os.environ]):
        raise UserError(
            f"--launcher pytorch: the environment has no {missing[0]}: start it with torchrun or tools/dist_train.sh"
        )
    if launcher in ("slurm", "mpi") and on_cpu():
        raise UserError(f"--launcher {launcher}: torch sees no GPU; on CPUs start torchrun, with --launcher pytorch")


def process_rank(launcher: str) -> int:
    """The rank of this process among those of a distributed training, before mmengine knows it."""
    name = {"pytorch": "RANK", "slurm": "SLURM_PROCID", "mpi": "OMPI_COMM_WORLD_RANK"}.get(launcher)
    return int(os.environ.get(name, 0)) if name else 0


def usable_cores(limit: Path = CGROUP) -> int:
    """Cores that this process may use: its affinity, and the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = limit.read_text(encoding="utf-8").split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores


def use_no_workers(config: dict[str, Any], shared: Path = SHARED_MEMORY) -> list[str]:
    """Let data loaders work in this process where worker processes cannot share memory with it.

    Returns:
        A remark for the log, if a loader is changed.
    """
    loaders = [config.get(f"{split}_dataloader") for split in ("train", "val", "test")]
    busy = [loader for loader in loaders if isinstance(loader, dict) and loader.get("num_workers")]
    if sys.platform != "linux" or os.access(shared, os.W_OK) or not busy:
        return []
    for loader in busy:
        loader["num_workers"] = 0
    return [f"{shared} cannot be written, so data are loaded without worker processes (num_workers=0)"]


def settle_threads() -> None:
    """Give each process of this node its share of the cores, unless ``OMP_NUM_THREADS`` says how many."""
    if "OMP_NUM_THREADS" not in os.environ:
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        torch.set_num_threads(max(1, min(torch.get_num_threads(), usable_cores() // processes)))
