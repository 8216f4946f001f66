"""Momenta of batch norms, part by part: recipes whose parts differ, where the networks take one ``norm_cfg``."""

from __future__ import annotations

from collections.abc import Mapping

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.nn.modules.batchnorm import _BatchNorm

from mmms_plugin.errors import UserError
from mmms_plugin.registry import HOOKS
from mmms_plugin.train.hooks import unwrapped


@HOOKS.register_module()
class NormMomentumHook(Hook):
    """Before training, sets the momentum with which batch norms update their running statistics.

    Args:
        momenta: momentum of each part of the model, by its name, such as ``backbone`` or ``backbone.layer1``. A part
            within another has its own.

    Raises:
        ValueError: a momentum is out of range.
        UserError: a part has no batch norm.
    """

    priority = "NORMAL"

    def __init__(self, momenta: Mapping[str, float]) -> None:
        for part, momentum in momenta.items():
            if not 0 < momentum <= 1:
                raise ValueError(f"momenta[{part!r}]={momentum!r}: must be above 0 and at most 1")
        self.momenta = dict(momenta)

    def before_train(self, runner: Runner) -> None:
        """Set the momenta."""
        norms = {f"{n}.": m for n, m in unwrapped(runner.model).named_modules() if isinstance(m, _BatchNorm)}
        for part, momentum in sorted(self.momenta.items(), key=lambda item: len(item[0])):  # the inner part last
            inside = [norm for name, norm in norms.items() if name.startswith(f"{part}.")]
            if not inside:
                raise UserError(f"custom_hooks: NormMomentumHook.momenta[{part!r}]: the model has no batch norm there")
            for norm in inside:
                norm.momentum = momentum
