"""Several processes on a CPU, which mmengine 0.10.7 starts for GPUs only: it sets a CUDA device, and wraps for one."""

from __future__ import annotations

import os
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from torch import nn

from mmms_plugin.errors import UserError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # set by torchrun


def check_launcher(launcher: str) -> None:
    """Raise UserError if processes were not started as ``--launcher`` says, or it has none for a CPU."""
    if launcher == "pytorch" and (missing := [name for name in VARIABLES if name not in os.environ]):
        raise UserError(
            f"--launcher pytorch: the environment has no {missing[0]}: start it with torchrun or tools/dist_train.sh"
        )
    if launcher in ("slurm", "mpi") and on_cpu():
        raise UserError(f"--launcher {launcher}: torch sees no GPU; on CPUs start torchrun, with --launcher pytorch")


def on_cpu() -> bool:
    """Whether models of this process are on the CPU."""
    return get_device() == "cpu"


def join_on_cpu() -> None:
    """Join the other processes by gloo, as mmengine would by NCCL; it leaves alone what has been joined."""
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")


def wrap_on_cpu(model: nn.Module, options: dict[str, Any]) -> nn.Module:
    """As ``Runner.wrap_model`` does it on GPUs. SyncBN knows no CPU: every process normalizes by its own batch."""
    if any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        text = "SyncBN needs a GPU: on CPUs every process normalizes by its own part of the batch"
        print_log(text, "current", level=30)
    return MMDistributedDataParallel(module=revert_sync_batchnorm(model), **options)


def leave() -> None:
    """Part from the other processes at the end of a run."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
