"""What a trained network costs, with the shape that training gave it: parameters, multiply-adds, memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope, init_default_scope

from mmms_plugin.compat.newest import newest_checkpoint
from mmms_plugin.config.facts import CountedPart, picture_size, task_name
from mmms_plugin.config.files import load_config
from mmms_plugin.errors import UserError
from mmms_plugin.scale.flops import count
from mmms_plugin.scale.memory import kept_for_backward
from mmms_plugin.weights.files import read_checkpoint


class TrainedCost(NamedTuple):
    """Parameters; multiply-adds of one picture; bytes of one picture that training keeps for the backward pass."""

    params: int
    macs: int
    kept: int


def trained_cost(work_dir: Path) -> TrainedCost:
    """Of the config that training left in ``work_dir``, with the shape of its newest checkpoint.

    Of detectors, multiply-adds and memory are those of backbone and neck.

    Raises: UserError if there is no config or no checkpoint.
    """
    configs = sorted(work_dir.glob("*.py"))
    checkpoint, _ = newest_checkpoint(work_dir)
    if len(configs) != 1 or checkpoint is None:
        raise UserError(f"{work_dir}: {len(configs)} configs and {checkpoint} in it, expected what a training writes")
    config = load_config(str(configs[0]))
    with DefaultScope.overwrite_default_scope(config.default_scope):
        init_default_scope(config.default_scope)
        model: Any = revert_sync_batchnorm(MODELS.build(config.model))
    state = read_checkpoint(checkpoint).state
    for key, value in model.state_dict().items():
        if key.endswith(".alpha"):
            value.copy_(state[key])
    model = model.train().to("meta")  # train: adaptors note their scale as a number, which the meta device needs
    part, size = CountedPart(model, task_name(config.model)), picture_size(config)
    kept = kept_for_backward(part, torch.empty(2, 3, *size, device="meta")) // 2
    cost = count(part, torch.empty(1, 3, *size, device="meta"))
    return TrainedCost(cost.params, cost.macs, kept)
