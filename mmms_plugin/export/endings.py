"""Endings of exported files, and the packages that each needs; without torch, to refuse a wrong name at once."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from mmms_plugin.errors import UserError

PACKAGES: Mapping[str, tuple[str, ...]] = {".onnx": ("onnxscript", "onnxruntime"), ".pt2": (), ".xml": ("openvino",)}


def check_ending(out: Path) -> None:
    """Raises: UserError for an unknown ending, and if a package that it needs is missing."""
    if out.suffix not in PACKAGES:
        raise UserError(f"OUT {out}: its ending must be one of {', '.join(PACKAGES)}")
    packages = PACKAGES[out.suffix]
    if missing := [package for package in packages if find_spec(package) is None]:
        raise UserError(
            f"OUT {out}: {missing[0]} is missing: pip install {' '.join(missing)}, or give a name that ends in .pt2"
        )
