"""Whether a graph is being captured, asked in one place."""

from __future__ import annotations

import torch


def is_capturing() -> bool:
    """Whether the running code is being compiled, exported or traced rather than executed.

    A captured graph also runs at other sizes and on other devices than those it was captured with. So a layer takes
    no path there that is only quicker on this device, and checks no size: sizes may be symbols, and a check would
    become a condition on them. Covers ``torch.compile``, ``torch.export``, ``torch.jit.trace`` and both ONNX exporters.
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()
