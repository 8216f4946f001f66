"""Training of shape adaptors: their alphas have an optimizer of their own and step now and then.

Shape Adaptor (Liu et al., ECCV 2020), section 3: SGD with learning rate 0.1, Nesterov momentum 0.9 and cosine decay,
one step every 20 iterations. In a config::

    optim_wrapper = dict(constructor="mmms_plugin.ShapeAdaptorConstructor", ...)
    custom_hooks = [dict(type="mmms_plugin.ShapeAdaptorHook")]
"""

from __future__ import annotations

import math
from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.runner import Runner
from torch import nn

from mmms_plugin.errors import UserError
from mmms_plugin.layers import ShapeAdaptor
from mmms_plugin.registry import HOOKS, OPTIM_WRAPPER_CONSTRUCTORS
from mmms_plugin.scale.flops import count

STATE = "shape_optimizer"  # key of the alphas' optimizer in a checkpoint


def adaptors_of(model: nn.Module) -> dict[str, ShapeAdaptor]:
    """The adaptors of a model that are trained, by the name of their place such as ``layer2.0``."""
    adaptors = {name: module for name, module in model.named_modules() if isinstance(module, ShapeAdaptor)}
    return {_place(name): module for name, module in adaptors.items() if module.alpha.requires_grad}


def _place(name: str) -> str:
    return name.removeprefix("module.").removeprefix("backbone.").removesuffix(".resize")


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ShapeAdaptorConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor of optimizer wrappers, without the alphas: ``ShapeAdaptorHook`` trains those."""

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """The optimizer wrapper for all parameters of ``model`` but the alphas."""
        wrapper = super().__call__(model)
        alphas = {id(adaptor.alpha) for adaptor in adaptors_of(model).values()}
        groups = wrapper.optimizer.param_groups
        for group in groups:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in alphas]
        groups[:] = [group for group in groups if group["params"]]
        return wrapper


@HOOKS.register_module()
class ShapeAdaptorHook(Hook):
    """Train the alphas of all shape adaptors, and log the shape.

    A step uses the gradient of its own iteration, averaged over the processes; mixed precision's loss scale and the
    divisor of gradient accumulation are taken out, and a gradient that is not finite is skipped.

    Args:
        step: iterations from one step of the alphas to the next.
        lr: learning rate at the start; falls to 0 by half a cosine over the training.
        momentum: of SGD, by Nesterov's rule.
        report: iterations from one report of shape and multiply-adds to the next.

    Logged scalars: ``s_<place>`` for every adaptor, such as ``s_layer2.0``.
    Raises: ValueError for numbers out of range; UserError if the model has no shape adaptor to train.
    """

    priority = "NORMAL"

    def __init__(self, step: int = 20, lr: float = 0.1, momentum: float = 0.9, report: int = 500) -> None:
        for name, value in (("step", step), ("report", report)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r}: must be an integer from 1, a number of iterations")
        if not lr > 0 or not 0 < momentum < 1:
            raise ValueError(f"lr={lr!r}, momentum={momentum!r}: must be above 0, and momentum below 1")
        self.step, self.lr, self.momentum, self.report = step, lr, momentum, report
        self._resumed: dict[str, Any] | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep the optimizer's state of a checkpoint until training starts."""
        self._resumed = checkpoint.get(STATE)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Put the optimizer's state beside the weights."""
        checkpoint[STATE] = self.optimizer.state_dict()

    def before_train(self, runner: Runner) -> None:
        """Build the optimizer of the alphas.

        Raises: UserError if there is none.
        """
        self.adaptors = adaptors_of(runner.model)
        if not self.adaptors:
            raise UserError(
                "custom_hooks: ShapeAdaptorHook found no shape adaptor to train; use it with a ShapeAdaptor backbone "
                "whose mode is not 'human', and leave it out after freeze_shapes"
            )
        alphas = [adaptor.alpha for adaptor in self.adaptors.values()]
        others = {id(p) for group in _main_optimizer(runner).param_groups for p in group["params"]}
        if any(id(alpha) in others for alpha in alphas):
            raise UserError(
                "optim_wrapper: also trains the alphas of the shape adaptors; set "
                "optim_wrapper.constructor='mmms_plugin.ShapeAdaptorConstructor'"
            )
        self.optimizer = torch.optim.SGD(alphas, lr=self.lr, momentum=self.momentum, nesterov=True)
        if self._resumed is not None:
            self.optimizer.load_state_dict(self._resumed)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Start from no gradient, and note the loss scale of this iteration."""
        self.optimizer.zero_grad()
        wrapper = runner.optim_wrapper
        scaler = getattr(wrapper, "loss_scaler", None)
        share = float(wrapper.scale_loss(torch.ones(())))  # of gradient accumulation; the last batches may be fewer
        self._gradient_scale = (1.0 if scaler is None else scaler.get_scale()) * share

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Step if it is time, and log."""
        done = runner.iter + 1
        if done % self.step == 0:
            self._step(math.cos(math.pi * runner.iter / runner.max_iters))
        self.optimizer.zero_grad()
        for place, adaptor in self.adaptors.items():
            runner.message_hub.update_scalar(f"train/s_{place}", adaptor.scale)
        if done % self.report == 0 or done == runner.max_iters:
            print_log(self._describe(runner, data_batch), "current")

    def _step(self, cosine: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * (1 + cosine) / 2
        alphas = [adaptor.alpha for adaptor in self.adaptors.values()]
        gradients = [alpha.grad for alpha in alphas if alpha.grad is not None]  # none behind the last returned stage
        for gradient in gradients:
            gradient.div_(self._gradient_scale)
            if get_world_size() > 1:
                all_reduce(gradient, "mean")
        if all(gradient.isfinite() for gradient in gradients):
            self.optimizer.step()

    def _describe(self, runner: Runner, data_batch: Any) -> str:
        """The sides of the maps and the multiply-adds for a picture of the size of the batch's first."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        backbone, inputs = model.backbone, data_batch["inputs"]
        height, width = inputs[0].shape[-2:]
        sizes = [size[1:] for size in backbone.shapes(height, width)]
        changes = [sizes[0], *(size for before, size in pairwise(sizes) if size != before)]
        cost = count(deepcopy(backbone).to("meta"), torch.empty(1, inputs[0].shape[0], height, width, device="meta"))
        return f"shape {' > '.join(f'{h}x{w}' for h, w in changes)}, {cost.macs / 1e9:.3f} GMAC of the backbone"


def _main_optimizer(runner: Runner) -> torch.optim.Optimizer:
    return runner.optim_wrapper.optimizer
