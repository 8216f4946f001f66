"""How long each part of a network takes for batches of each size, measured, and so whether a smaller batch pays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mmms_plugin.exits.clock import seconds

if TYPE_CHECKING:
    from mmms_plugin.exits.network import EarlyExit


@dataclass(frozen=True)
class Profile:
    """Seconds at some batch sizes; between them they are interpolated.

    Attributes:
        sizes: batch sizes, rising. blocks: for each exit, of its part of the backbone and its classifier, by size.
        copies: for each exit, of gathering the maps in front of its part, by size of the result.
    """

    sizes: Sequence[int]
    blocks: Sequence[Sequence[float]]
    copies: Sequence[Sequence[float]]

    def pays(self, block: int, running: int, left: int) -> bool:
        """Whether part ``block`` on ``left`` pictures, with gathering them, is faster than on all ``running``."""
        rest = np.interp([running, left], self.sizes, self.blocks[block])
        return rest[0] - rest[1] > np.interp(left, self.sizes, self.copies[block])

    @classmethod
    @torch.inference_mode()
    def measure(cls, network: EarlyExit, x: Tensor, rounds: int = 3) -> Profile:
        """Each figure is the fastest of ``rounds``; sizes are 1, 2, 4, ... and ``len(x)``."""
        sizes = sorted({2**i for i in range(len(x).bit_length())} | {len(x)})
        blocks: list[list[float]] = [[] for _ in network.exits]
        copies: list[list[float]] = [[] for _ in network.exits]
        places = torch.arange(len(x), device=x.device)
        whole: list[list[Tensor]] = [network._start(x)]
        for index in range(len(network.exits) - 1):
            whole.append(network._advance(whole[-1], index))
        for size in sizes:
            for index, maps in enumerate(whole):
                chosen = places[-size:]
                copies[index].append(_fastest(rounds, partial(_gather, maps, chosen)))
                part = _gather(maps, chosen)
                blocks[index].append(_fastest(rounds, partial(_part, network, part, index)))
        return cls(sizes, blocks, copies)


def _gather(maps: list[Tensor], places: Tensor) -> list[Tensor]:
    return [x[places] for x in maps]


def _part(network: EarlyExit, maps: list[Tensor], index: int) -> Tensor:
    return network.exits[index](network._advance(maps, index)[-1])


def _fastest(rounds: int, call: Callable[[], Any]) -> float:
    return min(seconds(call) for _ in range(rounds))
