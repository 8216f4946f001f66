"""Commands in several processes, as torchrun or srun starts them: run as a script, in a process that forks theirs.

Importing torch and the hosts takes seconds. The parent computes nothing with torch, so that its children can be forked
safely. ``several_processes.py FOLDER`` reads ``FOLDER/commands.json``: for each name, the number of processes and the
command. Each command runs in the folder of its name, which then has ``RANK.out``, ``RANK.err`` and ``statuses.json``.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmms_plugin.compat.processes import VARIABLES

# What the commands import: paid for once, before the processes are forked
IMPORTED = (
    "matplotlib.pyplot", "mmdet.datasets", "mmdet.evaluation", "mmdet.models", "mmdet.visualization",
    "mmms_plugin.train.launch", "mmms_plugin.train.predict", "mmpretrain.models", "mmseg.datasets", "mmseg.evaluation",
    "mmseg.models", "mmseg.visualization", "sklearn.manifold",
)  # fmt: skip


def run_all(folder: Path, commands: Mapping[str, tuple[int, Sequence[str]]]) -> dict[str, list[int]]:
    """Exit statuses of the processes of each command; it may be one of no launcher, for comparison."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "commands.json").write_text(json.dumps(commands), encoding="utf-8")
    command = [sys.executable, "-m", "tests.several_processes", str(folder)]
    variables = {key: value for key, value in os.environ.items() if key != "RANK"} | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, cwd=Path(__file__).parents[1], env=variables)
    return {name: json.loads((folder / name / "statuses.json").read_text(encoding="utf-8")) for name in commands}


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _fork(folder: Path, rank: int, world: int, port: int, command: Sequence[str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 99
    try:
        os.chdir(folder)
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{rank}.{name}", os.O_WRONLY | os.O_CREAT), stream)
        if world > 1:
            launcher = command[command.index("--launcher") + 1] if "--launcher" in command else "pytorch"
            places = dict(zip(VARIABLES[launcher], (world, rank, rank), strict=True), MASTER_PORT=port)
            os.environ.update({key: str(value) for key, value in places.items()})
            if launcher == "slurm":
                os.environ.update(SLURM_JOB_ID="7", SLURM_NODELIST="node[1-1]")
            else:
                os.environ.update(LOCAL_WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", TORCHELASTIC_RUN_ID="test")
                command = [*command, "--launcher", launcher]
        from mmms_plugin.commands import main

        status = main(command)
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _run(folder: Path, world: int, command: Sequence[str]) -> list[int]:
    """As torchrun, end the other processes once one has failed."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = {_fork(folder, rank, world, port, command): rank for rank in range(world)}
    statuses = [0] * world
    while running:
        pid, status = os.wait()
        statuses[running.pop(pid)] = code = os.waitstatus_to_exitcode(status)
        for other in running if code else ():
            os.kill(other, signal.SIGTERM)
    return statuses


if __name__ == "__main__":
    for module in IMPORTED:
        importlib.import_module(module)

    from mmengine.runner import runner

    from mmms_plugin.commands.reproduce_smoke import hosts_repeat_no_slow_steps

    root = Path(sys.argv[1])
    with hosts_repeat_no_slow_steps(formatted=False):
        runner.collect_env()  # asks compilers for their versions, once for all processes
        for name, (count, words) in json.loads((root / "commands.json").read_text(encoding="utf-8")).items():
            ended = _run(root / name, count, words)
            (root / name / "statuses.json").write_text(json.dumps(ended), encoding="utf-8")
