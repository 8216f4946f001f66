"""The processes of a run: how they are started, their threads and data workers, and one training per work folder.

``compat.processes`` lets several processes train on a CPU.

Idle threads of OpenMP wait by spinning. On a machine with other work, including data loading, they take cores from the
threads that compute: an iteration took 10 times as long (2 cores, 12 busy processes: 4.1 s, but 0.44 s with
``OMP_WAIT_POLICY=PASSIVE`` and 0.46 s with one thread). The command line sets that policy before torch is imported.
Here the number of threads is limited to the cores of the container, shared between the processes of a node.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from mmms_plugin.compat.processes import VARIABLES, join, leave
from mmms_plugin.devices import usable_device
from mmms_plugin.errors import UserError, one_line
from mmms_plugin.files import make_folder, write_text

# By launcher: variables that must be there beside ``VARIABLES``, and what sets them all
PLACES = {
    "pytorch": (("MASTER_ADDR", "MASTER_PORT"), "start it with torchrun or tools/dist_train.sh"),
    "slurm": (("SLURM_NODELIST",), "start it with srun"),
    "mpi": (("MASTER_ADDR",), "set MASTER_ADDR to the first node's name, and start it with mpirun"),
}
SHARED_MEMORY = Path("/dev/shm")
CGROUP = Path("/sys/fs/cgroup/cpu.max")  # "quota period" in microseconds, or "max period"
PATIENCE = timedelta(days=7)  # with which processes wait for the others' shares
LOCK = ".training.lock"
HOLDER = ".training.holder"  # who holds the lock: on Windows other programs cannot read a locked file


def check_launcher(launcher: str) -> None:
    """Raise UserError if processes were not started as ``--launcher`` says."""
    if launcher not in PLACES:
        return
    others, remedy = PLACES[launcher]
    if missing := [name for name in (*VARIABLES[launcher], *others) if name not in os.environ]:
        raise UserError(f"--launcher {launcher}: the environment has no {missing[0]}: {remedy}")


def world_size(launcher: str) -> int:
    """The number of processes that train together."""
    return max(1, int(os.environ.get(VARIABLES[launcher][0], 1))) if launcher in VARIABLES else 1


def process_rank(launcher: str) -> int:
    """The rank of this process in a distributed training, before mmengine knows it."""
    return int(os.environ.get(VARIABLES[launcher][1], 0)) if launcher in VARIABLES else 0


@contextmanager
def together(launcher: str) -> Iterator[None]:
    """Join the processes that the launcher started, each with the GPU of its local rank, while the context is open.

    Raises:
        UserError: processes were not started as ``--launcher`` says, or a machine has fewer GPUs than processes.
    """
    check_launcher(launcher)
    settle_threads()
    if launcher == "none":
        yield
        return
    join(launcher, PATIENCE)
    local_rank, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if 0 < gpus <= local_rank:
        raise UserError(f"--launcher {launcher}: process {local_rank} of this machine has no GPU: there are {gpus}")
    with torch.cuda.device(local_rank) if gpus else nullcontext():
        yield
    leave()


def usable_cores(limit: Path = CGROUP) -> int:
    """The number of cores that this process may use: its affinity, and the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = limit.read_text(encoding="utf-8").split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores


def settle_threads() -> None:
    """Give each process of this node its share of the cores, unless the user has set ``OMP_NUM_THREADS``."""
    if "OMP_NUM_THREADS" not in os.environ:
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        torch.set_num_threads(max(1, min(torch.get_num_threads(), usable_cores() // processes)))


@contextmanager
def on_device(name: str | None) -> Iterator[None]:
    """Let mmengine compute on the device of that name while the context is open; None leaves the choice to it.

    Raises:
        UserError: torch has no such device here.
    """
    if name is None:
        yield
        return
    from mmengine.device import utils

    device, usual = usable_device(name), utils.DEVICE
    utils.DEVICE = device.type  # what its get_device() returns
    try:
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            yield
    finally:
        utils.DEVICE = usual


def set_workers(config: Mapping[str, Any], number: int) -> None:
    """Load the pictures of every split with that number of worker processes."""
    for split in ("train", "val", "test"):
        if isinstance(loader := config.get(f"{split}_dataloader"), dict):
            loader["num_workers"] = number


def use_no_workers(config: Mapping[str, Any], shared: Path = SHARED_MEMORY) -> list[str]:
    """Load data in this process if worker processes cannot share memory with it.

    Returns:
        A remark for the log, if a loader is changed.
    """
    loaders = [config.get(f"{split}_dataloader") for split in ("train", "val", "test")]
    busy = any(isinstance(loader, dict) and loader.get("num_workers") for loader in loaders)
    if sys.platform != "linux" or os.access(shared, os.W_OK) or not busy:
        return []
    set_workers(config, 0)
    return [f"{shared} cannot be written, so data are loaded without worker processes (num_workers=0)"]


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold the lock of the work folder, which is made if need be.

    filelock's lock belongs to the process, and the system releases it however the process ends: data workers that
    outlive a killed training for some seconds do not keep it. On a file system without locks nothing is locked.

    Raises:
        UserError: the folder cannot be written, or another process, which the message names, holds the lock.
    """
    folder = make_folder(folder, "--work-dir")
    lock, holder = FileLock(folder / LOCK, timeout=0, fallback_to_soft=False), folder / HOLDER
    try:
        lock.acquire()
    except Timeout:
        name = ""
        with suppress(OSError):
            name = one_line(holder.read_text(encoding="utf-8", errors="replace")[:200].strip())
        raise UserError(
            f"--work-dir {folder}: a training is running in this folder ({name or 'another process'}); wait for its "
            "end, or give another folder"
        ) from None
    except OSError:
        yield
        return
    try:
        write_text(holder, f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()
