"""torchvision's compiled ``nms`` and ``roi_align``, where they work.

The algorithms are mmcv's. Only the compiled library is loaded, never the package: importing torchvision takes seconds,
and fails where it was built for another torch ("operator torchvision::nms does not exist").
"""

from __future__ import annotations

from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from mmms_plugin.compat.torch_internals import has_kernel

OPS = ("nms", "roi_align", "_roi_align_backward")
_declared: list[torch.library.Library] = []


def _has_kernels(device_type: str) -> bool:
    return device_type in ("cpu", "cuda") and all(has_kernel(f"torchvision::{op}", device_type) for op in OPS)


def _load_library() -> None:
    spec = PathFinder.find_spec("torchvision")  # importlib's would call our own finder, which calls this
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for library in sorted(p for p in Path(folder).glob("_C*") if p.suffix in (".so", ".pyd", ".dylib")):
            try:
                torch.ops.load_library(str(library))
            except OSError:  # built for another torch, or for CUDA beside a CPU-only torch
                continue


def _cuda_matches() -> bool:
    """Whether torchvision was built for the CUDA release (major) that torch was built for."""
    if torch.version.cuda is None:  # ROCm
        return True
    return torch.ops.torchvision._cuda_version() // 1000 == int(torch.version.cuda.split(".")[0])


@cache
def declare_missing() -> None:
    """Let ``import torchvision`` succeed where its compiled library does not load: beside another build of torch.

    The package registers details of its ops on import, and fails if they do not exist. Declared without an
    implementation, they raise an error when called, while transforms and models work. mmengine imports torchvision
    wherever it is installed, so without this nothing would work at all.
    """
    _load_library()
    if hasattr(torch.ops.torchvision, "nms"):
        return
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)  # the ops go with the library


@cache
def usable(device_type: str) -> bool:
    """Whether torchvision's compiled ops work on devices of this type ('cpu', 'cuda')."""
    if not hasattr(torch.ops.torchvision, "nms"):
        _load_library()
    return _has_kernels(device_type) and (device_type != "cuda" or _cuda_matches())


def provider() -> str:
    """What computes nms and roi_align on this machine's GPU, or on its CPU if it has none, in words."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not usable(device):
        return f"nms and roi_align in plain torch ({device.upper()}; no compiled torchvision for it)"
    try:
        name = f"torchvision {version('torchvision')}"
    except PackageNotFoundError:
        name = "torchvision"
    if device == "cpu":
        return f"nms from {name}, roi_align in plain torch (CPU)"
    return f"nms and roi_align from {name} (CUDA)"
