"""The text of a config, formatted once: mmengine formats it up to five times before the first iteration."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any


def format_once(module: ModuleType) -> None:
    """Let ``mmengine.config.config`` keep the last text that yapf formatted."""
    plain = getattr(module, "FormatCode", None)
    if plain is None or hasattr(plain, "__wrapped__"):
        return
    last: list[tuple[Any, Any]] = [(None, None)]

    @functools.wraps(plain)
    def format_code(text: str, **options: Any) -> Any:
        key, formatted = last[0]
        if key != (text, options):
            formatted = plain(text, **options)
            last[0] = ((text, options), formatted)
        return formatted

    module.FormatCode = format_code  # type: ignore[attr-defined]
