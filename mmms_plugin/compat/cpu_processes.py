"""Several processes on a CPU, which mmengine 0.10.7 starts for GPUs only: it sets a CUDA device, and wraps for one.

Its Runner is changed, so that this holds for every training, a host's own script included.
"""

from __future__ import annotations

import atexit
from types import ModuleType
from typing import Any

from mmms_plugin.errors import UserError

WRAPPER = "MMDistributedDataParallel"


def on_cpu() -> bool:
    """Whether models of this process are on the CPU."""
    from mmengine.device import get_device

    return bool(get_device() == "cpu")


def allow_cpu(module: ModuleType) -> None:
    """Let the Runner of ``mmengine.runner.runner`` join and wrap on a CPU; on GPUs it does as before."""
    runner = module.Runner
    if getattr(runner.setup_env, "allows_cpu", False):
        return
    set_up, wrap = runner.setup_env, runner.wrap_model

    def setup_env(self: Any, env_cfg: dict) -> None:
        if self.distributed and on_cpu():
            _join()
        set_up(self, env_cfg)

    def wrap_model(self: Any, model_wrapper_cfg: dict | None, model: Any) -> Any:
        from mmengine.model import is_model_wrapper

        if not self.distributed or not on_cpu() or is_model_wrapper(model):
            return wrap(self, model_wrapper_cfg, model)
        if (model_wrapper_cfg or {}).get("type", WRAPPER) != WRAPPER:
            raise UserError(f"model_wrapper_cfg: {model_wrapper_cfg['type']} needs a GPU")  # type: ignore[index]
        given = {key: value for key, value in (model_wrapper_cfg or {}).items() if key != "type"}
        unused = self.cfg.get("find_unused_parameters", False)
        return _wrap(model, dict(broadcast_buffers=False, find_unused_parameters=unused) | given)

    setup_env.allows_cpu = True  # type: ignore[attr-defined]
    runner.setup_env, runner.wrap_model = setup_env, wrap_model


def _join() -> None:
    """Join the other processes by gloo, as mmengine would by NCCL; what has been joined is left alone.

    Hosts' scripts end without parting again. Threads of gloo that still run then can abort a process that has done its
    work ("terminate called without an active exception").
    """
    import torch

    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
        atexit.register(leave)


def leave() -> None:
    """Part from the other processes at the end of a run."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _wrap(model: Any, options: dict[str, Any]) -> Any:
    """As ``Runner.wrap_model`` does it on GPUs. SyncBN knows no CPU: every process normalizes by its own batch."""
    from mmengine.logging import print_log
    from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
    from torch.nn import SyncBatchNorm

    if any(isinstance(module, SyncBatchNorm) for module in model.modules()):
        text = "SyncBN needs a GPU: on CPUs every process normalizes by its own part of the batch"
        print_log(text, "current", level=30)
    return MMDistributedDataParallel(module=revert_sync_batchnorm(model), **options)
