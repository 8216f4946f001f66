"""Untrusted files: every usual wrapping is read, everything else is refused in one line, and nothing is run."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import resource
import struct
import tarfile
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.weights.small import convert, refusal, state_dict, written


class Payload:
    def __init__(self, *called):
        self.called = called or (os.system, ("touch ran",))

    def __reduce__(self):
        return self.called


def save(content, path: Path, **options) -> None:
    torch.save(content, path, **options)


def module_prefix(state):
    return {f"module.{key}": value for key, value in state.items()}


WRAPPED = {
    "bare": lambda s, p: save(s, p),
    "state_dict": lambda s, p: save({"state_dict": s, "epoch": 3}, p),
    "model": lambda s, p: save({"model": s}, p),
    "nested": lambda s, p: save({"model": {"state_dict": module_prefix(s)}}, p),
    "module and optimizer": lambda s, p: save(
        {
            "epoch": 90,
            "arch": "dla46_c",
            "state_dict": module_prefix(s),
            "best_prec1": np.float64(64.9),
            "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]},
            "args": argparse.Namespace(lr=0.1, data="/data"),
            "seen": frozenset([1, 2]),
        },
        p,
    ),
    "module.backbone": lambda s, p: save({f"module.backbone.{k}": v for k, v in s.items() if k[:3] != "fc."}, p),
    "legacy pickle": lambda s, p: save({"state_dict": s}, p, _use_new_zipfile_serialization=False),
    "parameters": lambda s, p: save({k: nn.Parameter(v, v.is_floating_point()) for k, v in s.items()}, p),
    "float16": lambda s, p: save({k: v.half() if v.is_floating_point() else v for k, v in s.items()}, p),
    "stray module.": lambda s, p: save({f"module.{k}" if i % 9 else k: v for i, (k, v) in enumerate(s.items())}, p),
    "bfloat16": lambda s, p: save({k: v.bfloat16() if v.is_floating_point() else v for k, v in s.items()}, p),
}


@pytest.mark.parametrize("layout", [*WRAPPED, "safetensors"])
def test_wrapped_files_are_understood(layout, tmp_path):
    state = state_dict()
    if layout == "safetensors":
        save_file(state, tmp_path / "in.safetensors")
        source = tmp_path / "in.safetensors"
    else:
        source = tmp_path / "in.pth.tar"
        WRAPPED[layout](state, source)
    assert convert(source, tmp_path / "out.pth") == 0
    backbone = written(tmp_path / "out.pth")
    head = torch.load(tmp_path / "out.pth").get("head", {})
    assert ("fc.weight" in head) == (layout != "module.backbone")
    for key, value in backbone.items():
        if not key.endswith("num_batches_tracked"):
            wanted = state[key].to(value.dtype)
            assert torch.equal(value, wanted), key
            assert value.dtype == {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(layout, torch.float32)


def truncated(path: Path) -> None:
    save({"state_dict": state_dict()}, path)
    path.write_bytes(path.read_bytes()[:1_000_000])


def rewritten(path: Path, change) -> None:
    """A saved file whose zip entries are passed through ``change(name, data) -> (data or None, compression)``."""
    stream = io.BytesIO()
    save({"state_dict": {"a": torch.zeros(1000)}}, stream)
    with zipfile.ZipFile(stream) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            data, compression = change(entry.filename, old.read(entry.filename))
            if data is not None:
                new.writestr(entry.filename, data, compression)


def sparse_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(5_000_000_000)


def giant_header(path: Path) -> None:
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 5_000_000_000) + b"{")
        file.truncate(5_000_000_100)


def old_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("sys_info"))


def cut_safetensors(path: Path) -> None:
    save_file(state_dict(), path)
    path.write_bytes(path.read_bytes()[:200_000])


REFUSED = {
    "os.system": (lambda p: save({"state_dict": {}, "x": Payload()}, p), "posix.system"),
    "os.system, old pickle": (lambda p: save([Payload()], p, _use_new_zipfile_serialization=False), "posix.system"),
    "os.system, newer pickle": (
        lambda p: save({"state_dict": state_dict(), "x": Payload()}, p, pickle_protocol=4),
        "posix.system",
    ),
    "newer pickle": (lambda p: save(state_dict(), p, pickle_protocol=4), "save it again without pickle_protocol"),
    "os.system, oldest pickle": (lambda p: p.write_bytes(pickle.dumps(Payload(), protocol=0)), "posix.system"),
    "TorchScript": (lambda p: torch.jit.script(nn.ReLU()).save(p), "TorchScript archive"),
    "pipe": (os.mkfifo, "not a regular file"),
    "control characters": (lambda p: save({"a\n\x1b[31m": 1}, p), r"a\n\x1b[31m"),
    "os.system, bare pickle": (lambda p: p.write_bytes(pickle.dumps(Payload())), "posix.system"),
    "NumPy object array": (lambda p: save({"state_dict": {}, "x": np.array([1, "a"], dtype=object)}, p), "O8"),
    "whole model": (lambda p: save(nn.Linear(2, 2), p), "torch.nn.modules.linear.Linear"),
    "class": (lambda p: save({"state_dict": {}, "p": Path("x")}, p), "pathlib"),
    "another class of a module": (
        lambda p: save([OrderedDict(), Payload(Counter, ())], p, pickle_protocol=4),
        "it holds collections.Counter",
    ),
    "truncated zip": (truncated, "damaged or cut off"),
    "empty": (lambda p: p.touch(), "empty"),
    "text": (lambda p: p.write_text("<html>Not found</html>", encoding="utf-8"), "not a checkpoint"),
    "directory": (lambda p: p.mkdir(), "directory"),
    "absent": (lambda p: None, "no such file"),
    "5 GB of zeros": (sparse_file, "not a checkpoint"),
    "old tar": (old_tar, "not a checkpoint"),
    "zip bomb": (lambda p: rewritten(p, lambda n, d: (d, zipfile.ZIP_DEFLATED)), "unpack to more"),
    "storage missing": (lambda p: rewritten(p, lambda n, d: (None if "data/0" in n else d, 0)), "damaged"),
    "storage cut": (lambda p: rewritten(p, lambda n, d: (d[:100] if "data/0" in n else d, 0)), "damaged"),
    "no pickle": (lambda p: rewritten(p, lambda n, d: (None if n.endswith(".pkl") else d, 0)), "damaged"),
    "expanded view": (lambda p: save({"fc.weight": torch.zeros(1).expand(10**6, 10**6)}, p), "more values"),
    "sparse tensor": (lambda p: save({"fc.weight": torch.eye(3).to_sparse()}, p), "sparse"),
    "a number": (lambda p: save(3, p), "it holds a int"),
    "no tensors": (lambda p: save({"state_dict": {"a": 1}}, p), "no state dict of tensors"),
    "safetensors, giant header": (giant_header, "not a safetensors file"),
    "safetensors, cut": (cut_safetensors, "damaged or not safetensors"),
    "safetensors, text": (
        lambda p: p.write_text("version https://git-lfs.github.com/spec/v1", encoding="utf-8"),
        "not a safetensors file",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make, words = REFUSED[case]
    source = tmp_path / ("in.safetensors" if "safetensors," in case else "in.pth")
    make(source)
    (tmp_path / "folder").mkdir()
    assert words in refusal(capsys, source, tmp_path / "folder" / "out.pth")
    assert not Path("ran").exists()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("fc.bias"), "the classifier's fc.bias is missing"),
        (lambda s: s.update({"fc.bias": torch.zeros(37)}), "bias is [37], expected [1000]"),
        (
            lambda s: s.update({"level0.0.weight": s["level0.0.weight"].long()}),
            "backbone.level0.0.weight has type int64",
        ),
        (lambda s: s.update({"level0.0.weight": s["level0.0.weight"] * 1j}), "has type complex64"),
        (
            lambda s: s.update({"fc.weight": s["fc.weight"].int()}),
            "head.fc.weight has type int32: allowed are float16, bfloat16, float32 and float64",
        ),
        (
            lambda s: s.update({"level0.1.num_batches_tracked": torch.ones((), dtype=torch.int16)}),
            "has type int16: allowed are float16, bfloat16, float32, float64, int64, int32, uint8 and bool",
        ),
        (lambda s: s.pop("fc.weight"), "the classifier's fc.weight is missing"),
        (lambda s: s.update({"fc.weight": torch.ones(1000)}), "weight is [1000], expected [classes, 256]"),
        (lambda s: s.update({"fc.weight": torch.ones(1000, 255)}), "weight is [1000, 255], expected [classes, 256]"),
        (lambda s: s.update({"fc.weight": torch.ones(0, 256), "fc.bias": torch.ones(0)}), "weight is [0, 256]"),
    ],
)
def test_what_would_only_fail_later_is_refused(change, words, tmp_path, capsys):
    state = state_dict()
    change(state)
    save(state, tmp_path / "in.pth")
    assert words in refusal(capsys, tmp_path / "in.pth", tmp_path / "out.pth", "--verify")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_parts_of_a_large_storage_are_written_alone(suffix, tmp_path):
    state = state_dict()
    key = "level5.root.conv.weight"
    large = torch.zeros(10_000_000)
    large[: state[key].numel()] = state[key].flatten()
    save({**state, key: large[: state[key].numel()].view(state[key].shape)}, tmp_path / "in.pth")
    assert (tmp_path / "in.pth").stat().st_size > 40e6
    assert convert(tmp_path / "in.pth", tmp_path / f"out{suffix}") == 0
    assert (tmp_path / f"out{suffix}").stat().st_size < 6e6
    assert torch.equal(written(tmp_path / f"out{suffix}")[key], state[key])


def test_safetensors_are_known_by_content(tmp_path):
    save_file(state_dict(), tmp_path / "pytorch_model.bin")
    assert convert(tmp_path / "pytorch_model.bin", tmp_path / "out.pth") == 0


def test_report_replaces_no_checkpoint(tmp_path, capsys):
    source, out = tmp_path / "in.pth", tmp_path / "out.pth"
    save(state_dict(), source)
    os.link(source, tmp_path / "link.json")
    before = source.read_bytes()
    for report in (source, out, tmp_path / "link.json", tmp_path / "." / "out.pth"):
        assert "it is the input or the output" in refusal(capsys, source, out, "--report", str(report))
    assert "directory" in refusal(capsys, source, out, "--report", str(tmp_path))
    assert "not a folder" in refusal(capsys, source, out, "--report", str(source / "report.json"))
    assert source.read_bytes() == before


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_full_disk_is_reported_in_one_line(suffix, tmp_path, capsys):
    save(state_dict(), tmp_path / "in.pth")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        assert "cannot be written" in refusal(capsys, tmp_path / "in.pth", tmp_path / f"out{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_output_is_whole_or_absent(tmp_path, monkeypatch, capsys):
    save(state_dict(), tmp_path / "in.pth")
    folder = tmp_path / "new" / "folder"
    assert convert(tmp_path / "in.pth", folder / "out.pth") == 0  # folders are made
    before = (folder / "out.pth").read_bytes()
    assert "give --force" in refusal(capsys, tmp_path / "in.pth", folder / "out.pth")
    assert "the input itself" in refusal(capsys, tmp_path / "in.pth", tmp_path / "in.pth", "--force")
    assert ".pth or .safetensors" in refusal(capsys, tmp_path / "in.pth", folder / "out.bin")

    def interrupted(content, stream):
        stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    assert convert(tmp_path / "in.pth", folder / "out.pth", "--force") == 130
    assert [path.name for path in folder.iterdir()] == ["out.pth"]
    assert (folder / "out.pth").read_bytes() == before
    monkeypatch.undo()
    assert convert(tmp_path / "in.pth", folder / "out.pth", "--force") == 0
    assert (folder / "out.pth").read_bytes() == before  # the same input gives the same bytes
    (tmp_path / "file").touch()
    assert "cannot be written" in refusal(capsys, tmp_path / "in.pth", tmp_path / "file" / "out.pth")
