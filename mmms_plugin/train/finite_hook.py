"""Stop a training whose loss or weights are not finite, before a checkpoint is made of them."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmms_plugin.errors import RunError
from mmms_plugin.weights.newest import newest_checkpoint

ADVICE = "lower the learning rate (optim_wrapper.optimizer.lr) or clip gradients (optim_wrapper.clip_grad)"


class FiniteHook(Hook):
    """Raise RunError at the first loss, or the first weight to be saved, that is NaN or infinite.

    It comes before the hooks that log and save: the checkpoints that are there stay.

    mmdet's ``CheckInvalidLossHook`` is not enough: it looks at the sum alone, every 50 iterations, so that a checkpoint
    may be saved in between, never at the weights, and it stops by an AssertionError with a traceback.
    """

    priority = "HIGH"

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None, outputs: dict | None = None
    ) -> None:
        """Look at every loss of the iteration; ``RuntimeInfoHook`` has brought them to the CPU anyway."""
        values = {name: value for name, value in (outputs or {}).items() if "loss" in name}
        wrong = [f"{name} is {_shown(value)}" for name, value in values.items() if not _finite(value)]
        if wrong:
            parts = [text for text in wrong if not text.startswith("loss ")] or wrong  # the sum only if it stands alone
            raise RunError(
                f"iteration {runner.iter + 1}: {', '.join(parts)}: training stopped; {_left(runner)}{ADVICE}"
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Look at all weights: a finite loss may have had a gradient that is not."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        parameters = {name for name, _ in model.named_parameters()}
        for name, value in checkpoint["state_dict"].items():
            if not torch.is_tensor(value) or not value.is_floating_point():
                continue
            bad = ~torch.isfinite(value) if name in parameters else torch.isnan(value)  # a buffer may hold infinities
            if bad.any():
                raise RunError(
                    f"iteration {checkpoint['meta'].get('iter')}: {int(bad.sum())} values of {name} are not finite: "
                    f"training stopped, nothing was saved; {_left(runner)}{ADVICE}"
                )


def _finite(value: Any) -> bool:
    return bool(torch.isfinite(torch.as_tensor(value)).all())


def _shown(value: Any) -> str:
    tensor = torch.as_tensor(value).detach().flatten()
    return str(float(tensor[~torch.isfinite(tensor)][0]))


def _left(runner: Runner) -> str:
    last, _ = newest_checkpoint(runner.work_dir)
    return f"the last good checkpoint is {last}; " if last else "there is no checkpoint yet; "
