"""One training per work folder; a killed one leaves neither a lock nor half-written checkpoints."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from pathlib import Path

import pytest

from mmms_plugin.errors import UserError
from mmms_plugin.train.processes import locked, process_rank


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


def test_half_written_checkpoints_of_a_killed_training_go(tmp_path: Path) -> None:
    leftovers = [
        ".iter_20.abcd_123.pth",
        ".epoch_1.abcdefgh.pth",
        ".best_a_iter_2.abcdefgh.pth",
        ".last_checkpoint.a1b2c3d4",
    ]
    others = ["iter_20.pth", "last_checkpoint", ".hidden.pth", "notes.txt"]
    for name in leftovers + others:
        (tmp_path / name).touch()
    with locked(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {*others, ".training.lock", ".training.holder"}
    assert {path.name for path in tmp_path.iterdir()} == {*others, ".training.lock"}


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
