"""The times of a network's parts, which say whether a smaller batch pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Profile:
    """Seconds that the parts of a network take at some batch sizes; between them they are interpolated.

    Attributes:
        sizes: batch sizes, rising.
        blocks: seconds of each exit's part of the backbone and its classifier, by size.
        copies: seconds of gathering the maps in front of each exit's part, by size of the result.
    """

    sizes: Sequence[int]
    blocks: Sequence[Sequence[float]]
    copies: Sequence[Sequence[float]]

    def pays(self, block: int, running: int, left: int) -> bool:
        """Whether part ``block`` on the ``left`` pictures, gathering included, is faster than on all ``running``."""
        rest = np.interp([running, left], self.sizes, self.blocks[block])
        return rest[0] - rest[1] > np.interp(left, self.sizes, self.copies[block])
