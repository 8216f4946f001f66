"""The dilation of every kernel of a poly-scale convolution, and how to compute it with grouped convolutions.

PSConv, section 3: the ``C_out x C_in`` kernels of a convolution form a lattice; the matrix D gives each its dilation.
The channels of a group are divided into ``t`` parts (t = length of the pattern), and D depends on the parts only:
``D[c, k] = pattern[(k - c) mod t]`` with c and k the parts of the output and of the input channel.

An example with four parts, ``pattern = (1, 2, 1, 4)``:

          input part 0  1  2  3
    output part 0    1  2  1  4
                1    4  1  2  1
                2    1  4  1  2
                3    2  1  4  1

Dilation 2 stands at the offset k - c = 1 (mod 4): output part 0 sees input part 1, part 1 sees 2, part 2 sees 3, part
3 sees 0. With the input parts in the order (1, 2, 3, 0), that is one convolution of 4 groups. So is dilation 4, at the
offset 3, with the order (3, 0, 1, 2). Dilation 1 stands at the offsets 0 and 2: output parts 0 and 2 both see the
input parts 0 and 2, and output parts 1 and 3 the input parts 1 and 3. With inputs and outputs in the order
(0, 2, 1, 3), that is one convolution of 2 groups. Together they have 1/4 + 1/4 + 1/2 of the plain convolution's
multiply-adds, that is, exactly as many.
``decompose`` finds these three; the terms of each output part are then summed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

ORDERS = ("block", "cyclic")
AXES = ("both", "input", "output")


class SubConv(NamedTuple):
    """One grouped convolution of a decomposed layer; every part is used by one block at most on each side.

    ``blocks`` lists ``(input parts, output parts)`` of each dense block; all blocks have the same shape.
    """

    dilation: int
    blocks: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]

    @property
    def in_order(self) -> tuple[int, ...]:
        return tuple(part for ins, _ in self.blocks for part in ins)

    @property
    def out_order(self) -> tuple[int, ...]:
        return tuple(part for _, outs in self.blocks for part in outs)


def check_pattern(pattern: Sequence[int]) -> tuple[int, ...]:
    """Return the pattern as a tuple; ValueError unless it is a non-empty sequence of integers >= 1."""
    values = tuple(pattern) if isinstance(pattern, Sequence) and not isinstance(pattern, str) else ()
    if not values or any(isinstance(d, bool) or not isinstance(d, int) or d < 1 for d in values):
        raise ValueError(f"dilation_pattern={pattern!r}: allowed is a non-empty sequence of integers >= 1")
    return values


def part_of_channel(channels: int, parts: int, order: str) -> Tensor:
    """Part of each channel of a group: nearly equal contiguous parts ('block'), or channel by channel ('cyclic')."""
    index = torch.arange(channels)
    return index * parts // channels if order == "block" else index % parts


def dilation_matrix(pattern: Sequence[int], out_channels: int, in_channels: int, order: str, axes: str) -> Tensor:
    """D of one group, int64 ``[out_channels, in_channels]``; ``axes`` as in Table 5 of the paper.

    With 'input' the dilation is ``pattern[k mod t]``, with 'output' ``pattern[c mod t]``.
    """
    t = len(pattern)
    c = part_of_channel(out_channels, t, order)[:, None]
    k = part_of_channel(in_channels, t, order)[None, :]
    index = {"both": (k - c) % t, "input": k + 0 * c, "output": c + 0 * k}[axes]
    return torch.tensor(pattern)[index]


def _cosets(offsets: set[int], step: int, t: int) -> list[tuple[int, int]]:
    """Split offsets (mod t) into cosets ``start + step * Z`` and single offsets: ``[(start, step or t), ...]``.

    With t = 4 and step 2, {0, 2} gives [(0, 2)], {1} gives [(1, 4)] and {0, 1, 2} gives [(0, 2), (1, 4)].
    """
    starts = [start for start in range(step) if offsets.issuperset(range(start, t, step))]
    singles = offsets.difference(*(range(start, t, step) for start in starts))
    return [(start, step) for start in starts] + [(offset, t) for offset in sorted(singles)]


def decompose(pattern: Sequence[int], axes: str) -> list[SubConv]:
    """Grouped convolutions that together compute every kernel of the lattice exactly once.

    Output parts that differ by a multiple of ``step`` see the same inputs where the offsets of a dilation form a coset
    of ``step``: they share a dense block. In the example above the offsets of dilation 1, {0, 2}, are the coset
    ``0 + 2 * Z``, those of dilation 2, {1}, the coset ``1 + 4 * Z``. One step is used for all dilations, so that all
    have their output parts in one order, here (0, 2, 1, 3).
    """
    t = len(pattern)
    every = tuple(range(t))
    offsets = {dilation: {part for part in every if pattern[part] == dilation} for dilation in sorted(set(pattern))}
    if axes != "both":
        parts = [(dilation, tuple(sorted(mine))) for dilation, mine in offsets.items()]
        return [SubConv(d, ((mine, every) if axes == "input" else (every, mine),)) for d, mine in parts]
    steps = [step for step in every[1:] if t % step == 0]
    # the smallest step with a coset has the largest blocks
    common = next((s for s in steps if any(_cosets(mine, s, t)[0][1] == s for mine in offsets.values())), t)
    return [
        SubConv(dilation, _coset_blocks(start, step, common, t))
        for dilation, mine in offsets.items()
        for start, step in _cosets(mine, common, t)
    ]


def _coset_blocks(start: int, step: int, common: int, t: int) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """The blocks of a coset, their output parts in the order of the cosets of ``common``."""
    rows = [tuple(range(row, t, common)) for row in range(common)]
    outs = rows if step == common else [(out,) for row in rows for out in row]
    # several output parts share their inputs, whose order is then free: ascending copies least
    return tuple((tuple(sorted((out + start) % t for out in block)), block) for block in outs)
