"""Configs are formatted once."""

from __future__ import annotations

from types import ModuleType

from mmengine.config import Config, config

from mmms_plugin.compat.config_text import format_once


def test_a_text_is_formatted_again_only_after_another():
    calls = []
    module = ModuleType("config")
    module.FormatCode = lambda text, **options: calls.append((text, options)) or (text.upper(), True)
    format_once(module)
    format_once(module)
    formatted = [module.FormatCode(text, style_config=style) for text, style in (("a", {}), ("a", {}), ("a", {"b": 1}))]
    assert formatted == [("A", True)] * 3
    assert calls == [("a", {"style_config": {}}), ("a", {"style_config": {"b": 1}})]
    format_once(ModuleType("another version"))


def test_mmengine_s_configs_are_formatted_once():
    assert hasattr(config.FormatCode, "__wrapped__")
    given = Config(dict(model=dict(depth=18)))
    text = given.pretty_text
    given.model.depth = 50
    assert given.pretty_text == text.replace("18", "50")
