"""A small published checkpoint (DLA-46-C, 1.3 M parameters) and what every test does with it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mmms_plugin.cli import main
from tests.golden.records import load_record, make_state_dict

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
