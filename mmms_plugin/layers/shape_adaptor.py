"""Shape Adaptor: a resizing layer whose factor is learned (Liu et al., ECCV 2020, section 2).

Two maps of the same content, one smaller by the factor r1 and one by r2, are resized to a common size between them
and averaged: ``(1 - w) * resize(small) + w * resize(full)`` with ``w = sigmoid(alpha)``. The size follows from the
scale ``s = r1 + (r2 - r1) * w``: the gradient of the weights therefore moves the shape of the network.

1. The paper's code keeps the current size in class attributes. Here a layer knows nothing of its network: what depends
   on the forward pass is passed with the call (``Reshape``), so that networks do not disturb each other.
2. A network may bound its memory by scaling every factor with a penalty p: ``s`` becomes ``p * s``, and ``w`` follows
   from that; it is below 0 where ``p * s < r1``.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmms_plugin.layers.common import is_capturing

RATIOS = (0.5, 1.0)  # of the published networks


class Reshape(NamedTuple):
    """Request to an adaptor in a forward pass: size of its output in px, and the memory penalty p."""

    height: int
    width: int
    penalty: float = 1.0


class ShapeAdaptor(nn.Module):
    """Average of a small and a full-size map at a learned size between them.

    Args:
        scale: initial s, the ratio of output side to input side; strictly between r1 and r2.
        ratios: (r1, r2), the sides of the small and of the full-size map as a share of the input's; r1 < r2.
        doubled: multiply the average by 2, as in residual cells, where it replaces a sum.

    Shape: ``small [N, C, h, w]``, ``full [N, C, H, W]`` to ``[N, C, *size]``.
    Attributes: ``alpha``, the learned scalar. Its gradient comes from the two weights; the size has none.
    Raises: ValueError for ratios that are not ascending or not positive, and for a scale that is not between them.
    """

    def __init__(self, scale: float = 0.75, ratios: tuple[float, float] = RATIOS, doubled: bool = False) -> None:
        super().__init__()
        r1, r2 = ratios
        if not 0 < r1 < r2:
            raise ValueError(f"ratios={ratios!r}: the first must be above 0 and below the second, such as (0.5, 1.0)")
        if not r1 < scale < r2:
            raise ValueError(f"scale={scale!r}: must be between the ratios {r1} and {r2}, without the ends")
        self.ratios, self.doubled = (float(r1), float(r2)), doubled
        share = (scale - r1) / (r2 - r1)
        self.alpha = nn.Parameter(torch.tensor(math.log(share / (1 - share))))
        self.known_scale, self.frozen = float(scale), False
        self.read_scale()

    @property
    def scale(self) -> float:
        """s(alpha) as a Python number; on the meta device and while a graph is captured, the last known value."""
        self.read_scale()
        return self.known_scale

    def read_scale(self) -> None:
        """Store the present scale as ``known_scale``. This waits for the GPU if alpha is on it."""
        if not (self.frozen or is_capturing() or self.alpha.is_meta):
            r1, r2 = self.ratios
            self.known_scale = r1 + (r2 - r1) * float(torch.sigmoid(self.alpha.detach()))

    def freeze(self) -> None:
        """Make the present scale constant: sizes no longer depend on a tensor, and alpha is no longer trained."""
        self.known_scale, self.frozen = self.scale, True
        self.alpha.requires_grad_(False)

    def train(self, mode: bool = True) -> ShapeAdaptor:
        """As ``nn.Module.train``; also reads the present scale, since a captured graph cannot."""
        super().train(mode)
        self.read_scale()
        return self

    def local_size(self, height: int, width: int, penalty: float = 1.0) -> Reshape:
        """The size that follows from the input's: every side times ``penalty * s``, rounded down, at least 1."""
        scale = self.scale * penalty
        return Reshape(max(1, int(height * scale)), max(1, int(width * scale)), penalty)

    def forward(self, small: Tensor, full: Tensor, size: Reshape | None = None) -> Tensor:
        """The average at ``size``; None for ``local_size`` of the full-size map."""
        height, width, penalty = self.local_size(*full.shape[-2:]) if size is None else size
        w = torch.sigmoid(self.alpha)
        if penalty != 1.0:
            r1, r2 = self.ratios
            w = w * penalty + r1 / (r2 - r1) * (penalty - 1)
        average = (1 - w) * _resize(small, height, width) + w * _resize(full, height, width)
        return average * 2 if self.doubled else average

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """As torch's; weights of the human design, which have no alpha, leave it at its initial value."""
        state_dict.setdefault(f"{prefix}alpha", self.alpha.detach())
        super()._load_from_state_dict(state_dict, prefix, *args)
        if self.frozen:  # at the loaded value
            self.frozen = False
            self.freeze()

    def extra_repr(self) -> str:
        return f"ratios={self.ratios}, scale={self.scale:.3f}{', doubled' if self.doubled else ''}"


def _resize(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, corners aligned, as in the paper."""
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=True)
