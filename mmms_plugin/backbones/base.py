"""What every backbone here has in common: declared outputs, freezing, norm_eval, checkpointing, checks of arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from mmcv.cnn import build_norm_layer
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

ConfigType = Mapping[str, Any]
InitConfig = ConfigType | Sequence[ConfigType] | None
T = TypeVar("T")
WHOLE = "backbone."  # of the keys of a backbone in a model

HE_INIT: InitConfig = [
    dict(type="Kaiming", layer="Conv2d"),
    dict(type="Constant", val=1, layer=["_BatchNorm", "GroupNorm"]),
]


class Backbone(BaseModule):
    """A stem and stages; returns the outputs of the stages named by ``out_indices``.

    Attributes:
        out_channels, out_strides: of the returned maps, in the order of ``out_indices``.

    A subclass builds its modules, calls ``declare_outputs`` and defines ``freezable_modules``.
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
        num_outputs: int | None = None,  # where they are not the stages' outputs
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
        """Keep the channels and strides of the stages that are returned, given those of all stages."""
        self.out_channels = tuple(channels[i] for i in self.out_indices)
        self.out_strides = tuple(strides[i] for i in self.out_indices)

    def check_size(self, x: Tensor) -> None:
        """ValueError if the picture ``[N, C, H, W]`` is smaller than the stride of the last returned stage.

        Not while a graph is captured: there sizes are symbols, and the check would become a condition on them.
        """
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return
        height, width = x.shape[-2:]
        if min(height, width) < self.out_strides[-1]:
            raise ValueError(
                f"picture of {height} x {width} is too small: height and width must be at least "
                f"{self.out_strides[-1]}, the stride of stage {self.out_indices[-1]}"
            )

    def freezable_modules(self) -> list[list[nn.Module]]:
        """Modules of the stem, then of every stage."""
        raise NotImplementedError(f"{type(self).__name__} must define freezable_modules")

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
                f"{type(self).__name__}: state dict of a whole model, its {len(own)} keys of the backbone are loaded"
            )
            print_log(f"{message}, {len(state_dict) - len(own)} others left", logger="current")
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


def build_norm(norm_cfg: ConfigType, channels: int) -> nn.Module:
    """The norm layer of a config, without the name that mmcv gives it: keys stay torchvision's whatever the norm.

    Raises: ValueError if mmcv cannot build it.
    """
    try:
        return build_norm_layer(dict(norm_cfg), channels)[1]
    except (TypeError, KeyError, AssertionError) as error:
        raise ValueError(
            f"norm_cfg={norm_cfg!r}: allowed is the type of a norm layer (BN, SyncBN, GN with num_groups, ...) with "
            "its arguments"
        ) from error


def run_block(function: Callable[[T], Tensor], x: T, with_cp: bool) -> Tensor:
    """Call ``function(x)``; with ``with_cp`` recompute it in the backward pass instead of keeping its activations."""
    return checkpoint(function, x, use_reentrant=False) if with_cp and torch.is_grad_enabled() else function(x)


def check_per_stage(name: str, values: Sequence[int], count: int, each: str = "stage") -> tuple[int, ...]:
    """ValueError unless ``values`` are ``count`` positive integers, one for ``each`` stage, block or layer."""
    listed = tuple(values) if isinstance(values, Sequence) else ()
    if len(listed) != count or any(not isinstance(v, int) or v < 1 for v in listed):
        raise ValueError(f"{name}={values!r}: allowed are {count} integers >= 1, one for each {each}")
    return listed
