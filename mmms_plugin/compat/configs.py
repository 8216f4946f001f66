"""How mmengine reads and writes configs, without work that it does over and over."""

from __future__ import annotations

from types import ModuleType
from typing import Any


def format_once(module: ModuleType) -> None:
    """Let ``mmengine.config.config`` keep the last text that yapf formatted: it formats it up to five times."""
    plain = getattr(module, "FormatCode", None)
    if plain is None or "__wrapped__" in vars(plain):
        return
    last: list[tuple[Any, Any]] = [(None, None)]

    def format_code(text: str, **options: Any) -> Any:
        key, formatted = last[0]
        if key != (text, options):
            formatted = plain(text, **options)
            last[0] = ((text, options), formatted)
        return formatted

    format_code.__wrapped__ = plain  # type: ignore[attr-defined]
    module.FormatCode = format_code  # type: ignore[attr-defined]


def find_at_once(module: ModuleType) -> None:
    """Let ``mmengine.config.config`` look for ``mmdet::...`` in mmdet's folder first.

    It reads the list of every published model before, 100 YAML files, for each ``_base_`` of a config.
    """
    by_list = getattr(module, "_get_external_cfg_path", None)
    if by_list is None or "__wrapped__" in vars(by_list) or not hasattr(module, "_get_external_cfg_base_path"):
        return

    def path_of(package_path: str, name: str) -> Any:
        try:
            return module._get_external_cfg_base_path(package_path, name)
        except FileNotFoundError:
            return by_list(package_path, name)

    path_of.__wrapped__ = by_list  # type: ignore[attr-defined]
    module._get_external_cfg_path = path_of  # type: ignore[attr-defined]
