"""What layers and backbones cost: parameters, multiply-adds, and memory for training.

All of it is counted on the meta device, without memory or arithmetic. Convolutions and linear layers count. Bilinear
up-sampling is counted separately, at the 8 operations per value of the ELASTIC authors' code
(github.com/allenai/elastic).
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import Any, NamedTuple

import torch
from mmengine.registry import MODELS
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

UPSAMPLE_OPS = 8
_INTERPOLATE = inspect.signature(F.interpolate)


@dataclass(frozen=True)
class Cost:
    """Cost of one picture.

    Attributes:
        params: parameters.
        macs: multiply-adds.
        upsampling: operations of bilinear up-sampling, not among the multiply-adds.
        unused_params: of layers that published code has and counts but never uses; here they are left out.
        unused_macs: of the same layers.
    """

    params: int
    macs: int
    upsampling: int = 0
    unused_params: int = 0
    unused_macs: int = 0


def measure(config: Mapping[str, Any], size: tuple[int, int], classes: int | None = None) -> Cost:
    """Cost of a backbone, given as a config dict.

    Args:
        config: of the backbone.
        size: (height, width) of the picture in px.
        classes: of a linear classifier on the pooled last map, which is added; None for no classifier.

    Raises: whatever building and running the backbone raises (ValueError for bad arguments and sizes).
    """
    with torch.device("meta"):
        model = MODELS.build(dict(config))
        head = nn.Linear(model.out_channels[-1], classes) if classes else None
    for module in model.modules():
        if isinstance(module, _BatchNorm):  # costs nothing here, but takes half of the time on the meta device
            module.forward = _same  # type: ignore[assignment, method-assign]
    picture = torch.empty(1, config.get("in_channels", 3), *size, device="meta")
    cost = count(model if head is None else _Classifier(model, head), picture)
    # (in_channels, channels, stride) of unused 1x1 layers, each with a batch norm
    layers = getattr(model, "left_out", ())
    params = sum(inputs * outputs + 2 * outputs for inputs, outputs, _ in layers)
    macs = sum(
        inputs * outputs * math.ceil(size[0] / stride) * math.ceil(size[1] / stride)
        for inputs, outputs, stride in layers
    )
    return Cost(cost.params, cost.macs, cost.upsampling, params, macs)


def count(module: nn.Module, x: torch.Tensor) -> Cost:
    """Cost of ``module(x)`` in eval mode."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter, _Upsampling() as upsampling:
        module.eval()(x)
    return Cost(sum(p.numel() for p in module.parameters()), counter.get_total_flops() // 2, upsampling.operations)


class _Upsampling(TorchFunctionMode):
    """Counts the operations of bilinear interpolation where it is called.

    A dispatch mode would not always see it: in some processes torch decomposes the operator before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is F.interpolate and _INTERPOLATE.bind(*args, **(kwargs or {})).arguments.get("mode") == "bilinear":
            self.operations += UPSAMPLE_OPS * out.numel()
        return out


class ExitCost(NamedTuple):
    """Multiply-adds of one exit for one picture.

    Attributes:
        block: of the part of the backbone between the previous exit and this one.
        classifier: of the exit's classifier.
    """

    block: int
    classifier: int


def exit_costs(backbone: nn.Module, exits: Sequence[nn.Module], size: tuple[int, int]) -> list[ExitCost]:
    """The cost of each exit.

    Args:
        backbone: with ``start`` and ``advance``.
        exits: a classifier for each of its outputs.
        size: (height, width) of the picture in px.
    """
    network: Any = copy.deepcopy(backbone).to("meta").eval()
    classifiers = copy.deepcopy(nn.ModuleList(exits)).to("meta").eval()
    x = torch.empty(1, 3, *size, device="meta")
    totals = [0]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        maps = network.start(x)
        for index, classifier in enumerate(classifiers):
            maps = network.advance(maps, index)
            totals.append(counter.get_total_flops() // 2)
            classifier(maps[-1])
            totals.append(counter.get_total_flops() // 2)
    parts = [after - before for before, after in pairwise(totals)]
    return [ExitCost(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]


def exit_macs(backbone: nn.Module, exits: Sequence[nn.Module], size: tuple[int, int]) -> list[int]:
    """Multiply-adds of one picture up to and including each exit, earlier classifiers included, as published."""
    return list(accumulate(cost.block + cost.classifier for cost in exit_costs(backbone, exits, size)))


def kept_for_backward(module: nn.Module, x: torch.Tensor) -> int:
    """Bytes of the tensors that ``module(x)`` keeps for the backward pass, in training mode.

    Tensors that share memory count once; parameters and buffers do not count, since they take memory anyway. Works on
    the meta device. The workspace of the framework is not included.

    Args:
        module: left in training mode.
        x: input of the module; at least two pictures where a batch norm sees maps of one pixel.
    """
    present = {_storage(tensor) for tensor in chain(module.parameters(), module.buffers())}
    kept: dict[int, torch.Tensor] = {}  # the tensors stay alive, so that no address is used twice

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if _storage(tensor) not in present:
            kept[_storage(tensor)] = tensor.detach()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = module.train()(x)
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del outputs
    return total


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


class _Classifier(nn.Module):
    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x)[-1].mean((2, 3)))
