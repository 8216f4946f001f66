"""Heads for the hosts. Most subclass a host's own, which is imported only when one of their names is used."""

from importlib import import_module
from typing import Any

from mmms_plugin.registry import HOSTED

__all__ = ["ASPPHead", "DLAUpHead", "MultiExitHead"]  # found by __getattr__


def __getattr__(name: str) -> Any:
    if name not in HOSTED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOSTED[name]), name)
