"""Converted checkpoints on their way into a model, strictly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmms_plugin.errors import UserError

if TYPE_CHECKING:
    from mmms_plugin.backbones.base import Backbone


def load_backbone(path: str | Path, out_indices: Sequence[int] | None = None) -> Backbone:
    """Build ``meta.backbone`` of a converted checkpoint, returning these stages if given, and load it strictly.

    Raises: UserError if the file is not one of ``mmms convert``.
    """
    from mmms_plugin.registry import MODELS
    from mmms_plugin.weights.files import read_checkpoint

    checkpoint = read_checkpoint(path)
    config, prefix = checkpoint.meta.get("backbone"), checkpoint.meta.get("prefix", "")
    if not isinstance(config, dict):
        raise UserError(f"checkpoint {path}: no meta.backbone in it; convert it first (mmms convert)")
    backbone = MODELS.build(config if out_indices is None else {**config, "out_indices": tuple(out_indices)})
    backbone.load_state_dict({k.removeprefix(prefix): v for k, v in checkpoint.state.items() if k.startswith(prefix)})
    return backbone
