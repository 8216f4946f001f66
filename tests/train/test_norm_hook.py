"""``NormMomentumHook``: momenta by part, the inner part's before the outer's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from mmengine.registry import HOOKS
from torch import nn

from mmms_plugin.errors import UserError
from mmms_plugin.train.norm_hook import NormMomentumHook


def momenta_after(**momenta: float) -> list[float]:
    model = nn.ModuleDict({"stem": nn.BatchNorm2d(1), "stem2": nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))})
    whole = nn.ModuleDict({"backbone": model, "head": nn.SyncBatchNorm(1)})
    hook = HOOKS.build(
        dict(type="mmms_plugin.NormMomentumHook", momenta={k.replace("_", "."): v for k, v in momenta.items()})
    )
    hook.before_train(SimpleNamespace(model=whole))
    return [model["stem"].momentum, model["stem2"][1].momentum, whole["head"].momentum]


@pytest.mark.parametrize(
    ("momenta", "expected"),
    [
        (dict(backbone=0.2), [0.2, 0.2, 0.1]),
        (dict(backbone_stem=0.3, backbone=0.2, head=0.0003), [0.3, 0.2, 0.0003]),  # stem2 is not within stem
    ],
)
def test_the_inner_part_decides(momenta, expected):
    assert momenta_after(**momenta) == expected


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"NormMomentumHook.momenta\['neck'\]: the model has no batch norm there"):
        momenta_after(neck=0.1)
    for momentum in (0, 1.5):
        with pytest.raises(ValueError, match=r"momenta\['neck'\]=.*: must be above 0 and at most 1"):
            NormMomentumHook({"neck": momentum})
