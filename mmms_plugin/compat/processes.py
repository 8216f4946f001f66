"""Processes: several on a CPU, the plugin in those that Python spawns, and compilers that mmengine asks in silence.

mmengine 0.10.7 trains with several processes on GPUs only: it sets a CUDA device, and wraps models for one. Its Runner
is changed, so that CPUs work in every training, that of a host's own script included.

A process that Python spawns, on Windows and macOS for every data loader, starts empty and unpickles its task, such as a
data set of mmdet's. That imports mmdet, which on mmcv-lite needs the plugin first. Python also runs the main script in
the new process, which would import the plugin, but not after ``python -m mmms_plugin`` or the ``mmms.exe`` of Windows.
"""

from __future__ import annotations

import atexit
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from types import ModuleType, SimpleNamespace
from typing import Any

from mmms_plugin import signals
from mmms_plugin.errors import UserError

WRAPPER = "MMDistributedDataParallel"
TORCH = ("WORLD_SIZE", "RANK", "LOCAL_RANK")  # variables that torch reads
# By launcher: its names for them
VARIABLES = {
    "pytorch": TORCH,
    "slurm": ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"),
    "mpi": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
}
PORT = "29500"  # torch's default
FAILURES = "mmms_failures"  # key of the processes' common store
FAREWELL = 1.0  # seconds that the first process, which may hold the store, waits for others that fail too


def on_cpu() -> bool:
    """Whether models of this process are on the CPU."""
    from mmengine.device import get_device

    return bool(get_device() == "cpu")


def allow_cpu(module: ModuleType) -> None:
    """Let the Runner of ``mmengine.runner.runner`` join and wrap on a CPU; on GPUs it works as before."""
    runner = module.Runner
    if getattr(runner.setup_env, "allows_cpu", False):
        return
    set_up, wrap = runner.setup_env, runner.wrap_model

    def setup_env(self: Any, env_cfg: dict) -> None:
        if self.distributed and on_cpu():
            join(self._launcher)
        set_up(self, env_cfg)

    def wrap_model(self: Any, model_wrapper_cfg: dict | None, model: Any) -> Any:
        from mmengine.model import is_model_wrapper, revert_sync_batchnorm

        if not self.distributed or not on_cpu() or is_model_wrapper(model):
            return wrap(self, model_wrapper_cfg, model)
        if (model_wrapper_cfg or {}).get("type", WRAPPER) != WRAPPER:
            raise UserError(f"model_wrapper_cfg: {model_wrapper_cfg['type']} needs a GPU")  # type: ignore[index]
        given = {key: value for key, value in (model_wrapper_cfg or {}).items() if key != "type"}
        unused = self.cfg.get("find_unused_parameters", False)
        if self._train_dataloader is None:  # a test, in which batch norm's statistics are those of the training
            model = revert_sync_batchnorm(model)
        return _wrap(model, dict(broadcast_buffers=False, find_unused_parameters=unused) | given)

    setup_env.allows_cpu = True  # type: ignore[attr-defined]
    runner.setup_env, runner.wrap_model = setup_env, wrap_model


def join(launcher: str, patience: timedelta | None = None) -> None:
    """Join the other processes by gloo, as mmengine would by NCCL, unless that has been done.

    Hosts' scripts end without leaving the group. Threads of gloo that still run then can abort a process whose work is
    done ("terminate called without an active exception").

    Args:
        launcher: that started the processes.
        patience: how long processes wait for each other; None for torch's default.
    """
    import torch

    if not torch.distributed.is_initialized():
        meet(launcher)
        torch.distributed.init_process_group("gloo", timeout=patience)
        atexit.register(leave)


def meet(launcher: str) -> None:
    """Set the variables with which torch finds the other processes, as mmengine does on GPUs.

    Raises:
        UserError: Slurm cannot say which node is the first.
    """
    for name, given in zip(TORCH, VARIABLES[launcher], strict=True):
        os.environ[name] = os.environ[given]
    if launcher == "slurm" and "MASTER_ADDR" not in os.environ:
        command = ["scontrol", "show", "hostnames", os.environ["SLURM_NODELIST"]]
        try:
            nodes = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise UserError(
                f"--launcher slurm: scontrol, which names the first node, failed ({error}); set MASTER_ADDR to its name"
            ) from error
        os.environ["MASTER_ADDR"] = nodes.split()[0]
    os.environ.setdefault("MASTER_PORT", PORT)


def leave() -> None:
    """Leave the group of processes at the end of a run."""
    if joined():
        sys.modules["torch"].distributed.destroy_process_group()


def first_to_fail() -> bool:
    """Note that this process of a run fails; whether it is the first one, which says why."""
    store = _store()
    if store is None:
        return True
    try:
        first = store.add(FAILURES, 1) == 1
        if os.environ.get("RANK") == "0":
            others, deadline = int(os.environ["WORLD_SIZE"]), time.monotonic() + FAREWELL
            while store.add(FAILURES, 0) < others and time.monotonic() < deadline:
                time.sleep(0.01)
    except RuntimeError:  # the process that holds the store is gone
        return True
    return first


def others_failed() -> bool:
    """Whether a process of this run has noted that it failed."""
    store = _store()
    with suppress(RuntimeError):
        return store is not None and store.add(FAILURES, 0) > 0
    return False


def joined() -> bool:
    """Whether this process has joined others; torch is not imported for that."""
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


def _store() -> Any:
    """What the processes of this run share, None if they have not joined."""
    return sys.modules["torch"].distributed.distributed_c10d._get_default_store() if joined() else None


def _wrap(model: Any, options: dict[str, Any]) -> Any:
    """As ``Runner.wrap_model`` wraps on GPUs. SyncBN has no CPU code: every process normalizes by its own batch."""
    from mmengine.logging import print_log
    from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
    from torch.nn import SyncBatchNorm

    if any(isinstance(module, SyncBatchNorm) for module in model.modules()):
        text = "SyncBN needs a GPU: on CPUs every process normalizes by its own part of the batch"
        print_log(text, "current", level=30)
    return MMDistributedDataParallel(module=revert_sync_batchnorm(model), **options)


# Ctrl-C goes to all processes of a terminal. Those that a command has started leave it to the command.
IGNORE_SIGNALS = """
import signal
for name in ("SIGINT", "SIGBREAK"):
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
"""


class _ImportsPlugin:
    """Unpickling it imports the plugin, from where this process imported it."""

    def __init__(self, path: Sequence[str]) -> None:
        self.path = list(path)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        first = IGNORE_SIGNALS if signals.caught() else ""
        return exec, (f"{first}import sys\nsys.path[:] = {self.path!r}\nimport mmms_plugin",)


def import_plugin_first(module: ModuleType) -> None:
    """Change ``multiprocessing.spawn``: the data that it sends ahead to a new process import the plugin there."""
    prepare = module.get_preparation_data
    if hasattr(prepare, "__wrapped__"):
        return

    @functools.wraps(prepare)
    def get_preparation_data(name: str) -> dict[str, Any]:
        data = prepare(name)
        return {**data, "mmms_plugin": _ImportsPlugin(data["sys_path"])}

    module.get_preparation_data = get_preparation_data  # type: ignore[attr-defined]


def be_quiet(module: ModuleType) -> None:
    """Let ``mmengine.utils.dl_utils.collect_env`` look for compilers without the shell's complaints on the terminal."""
    quiet = functools.partial(subprocess.check_output, stderr=subprocess.DEVNULL)
    module.subprocess = SimpleNamespace(**{**vars(subprocess), "check_output": quiet})  # type: ignore[attr-defined]
