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


def _cosets(offsets: set[int], t: int) -> list[tuple[int, int]]:
    """Split offsets (mod t) into cosets ``start + step * Z``, the largest first: ``[(start, step), ...]``.

    With t = 4, {0, 2} gives [(0, 2)], {1} gives [(1, 4)] and {0, 1, 2} gives [(0, 2), (1, 4)].
    """
    cosets = []
    for step in (s for s in range(1, t + 1) if t % s == 0):
        for start in range(step):
            coset = set(range(start, t, step))
            if coset <= offsets:
                cosets.append((start, step))
                offsets = offsets - coset
    return cosets


def decompose(pattern: Sequence[int], axes: str) -> list[SubConv]:
    """Grouped convolutions that together compute every kernel of the lattice exactly once.

    Output parts that differ by a multiple of ``step`` see the same inputs where the offsets of a dilation form a coset
    of ``step``: they share a dense block. In the example above the offsets of dilation 1, {0, 2}, are the coset
    ``0 + 2 * Z``, those of dilation 2, {1}, the coset ``1 + 4 * Z``.
    """
    t = len(pattern)
    every = tuple(range(t))
    subs = []
    for dilation in sorted(set(pattern)):
        mine = tuple(part for part in every if pattern[part] == dilation)
        if axes == "input":
            subs.append(SubConv(dilation, ((mine, every),)))
        elif axes == "output":
            subs.append(SubConv(dilation, ((every, mine),)))
        else:
            for start, step in _cosets(set(mine), t):
                subs.append(SubConv(dilation, tuple(_coset_block(start, step, row, t) for row in range(step))))
    return subs


def _coset_block(start: int, step: int, row: int, t: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    outs = tuple(range(row, t, step))
    # One output part alone keeps its place; several share their inputs, whose order is then free: sorted copies least.
    return tuple(sorted((out + start) % t for out in outs)), outs
