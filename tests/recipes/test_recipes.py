"""Every config against the published recipe in ``published.yaml``."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.nn.modules.batchnorm import _BatchNorm

from mmms_plugin.config.files import config_names, load_config
from mmms_plugin.registry import MODELS
from mmms_plugin.train.shape_hook import ShapeAdaptorHook

TABLE = yaml.safe_load((Path(__file__).parent / "published.yaml").read_text(encoding="utf-8"))
RECIPES = TABLE["recipes"]


def matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch(f"{name}.py", pattern) or fnmatch(name, pattern) for pattern in patterns)


def recipes_of(name: str) -> list[str]:
    return [
        title
        for title, recipe in RECIPES.items()
        if matches(name, recipe["configs"]) and not matches(name, recipe.get("except", []))
    ]


def value_at(config: Any, place: str) -> Any:
    """The setting at a place such as ``train_dataloader.dataset.pipeline.1.scale``; None if it is absent."""
    for key in place.split("."):
        if isinstance(config, list | tuple) and int(key) < len(config):
            config = config[int(key)]
        elif isinstance(config, dict):
            config = config.get(key)
        else:
            return None
    return plain(config)


def plain(value: Any) -> Any:
    """The same in lists and dicts, as YAML has it; without mmengine's scopes."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key != "_scope_"}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("name", [name for name in config_names() if recipes_of(name)])
def test_a_config_has_the_published_recipe(name: str) -> None:
    config = load_config(name).to_dict()
    values: dict[str, Any] = {}
    for title in recipes_of(name):
        recipe = RECIPES[title]
        assert recipe["source"]
        values |= recipe.get("values", {})
        values |= {place: deviation["ours"] for place, deviation in recipe.get("deviations", {}).items()}
        assert all(d["published"] != d["ours"] and d["why"] for d in recipe.get("deviations", {}).values())
    assert {place: value_at(config, place) for place in values} == values


def test_the_hook_of_shape_adaptors_has_the_published_defaults() -> None:
    """Of lorenmt/shape-adaptor, model_training.py, which the table leaves to the hook."""
    hook = ShapeAdaptorHook()
    assert (hook.step, hook.lr, hook.momentum) == (20, 0.1, 0.9)


def test_batch_norms_have_the_momentum_of_pytorch_by_default() -> None:
    """Which is what the table's `norm_cfg: null` means."""
    norms = [
        m for m in MODELS.build(dict(type="mmms_plugin.PSResNet", depth=18)).modules() if isinstance(m, _BatchNorm)
    ]
    assert {norm.momentum for norm in norms} == {0.1}


def test_every_config_is_in_the_table_and_every_entry_has_a_config() -> None:
    names = list(config_names())
    unpublished = {pattern: [name for name in names if matches(name, [pattern])] for pattern in TABLE["unpublished"]}
    assert all(unpublished.values())
    without = {name for part in unpublished.values() for name in part}
    published = {name for name in names if recipes_of(name)}
    assert not published & without
    assert published | without == set(names)
    for recipe in RECIPES.values():
        for pattern in recipe["configs"]:
            assert any(matches(name, [pattern]) for name in names), pattern
