"""What of a model is exported: a network from normalised pictures to named tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mmms_plugin.backbones.shape_plan import ShapedNetwork, freeze_shapes
from mmms_plugin.errors import UserError
from mmms_plugin.exits.network import Ensemble


class ExportedNetwork(nn.Module):
    """A part of a model, ``[N, C, H, W]`` to tensors.

    Attributes:
        shaped: whether it has learned sizes, which belong to one size of the picture.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.shaped = any(isinstance(module, ShapedNetwork) for module in model.modules()) and freeze_shapes(model) > 0

    def names(self, count: int) -> tuple[str, ...]:
        """Of the outputs, of which there are ``count``."""
        return ("logits",)


class Logits(ExportedNetwork):
    """A classifier: ``logits [N, classes]``."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        model: Any = self.model
        logits: Tensor = model.head(model.extract_feat(x))
        return (logits,)


class ExitLogits(ExportedNetwork):
    """A classifier of several exits: ``exit1 [N, classes]``, ... of those chosen; nothing after the last of them.

    Args:
        model: with a backbone that runs in steps, and ``head.exits``.
        exits: numbers of the exits, from 1.
    """

    def __init__(self, model: nn.Module, exits: Sequence[int]) -> None:
        super().__init__(model)
        self.chosen = sorted(set(exits))
        parts: Any = model
        self.ensemble = bool(getattr(parts.head, "ensemble", False))
        self.steps = Ensemble(parts.backbone, parts.head.exits) if self.ensemble else parts.backbone

    def names(self, count: int) -> tuple[str, ...]:
        return tuple(f"exit{number}" for number in self.chosen)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        steps: Any = self.steps
        exits: Any = self.model.head.exits  # type: ignore[union-attr]
        maps, logits = steps.start(x), []
        for index in range(self.chosen[-1]):
            maps = steps.advance(maps, index)
            if index + 1 in self.chosen:
                logits.append(maps[-1] if self.ensemble else exits[index](maps[-1]))
        return tuple(logits)


class PixelLogits(ExportedNetwork):
    """A segmentation model: ``logits [N, classes, H, W]`` at the size of the picture."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        model: Any = self.model
        logits: Tensor = model.encode_decode(x, [dict(img_shape=x.shape[2:])])
        return (logits,)


class Maps(ExportedNetwork):
    """Backbone and neck of a detector: ``map1``, ``map2``, ..., finest first, for the heads that stay in Python."""

    def names(self, count: int) -> tuple[str, ...]:
        return tuple(f"map{number}" for number in range(1, count + 1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        model: Any = self.model
        return tuple(model.extract_feat(x))


def exported_network(model: nn.Module, task: str, exits: Sequence[int] | None = None) -> ExportedNetwork:
    """What is exported of a model; the shapes of Shape Adaptors become constant.

    Args:
        model: of a host, in eval mode, on the CPU.
        task: 'classifier', 'detector' or 'segmentation model'.
        exits: which of a classifier's several exits to keep, from 1; None for the last.

    Raises: UserError for exits that it has not.
    """
    available = len(getattr(getattr(model, "head", None), "exits", ()))
    if exits and not available:
        raise UserError("--exits: the model has one classifier; leave the option out")
    if exits and not set(exits) <= set(range(1, available + 1)):
        raise UserError(f"--exits {' '.join(map(str, exits))}: allowed are 1 to {available}")
    if available:
        return ExitLogits(model, exits or [available])
    if task == "detector":
        return Maps(model)
    return PixelLogits(model) if task == "segmentation model" else Logits(model)
