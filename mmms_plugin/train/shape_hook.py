"""Training of shape adaptors: their alphas have a separate optimizer, which makes few steps.

Shape Adaptor (Liu et al., ECCV 2020), section 3: SGD with learning rate 0.1, Nesterov momentum 0.9 and cosine decay,
one step every 20 iterations. The order of the steps is that of the authors' code
(github.com/lorenmt/shape-adaptor, model_training.py): in every epoch the alphas step at iteration 0 and every so many
after it, on a pass of their own, and the weights' pass on the same batch has the new shape. In a config::

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
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.runner import Runner
from torch import nn

from mmms_plugin.errors import UserError
from mmms_plugin.layers import ShapeAdaptor
from mmms_plugin.registry import HOOKS, OPTIM_WRAPPER_CONSTRUCTORS
from mmms_plugin.scale.flops import count
from mmms_plugin.train.hooks import unwrapped

STATE = "shape_optimizer"  # key of the alphas' optimizer in a checkpoint


def adaptors_of(model: nn.Module) -> dict[str, ShapeAdaptor]:
    """The trainable adaptors of a model, by their place in the backbone, such as ``layer2.0``."""
    return {
        name.removeprefix("module.").removeprefix("backbone.").removesuffix(".resize"): module
        for name, module in model.named_modules()
        if isinstance(module, ShapeAdaptor) and module.alpha.requires_grad
    }


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ShapeAdaptorConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor of optimizer wrappers, without the alphas, which ``ShapeAdaptorHook`` trains."""

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """The optimizer wrapper for all parameters of ``model`` except the alphas."""
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

    A step uses the gradient of a batch before the weights are trained on it, averaged over the processes; a gradient
    that is not finite is skipped. Like the authors', its pass also updates running statistics. Logged scalars are
    ``s_<place>`` for every adaptor, such as ``s_layer2.0``.

    Args:
        step: iterations between two steps of the alphas, counted from the start of each epoch.
        lr: initial learning rate; falls to 0 along half a cosine, epoch by epoch, or by iterations if the training
            does not count epochs.
        momentum: Nesterov momentum of SGD.
        report: iterations between two reports of shape and multiply-adds.

    Raises:
        ValueError: a number is out of range.
        UserError: the model has no shape adaptor to train.
    """

    priority = "NORMAL"

    def __init__(self, step: int = 20, lr: float = 0.1, momentum: float = 0.9, report: int = 500) -> None:
        for name, value in (("step", step), ("report", report)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r}: must be an integer of at least 1, a number of iterations")
        if not lr > 0 or not 0 < momentum < 1:
            raise ValueError(f"lr={lr!r}, momentum={momentum!r}: must be above 0, and momentum below 1")
        self.step, self.lr, self.momentum, self.report = step, lr, momentum, report
        self._resumed: dict[str, Any] | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep the optimizer's state in a checkpoint until training starts."""
        self._resumed = checkpoint.get(STATE)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the optimizer's state."""
        checkpoint[STATE] = self.optimizer.state_dict()

    def before_train(self, runner: Runner) -> None:
        """Build the optimizer of the alphas.

        Raises:
            UserError: there are no alphas, or another optimizer trains them too.
        """
        self.adaptors = adaptors_of(runner.model)
        if not self.adaptors:
            raise UserError(
                "custom_hooks: ShapeAdaptorHook found no shape adaptor to train; use it with a ShapeAdaptor backbone "
                "whose mode is not 'human', and leave it out after freeze_shapes"
            )
        alphas = [adaptor.alpha for adaptor in self.adaptors.values()]
        main: torch.optim.Optimizer = runner.optim_wrapper.optimizer
        others = {id(p) for group in main.param_groups for p in group["params"]}
        if any(id(alpha) in others for alpha in alphas):
            raise UserError(
                "optim_wrapper: also trains the alphas of the shape adaptors; set "
                "optim_wrapper.constructor='mmms_plugin.ShapeAdaptorConstructor'"
            )
        self.optimizer = torch.optim.SGD(alphas, lr=self.lr, momentum=self.momentum, nesterov=True)
        if self._resumed is not None:
            self.optimizer.load_state_dict(self._resumed)
            self.optimizer.param_groups[0]["momentum"] = self.momentum  # the config's, as for the weights

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Step when due."""
        if batch_idx % self.step == 0:
            by_epoch = runner.max_epochs > 1
            progress = runner.epoch / runner.max_epochs if by_epoch else runner.iter / runner.max_iters
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr * (1 + math.cos(math.pi * progress)) / 2
            self._step(runner, data_batch)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Drop the gradients that the weights' pass left, and log."""
        done = runner.iter + 1
        self.optimizer.zero_grad()
        for place, adaptor in self.adaptors.items():
            runner.message_hub.update_scalar(f"train/s_{place}", adaptor.scale)
        if done % self.report == 0 or done == runner.max_iters:
            print_log(self._describe(runner, data_batch), "current")

    def _step(self, runner: Runner, data_batch: Any) -> None:
        """A pass for the gradients of the alphas alone, and a step."""
        model = unwrapped(runner.model)  # DDP would average the gradients of the weights too
        scaler = getattr(runner.optim_wrapper, "loss_scaler", None)
        with runner.optim_wrapper.optim_context(model):
            data = model.data_preprocessor(deepcopy(data_batch), True)  # hosts pad annotations in place
            loss, _ = model.parse_losses(model(**data, mode="loss"))
        alphas = [adaptor.alpha for adaptor in self.adaptors.values()]
        scaled = loss if scaler is None else scaler.scale(loss)
        for alpha, gradient in zip(alphas, torch.autograd.grad(scaled, alphas, allow_unused=True), strict=True):
            if gradient is None:  # behind the last returned stage
                alpha.grad = None
                continue
            alpha.grad = gradient if scaler is None else gradient / scaler.get_scale()
            if get_world_size() > 1:
                all_reduce(alpha.grad, "mean")
        if all(alpha.grad is None or alpha.grad.isfinite() for alpha in alphas):
            self.optimizer.step()
        self.optimizer.zero_grad()

    def _describe(self, runner: Runner, data_batch: Any) -> str:
        """The sizes of the maps and the multiply-adds, for the size of the batch's first picture."""
        model = unwrapped(runner.model)
        backbone, inputs = model.backbone, data_batch["inputs"]
        height, width = inputs[0].shape[-2:]
        sizes = [size[1:] for size in backbone.shapes(height, width)]
        changes = [sizes[0], *(size for before, size in pairwise(sizes) if size != before)]
        cost = count(deepcopy(backbone).to("meta"), torch.empty(1, inputs[0].shape[0], height, width, device="meta"))
        return f"shape {' > '.join(f'{h}x{w}' for h, w in changes)}, {cost.macs / 1e9:.3f} GMAC of the backbone"
