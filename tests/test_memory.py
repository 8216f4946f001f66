"""A lack of memory is reported as such, and not as damage of the file that was being read."""

from __future__ import annotations

import errno
import io
import mmap
from collections.abc import Callable

import pytest
import torch

from mmms_plugin import commands
from mmms_plugin.config.check import user_fault
from mmms_plugin.errors import RunError, UserError, memory_checked, memory_shortage
from mmms_plugin.weights import files
from mmms_plugin.weights.files import read_checkpoint
from mmms_plugin.weights.newest import why_unusable
from mmms_plugin.weights.reader import tensors

TORCH = "[enforce fail at alloc_cpu.cpp:129] err == 0. DefaultCPUAllocator: can't allocate memory"
SHORTAGES = [
    MemoryError(), MemoryError("Unable to allocate 7 GiB"), OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError(TORCH), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), RuntimeError("std::bad_alloc"),
    RuntimeError("can't start new thread"),
    RuntimeError("could not create a primitive"), OSError("The paging file is too small"),
    ImportError("x.so: failed to map segment from shared object"),
]  # fmt: skip
OTHERS = [ValueError("out of memory"), UserError("file out of memory.pth"), RuntimeError("size mismatch"), KeyError()]


@pytest.mark.parametrize("error", SHORTAGES, ids=repr)
def test_what_counts_as_a_lack_of_memory(error):
    assert memory_shortage(error) is error
    with pytest.raises(RunError, match=r"^picture: not enough memory.*ulimit -v"), memory_checked("picture"):
        call_it_damage(error)
    with pytest.raises(RunError, match="not enough memory"):
        user_fault("config", lambda: raised(error))


@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_what_does_not(error):
    assert memory_shortage(error) is None
    with pytest.raises(type(error)), memory_checked("picture"):
        raise error


def call_it_damage(error: Exception) -> None:
    """As readers do whose libraries raise anything for a damaged file."""
    try:
        raise error
    except Exception as cause:
        raise UserError("damaged") from cause


def raised(error: Exception) -> None:
    raise error


def fails(error: Exception) -> Callable[..., None]:
    return lambda *arguments, **options: raised(error)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["map", "storage", "safetensors"])
def test_a_checkpoint_is_not_called_damaged(zipped, place, tmp_path, monkeypatch):
    """Wherever memory ends: for the map of the file, for a tensor of it, or in a library."""
    path = tmp_path / ("x.safetensors" if place == "safetensors" else "x.pth")
    if place == "safetensors":
        files.save_checkpoint(path, {"w": torch.ones(8)}, {}, {}, safe=True)
        monkeypatch.setattr("safetensors.safe_open", fails(MemoryError()))
    else:
        torch.save({"state_dict": {"w": torch.ones(8)}}, path, _use_new_zipfile_serialization=zipped)
        if place == "map":
            monkeypatch.setattr(mmap, "mmap", fails(OSError(errno.ENOMEM, "Cannot allocate memory")))
        else:
            monkeypatch.setattr(tensors.torch, "empty", fails(RuntimeError(TORCH)))
    for read in (read_checkpoint, why_unusable) if place != "safetensors" else (read_checkpoint,):
        with pytest.raises(RunError, match=rf"^checkpoint {path}: not enough memory"):
            read(path)


def test_every_command_says_so_in_one_line(monkeypatch, capsys):
    for error in (MemoryError(), RuntimeError(TORCH)):
        monkeypatch.setattr("mmms_plugin.commands.weights.run", fails(error))
        assert commands.main(["weights", "list"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("mmms weights: error: the run: not enough memory")


def test_errors_with_a_loop_of_causes_end():
    first, second = ValueError(), ValueError()
    first.__cause__, second.__cause__ = second, first
    assert memory_shortage(first) is None


def test_buffers_are_not_memory():
    with pytest.raises(io.UnsupportedOperation), memory_checked("x"):
        raise io.UnsupportedOperation("fileno")
