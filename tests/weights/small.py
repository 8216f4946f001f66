"""A small published checkpoint (DLA-46-C, 1.3 M parameters), a smaller file, and what every test does with them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from mmms_plugin.commands import main
from tests.golden.records import load_record, make_state_dict

CONTENT = {"state_dict": {"fc.weight": torch.arange(500.0), "fc.bias": torch.ones(7)}}
ARCH = ["--source", "dla", "--arch", "dla46_c"]


def state_dict() -> dict[str, Tensor]:
    """DLA-46-C in its authors' keys."""
    return make_state_dict(load_record("timm_dla46_c"))


def convert(source: Path, out: Path, *options: str) -> int:
    """``mmms convert`` as DLA-46-C; the exit status."""
    return main(["convert", str(source), str(out), *(options if "--source" in options else [*ARCH, *options])])


def refusal(capsys, source: Path, out: Path, *options: str) -> str:
    """The one line that a conversion is refused with; nothing may have been written."""
    capsys.readouterr()
    before = set(out.parent.iterdir()) if out.parent.is_dir() else set()
    assert convert(source, out, *options) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert (set(out.parent.iterdir()) if out.parent.is_dir() else set()) == before
    return lines[0]


def written(path: Path) -> dict[str, Tensor]:
    """State dict of a written checkpoint."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, weights_only=True)["state_dict"]


def saved(content=CONTENT, **options) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def changed(data: bytes, change) -> bytes:
    """A saved file whose entries, ``{name: bytes}``, went through ``change``; checksums are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    change(entries)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as new:
        for name, content in entries.items():
            new.writestr(name, content)
    return stream.getvalue()
