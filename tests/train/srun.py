"""Slurm's srun, as far as a training notices it: ``srun.py --ntasks=N COMMAND`` on this machine.

Every process gets the variables that Slurm sets. SIGTERM goes to all of them, and the status is that of the first that
failed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys


def main(ntasks: str, *command: str) -> int:
    count = int(ntasks.removeprefix("--ntasks="))
    job = dict(
        SLURM_JOB_ID="7", SLURM_NTASKS=str(count), SLURM_NODELIST="node[1-1]", SLURM_NNODES="1", SLURM_NODEID="0"
    )
    processes = [
        subprocess.Popen(command, env=os.environ | job | dict(SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)))
        for rank in range(count)
    ]
    signal.signal(signal.SIGTERM, lambda number, frame: [process.send_signal(number) for process in processes])
    return next(filter(None, [process.wait() for process in processes]), 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
