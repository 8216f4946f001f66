"""The device that ``--device`` names."""

from __future__ import annotations

import torch

from mmms_plugin.errors import UserError, first_line

ALLOWED = "--device {}: allowed are cpu, cuda, cuda:1 and so on, mps"


def usable_device(name: str | None) -> torch.device:
    """The device of that name; by default the first CUDA device, or the CPU where there is none.

    Raises:
        UserError: torch has no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(ALLOWED.format(name)) from error
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device.type not in available:
        raise UserError(ALLOWED.format(name))
    if not available[device.type]:
        raise UserError(f"--device {name}: torch sees no {device.type.upper()} device; --device cpu always works")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # a number too high
        raise UserError(f"--device {name}: {first_line(error)}") from error
    return device
