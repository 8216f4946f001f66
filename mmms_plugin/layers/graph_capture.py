"""Whether a graph is being captured, asked in one place."""

from __future__ import annotations

import torch


def is_capturing() -> bool:
    """Whether the running code is being compiled, exported or traced rather than executed.

    Sizes may then be symbols, so a layer checks none and slices by none: a check would become a condition on them.
    Covers ``torch.compile``, ``torch.export``, ``torch.jit.trace`` and both ONNX exporters.
    """
    return torch.compiler.is_compiling() or _is_tracing()


def is_exporting() -> bool:
    """Whether the captured graph is to run elsewhere: as ``is_capturing``, without ``torch.compile``.

    A layer then takes no path that is only quicker on the device at hand. ``torch.compile`` captures again for another
    device, so there it may.
    """
    # torch 2.6 has no is_exporting: there a compiled graph is treated as an exported one
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return bool(exporting()) or _is_tracing()


def _is_tracing() -> bool:
    traced: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call, unused-ignore]
    return traced or torch.onnx.is_in_onnx_export()
