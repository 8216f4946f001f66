"""Parameters and multiply-adds of a backbone by its name, or of a config's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from mmengine.registry import MODELS, init_default_scope

from mmms_plugin.config.files import first_line, load_config
from mmms_plugin.errors import UserError
from mmms_plugin.scale.flops import Cost, exit_macs, measure


@dataclass(frozen=True)
class Measured:
    """Cost of a backbone with its config, at a picture of (height, width), and multiply-adds up to each exit."""

    config: dict[str, Any]
    size: tuple[int, int]
    cost: Cost
    exits: list[int]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(exits=self.exits, config=self.config, size=self.size, measured=asdict(self.cost))


def measure_backbone(target: str, options: Mapping[str, Any], size: tuple[int, int]) -> Measured:
    """Parameters and multiply-adds of a registered backbone or of a config's.

    Args:
        target: name of a backbone, or name or path of a config. options: arguments that replace the backbone's.
        size: height and width of the picture.

    Raises:
        UserError: an unknown name, or what the backbone refuses.
    """
    config = {**_backbone_config(target), **options}
    try:
        cost = measure(config, size)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise UserError(f"{target}: {first_line(error)} (give arguments with --cfg-options)") from error
    return Measured(config, size, cost, _exit_macs(target, config, size))


def _exit_macs(target: str, config: Mapping[str, Any], size: tuple[int, int]) -> list[int]:
    """Multiply-adds up to each exit of a config with several classifiers; empty where there is one, or none."""
    if MODELS.get(f"mmms_plugin.{target.removeprefix('mmms_plugin.')}") is not None:
        return []
    head = load_config(target).model.get("head") or {}
    if not str(head.get("type")).endswith("MultiExitHead"):
        return []
    with torch.device("meta"):
        return exit_macs(MODELS.build(dict(config)), list(MODELS.build(dict(head)).exits), size)


def _backbone_config(target: str) -> dict[str, Any]:
    name = target.removeprefix("mmms_plugin.")
    if MODELS.get(f"mmms_plugin.{name}") is not None:
        return dict(type=f"mmms_plugin.{name}")
    config = load_config(target)
    if "backbone" not in config.get("model", {}):
        raise UserError(f"config {target}: its model has no backbone")
    own = str(config.model.backbone.get("type")).startswith("mmms_plugin.")  # needs no host
    init_default_scope("mmengine" if own else config.get("default_scope") or "mmengine")
    return {key: value for key, value in config.model.backbone.to_dict().items() if key not in ("init_cfg", "_scope_")}
