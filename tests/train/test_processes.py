"""One training per work folder, whose end releases it however it comes; launchers, threads and workers of a run."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import mmms_plugin.commands as cli
from mmms_plugin.compat.processes import TORCH, meet
from mmms_plugin.errors import UserError
from mmms_plugin.train.processes import (
    check_launcher,
    locked,
    process_rank,
    settle_threads,
    usable_cores,
    use_no_workers,
)


def hold_in_child(folder: Path) -> int:
    """The process id of a child that holds the folder until it is killed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with locked(folder):
            os.write(writer, b"held")
            signal.pause()
    assert os.read(reader, 4) == b"held"
    os.close(reader)
    os.close(writer)
    return pid


def test_a_second_training_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    pid = hold_in_child(folder)
    try:
        with (
            pytest.raises(UserError, match=rf"a training is running in this folder \(process {pid} on "),
            locked(folder),
        ):
            pass
        with locked(tmp_path / "other"):
            pass
        for holder, shown in (("", "another process"), ("\x1b[1m" + "x" * 300, r"\x1b[1m" + "x" * 196)):
            (folder / ".training.holder").write_text(holder, encoding="utf-8")
            with pytest.raises(UserError) as caught, locked(folder):
                pass
            assert f"({shown}); wait for its end, or give another folder" in str(caught.value)
        (folder / ".training.holder").unlink()
        with pytest.raises(UserError, match=r"\(another process\)"), locked(folder):
            pass
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with locked(folder):
        pass


def test_workers_that_outlive_a_killed_training_hold_nothing(tmp_path: Path) -> None:
    """A forked child of the holder has its files open, but not its lock."""
    with locked(tmp_path):
        pid = os.fork()
        if pid == 0:
            signal.pause()
    try:
        holder = hold_in_child(tmp_path)
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
@pytest.mark.filterwarnings("error")
def test_a_file_system_without_locks_is_used_without(code: int, tmp_path: Path, monkeypatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with locked(tmp_path), locked(tmp_path):
        pass


def test_only_the_first_rank_is_to_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    assert process_rank("none") == 0
    assert process_rank("pytorch") == 3
    monkeypatch.setenv("SLURM_PROCID", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    assert (process_rank("slurm"), process_rank("mpi")) == (2, 1)
    monkeypatch.delenv("RANK")
    assert process_rank("pytorch") == 0


@pytest.mark.parametrize(("text", "most"), [("50000 100000", 1), ("290000 100000", 2), ("max 100000", 999), ("?", 999)])
def test_a_container_s_share_of_the_cores_counts(tmp_path: Path, text: str, most: int) -> None:
    (tmp_path / "cpu.max").write_text(text, encoding="utf-8")
    assert usable_cores(tmp_path / "cpu.max") == min(most, usable_cores(tmp_path / "absent"))


def test_threads_are_shared_between_processes_unless_the_user_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1000")
    monkeypatch.setenv("OMP_NUM_THREADS", str(before))
    try:
        settle_threads()
        assert torch.get_num_threads() == before
        monkeypatch.delenv("OMP_NUM_THREADS")
        settle_threads()
        assert torch.get_num_threads() == 1
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(9))
        cores = usable_cores()
        for own, processes, share in ((8, "3", max(1, cores // 3)), (2, "1", min(2, cores))):
            torch.set_num_threads(own)
            monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
            settle_threads()
            assert torch.get_num_threads() == share
        monkeypatch.delenv("LOCAL_WORLD_SIZE")
        settle_threads()
        assert torch.get_num_threads() == min(2, usable_cores())
    finally:
        torch.set_num_threads(before)


def test_idle_threads_do_not_spin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Measured at 11 times on a busy machine; the benchmark keeps torch's own setting, so does the user's."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert cli.main(["benchmark", "--nonsense"]) == 2
    assert "OMP_WAIT_POLICY" not in os.environ
    cli.main(["--version"])
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    cli.main(["--version"])
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.parametrize(
    ("launcher", "names", "remedy"),
    [
        (
            "pytorch",
            "WORLD_SIZE RANK LOCAL_RANK MASTER_ADDR MASTER_PORT",
            "start it with torchrun or tools/dist_train.sh",
        ),
        ("slurm", "SLURM_NTASKS SLURM_PROCID SLURM_LOCALID SLURM_NODELIST", "start it with srun"),
        (
            "mpi",
            "OMPI_COMM_WORLD_SIZE OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_LOCAL_RANK MASTER_ADDR",
            "set MASTER_ADDR to the first node's name, and start it with mpirun",
        ),
    ],
)
def test_processes_that_nobody_started_are_reported(launcher, names, remedy, monkeypatch):
    for name in names.split():
        monkeypatch.delenv(name, raising=False)
    for name in names.split():
        with pytest.raises(UserError, match=f"--launcher {launcher}: the environment has no {name}: {remedy}"):
            check_launcher(launcher)
        monkeypatch.setenv(name, "1")
    check_launcher(launcher)
    check_launcher("none")


@pytest.fixture
def job(monkeypatch):
    """The variables of a process that srun started, without those of torch."""
    for name in (*TORCH, "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # restored after the test
        monkeypatch.delenv(name)
    for name, value in dict(NTASKS="4", PROCID="3", LOCALID="1", NODELIST="node[1-2]").items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return monkeypatch


def test_slurm_s_processes_meet_at_the_first_node(job):
    asked = []

    def run(command, **options):
        asked.append(command)
        return SimpleNamespace(stdout="node1\nnode2\n")

    job.setattr("mmms_plugin.compat.processes.subprocess.run", run)
    meet("slurm")
    assert [os.environ[name] for name in (*TORCH, "MASTER_ADDR", "MASTER_PORT")] == ["4", "3", "1", "node1", "29500"]
    assert asked == [["scontrol", "show", "hostnames", "node[1-2]"]]
    job.setenv("MASTER_ADDR", "node9")
    meet("slurm")
    assert (os.environ["MASTER_ADDR"], len(asked)) == ("node9", 1)


def test_a_slurm_that_cannot_name_its_nodes(job, tmp_path):
    job.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"--launcher slurm: scontrol, .* failed .*; set MASTER_ADDR to its name"):
        meet("slurm")


def test_data_are_loaded_without_workers_where_they_cannot_share_memory(tmp_path, monkeypatch):
    """As in containers without /dev/shm."""
    monkeypatch.setattr("sys.platform", "linux")
    config = dict(train_dataloader=dict(num_workers=2), val_dataloader=dict(num_workers=0), test_dataloader=None)
    assert use_no_workers(config, shared=tmp_path) == []
    assert config["train_dataloader"]["num_workers"] == 2
    (remark,) = use_no_workers(config, shared=tmp_path / "absent")
    assert "absent cannot be written" in remark
    assert config["train_dataloader"]["num_workers"] == 0
    assert use_no_workers(config, shared=tmp_path / "absent") == [], "nothing is left to change"
    for split in ("val", "test"):
        assert use_no_workers({f"{split}_dataloader": dict(num_workers=2)}, shared=tmp_path / "absent")
    monkeypatch.setattr("sys.platform", "win32")
    assert use_no_workers(dict(train_dataloader=dict(num_workers=2)), shared=tmp_path / "absent") == []
