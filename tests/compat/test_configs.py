"""Configs are formatted once, and found without the list of all published models."""

from __future__ import annotations

from types import ModuleType

import pytest
from mmengine.config import Config, config, utils
from mmengine.utils import get_installed_path

from mmms_plugin.compat.configs import find_at_once, format_once


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


@pytest.mark.parametrize("name", ["_base_/models/mask-rcnn_r50_fpn.py", "retinanet/retinanet_r50_fpn_1x_coco.py"])
def test_configs_of_hosts_are_those_of_mmengine_and_no_list_is_read(name, monkeypatch):
    folder = get_installed_path("mmdet")
    with pytest.raises(ValueError, match="Expected configs"):  # the list has none of them, so mmengine goes on
        utils._get_external_cfg_path(folder, name)
    expected = utils._get_external_cfg_base_path(folder, name)
    monkeypatch.setattr(utils, "load", lambda path: pytest.fail(f"{path} was read"))
    assert config.Config._get_cfg_path(f"mmdet::{name}", "mine.py") == (expected, "mmdet")


def test_configs_that_only_the_list_knows_are_still_found(monkeypatch, tmp_path):
    module = ModuleType("config")
    module._get_external_cfg_base_path = utils._get_external_cfg_base_path
    module._get_external_cfg_path = lambda folder, name: f"{folder}/listed/{name}"
    find_at_once(module)
    find_at_once(module)
    assert module._get_external_cfg_path(str(tmp_path), "a/b") == f"{tmp_path}/listed/a/b"
    find_at_once(ModuleType("another version"))
