"""`mmms test` runs an optimized copy with the weights that other hooks have put in place, and gives the model back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from mmengine.hooks import EMAHook, Hook
from torch import nn

from mmms_plugin.inference.optimize import FoldedNorm
from mmms_plugin.train.hooks import OptimizeHook


def test_averaged_weights_are_tested_and_the_trained_ones_come_back():
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    runner: Any = SimpleNamespace(model=model)
    average = EMAHook()
    average.before_run(runner)
    with torch.no_grad():
        for weight in average.ema_model.module.parameters():
            weight.add_(1)
    hooks: list[Hook] = [average, OptimizeHook()]
    assert average.priority != "VERY_LOW"  # mmengine runs hooks by their priority
    for hook in hooks:
        hook.before_test_epoch(runner)
    x = torch.randn(1, 3, 4, 4)
    with torch.no_grad():
        tested = runner.model(x)
        torch.testing.assert_close(tested, model(x))
        assert isinstance(runner.model[1], FoldedNorm)
        for hook in hooks:
            hook.after_test_epoch(runner)
        assert runner.model is model
        assert not torch.allclose(model(x), tested)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
