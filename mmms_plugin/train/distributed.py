"""How several processes are started; that they also run on a CPU is ``compat.cpu_processes``."""

from __future__ import annotations

import os

from mmms_plugin.compat.cpu_processes import on_cpu
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
