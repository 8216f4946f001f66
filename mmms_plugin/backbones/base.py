"""The base of every backbone: declared outputs, the traversal, freezing, norm_eval, checkpointing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmms_plugin.compat.networks import BaseModule, print_log
from mmms_plugin.layers.common import InitConfig, is_capturing

T = TypeVar("T")
WHOLE = "backbone."  # of the keys of a backbone in a model


class Backbone(BaseModule):
    """A stem and stages; returns the outputs of the stages in ``out_indices`` and runs no stage after the last of them.

    A subclass builds its modules, calls ``declare_outputs`` and ``freeze``, and defines ``forward_stem``,
    ``stem_modules`` and ``stage_modules``. If its stages do not simply follow one another, it overrides ``start`` and
    ``advance``. These steps are the only traversal: ``forward`` runs all of them, early exit (``exits/``) only some.

    Args:
        num_stages: number of stages.
        out_indices: ascending indices of the stages to return.
        frozen_stages: -1 for none, 0 for the stem, k for the stem and the first k stages.
        norm_eval: keep batch norms in eval mode while training.
        init_cfg: initial weights, as mmengine takes them.

    Attributes:
        out_channels: of the returned maps, in the order of ``out_indices``.
        out_strides: of the same maps.
    """

    out_channels: tuple[int, ...]
    out_strides: tuple[int, ...]

    def __init__(
        self,
        num_stages: int,
        out_indices: Sequence[int],
        frozen_stages: int,
        norm_eval: bool,
        init_cfg: InitConfig,
        num_outputs: int | None = None,  # if the outputs are not the stages'
    ) -> None:
        super().__init__(init_cfg)
        indices = tuple(out_indices) if isinstance(out_indices, Sequence) else ()
        count = num_outputs or num_stages
        if not indices or list(indices) != sorted(set(indices)) or not set(indices) <= set(range(count)):
            raise ValueError(f"out_indices={out_indices!r}: allowed are ascending stage indices from 0 to {count - 1}")
        if not isinstance(frozen_stages, int) or not -1 <= frozen_stages <= num_stages:
            raise ValueError(
                f"frozen_stages={frozen_stages!r}: allowed are -1 (none) to {num_stages} (0 freezes the stem)"
            )
        self.out_indices, self.frozen_stages, self.norm_eval = indices, frozen_stages, norm_eval

    def declare_outputs(self, channels: Sequence[int], strides: Sequence[int]) -> None:
        """Set ``out_channels`` and ``out_strides``, given the channels and strides of all stages."""
        self.out_channels = tuple(channels[i] for i in self.out_indices)
        self.out_strides = tuple(strides[i] for i in self.out_indices)

    def stem_modules(self) -> list[nn.Module]:
        """Modules of the stem."""
        raise NotImplementedError(f"{type(self).__name__} must define stem_modules")

    def stage_modules(self) -> list[list[nn.Module]]:
        """Modules of every stage, in the order in which they run."""
        raise NotImplementedError(f"{type(self).__name__} must define stage_modules")

    def forward_stem(self, x: Tensor) -> Tensor:
        """The image ``[N, C, H, W]`` to the input of the first stage."""
        raise NotImplementedError(f"{type(self).__name__} must define forward_stem")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps, outputs = self.start(x), []
        for index in range(len(self.out_indices)):
            maps = self.advance(maps, index)
            outputs.append(maps[-1])
        return tuple(outputs)

    def start(self, x: Tensor) -> list[Tensor]:
        """The image ``[N, C, H, W]`` to the maps from which ``advance`` continues, each of N pictures.

        Raises: ValueError for too small pictures.
        """
        self.check_size(x)
        return [self.forward_stem(x)]

    def advance(self, maps: list[Tensor], index: int) -> list[Tensor]:
        """From output number ``index - 1``, or the start, to output number ``index``.

        Args:
            maps: as returned by the step before, or the same rows of each for some of the pictures.
            index: position in ``out_indices``.

        Returns: maps to continue from; the last is the output.
        """
        x = maps[-1]
        for modules in self.stage_modules()[self.stages_to(index)]:
            for module in modules:
                x = module(x)
        return [x]

    def stages_to(self, index: int) -> slice:
        """The stages between output number ``index - 1``, or the start, and output number ``index``."""
        return slice(self.out_indices[index - 1] + 1 if index else 0, self.out_indices[index] + 1)

    def check_size(self, x: Tensor) -> None:
        """ValueError if the picture ``[N, C, H, W]`` is smaller than the stride of the last returned stage.

        It is not checked while a graph is captured, where the check would become a condition on the sizes.
        """
        if is_capturing():
            return
        height, width = x.shape[-2:]
        if min(height, width) < self.out_strides[-1]:
            raise ValueError(
                f"picture of {height} x {width} is too small: height and width must be at least "
                f"{self.out_strides[-1]}, the stride of stage {self.out_indices[-1]}"
            )

    def freezable_modules(self) -> list[list[nn.Module]]:
        """Modules of the stem, then of every stage."""
        return [self.stem_modules(), *self.stage_modules()]

    def freeze(self) -> None:
        """Stop gradients and running statistics of the stem and the first ``frozen_stages`` stages."""
        for modules in self.freezable_modules()[: self.frozen_stages + 1]:
            for module in modules:
                module.eval()
                module.requires_grad_(False)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """As torch's; a state dict of a whole model loads its ``backbone.*`` (mmengine would load none)."""
        if (
            not prefix
            and any(key.startswith(WHOLE) for key in state_dict)
            and not set(state_dict) & set(self.state_dict())
        ):
            own = {key.removeprefix(WHOLE): value for key, value in state_dict.items() if key.startswith(WHOLE)}
            message = (
                f"{type(self).__name__}: the state dict is a whole model's; its {len(own)} backbone keys are loaded"
            )
            print_log(f"{message}, the other {len(state_dict) - len(own)} are not", logger="current")
            state_dict.clear()
            state_dict.update(own)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def train(self, mode: bool = True) -> Backbone:
        """As ``nn.Module.train``, but frozen stages and, with ``norm_eval``, batch norms stay in eval mode."""
        super().train(mode)
        self.freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def run_block(module: nn.Module, function: Callable[[T], Tensor], x: T) -> Tensor:
    """Call ``function(x)``; if ``module.with_cp``, recompute it in the backward pass and keep no activations of it.

    Running statistics are updated once, by the first computation.

    Args:
        module: that ``function`` computes with: all buffers that it writes are this module's.
        function: a block, or the part of it worth recomputing.
        x: its input.
    """
    if not (module.with_cp and torch.is_grad_enabled()):
        return function(x)
    contexts = partial(_recomputation, module)
    output: Tensor = checkpoint(function, x, use_reentrant=False, context_fn=contexts)
    return output


def _recomputation(module: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of the first computation and of the one in the backward pass, as ``checkpoint`` takes them."""
    return nullcontext(), _unchanged_buffers(module)


@contextmanager
def _unchanged_buffers(module: nn.Module) -> Iterator[None]:
    """Inside, the module and its children read and write copies of their buffers."""
    own = [(m._buffers, dict(m._buffers)) for m in module.modules() if m._buffers]
    for buffers, values in own:
        buffers.update({name: value if value is None else value.clone() for name, value in values.items()})
    try:
        yield
    finally:
        for buffers, values in own:
            buffers.update(values)
