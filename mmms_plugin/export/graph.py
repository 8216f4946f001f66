"""A network captured by ``torch.export`` for any batch size, height and width, and the limits of these."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import lcm
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from mmms_plugin.errors import UserError, first_line
from mmms_plugin.export.networks import ExportedNetwork
from mmms_plugin.export.resampling import find_crops

LARGEST = 512  # px; a network that refuses pictures of this side is not exported
USUAL = 32  # px; captured are pictures of some times this side, so that no map in between has one pixel
Size = tuple[int, int]  # height and width in px


@dataclass(frozen=True)
class Graph:
    """A captured network.

    Attributes:
        program: as ``torch.export`` gives it.
        names: of the outputs.
        channels: of the picture.
        least: the smallest height and width in px that work; the only ones if ``fixed``.
        multiple: height and width are multiples of this.
        fixed: whether height and width are constant.
    """

    program: ExportedProgram
    names: tuple[str, ...]
    channels: int
    least: Size
    multiple: int = 1
    fixed: bool = False

    def checked_shapes(self) -> list[tuple[int, int, int, int]]:
        """Shapes of pictures that differ from the captured one in batch size, height and width."""
        (height, width), step = self.least, self.multiple
        if self.fixed:
            return [(1, self.channels, height, width), (3, self.channels, height, width)]
        larger = (height + -(-67 // step) * step, width + -(-101 // step) * step)
        return [(1, self.channels, height, width), (3, self.channels, *larger)]

    def limits(self) -> str:
        """The pictures that it takes, in words."""
        height, width = self.least
        if self.fixed:
            return f"any number of pictures, {width} x {height} px"
        multiples = f" multiples of {self.multiple}," if self.multiple > 1 else ""
        return f"any number of pictures, height and width{multiples} of at least {height} px"


def capture(network: ExportedNetwork, size: Size, multiple: int = 1, *, channels: int = 3, stride: int = 32) -> Graph:
    """The graph of a network, for any size if it can be.

    Args:
        network: in eval mode on the CPU.
        size: height and width in px, which networks with learned sizes keep.
        multiple: of which heights and widths are multiples.
        channels: of the picture.
        stride: sizes are multiples of it where the network cannot be captured for any size.

    Raises: UserError if it cannot be captured.
    """
    least, names = (0, ()) if network.shaped else _least_side(network, channels)
    if network.shaped:
        names = network.names(len(outputs_of(network, torch.zeros(1, channels, *size))))
        return Graph(_program(network, (2, channels, *size), {0: Dim.DYNAMIC}), names, channels, size, fixed=True)
    find_crops(network, None)
    if multiple > 1:  # a factor without small divisors stands for all others
        side = next(factor * multiple for factor in (7, 11, 13, 61, 509) if factor * multiple >= least)
        find_crops(network, lambda: outputs_of(network, torch.zeros(1, channels, side, side)))
    faults = []
    for step, free in (
        (multiple, dict.fromkeys((0, 2, 3), Dim.DYNAMIC)),
        (stride, {0: Dim.DYNAMIC, 2: stride * Dim("rows", min=1), 3: stride * Dim("columns", min=1)}),
    ):
        step = lcm(multiple, step)
        side = -(-least // step) * step
        usual = -(-max(side, USUAL) // step) * step
        odd = (1, 3) if step == 1 else (0, 0)
        shape = (2, channels, 3 * usual + odd[0], 4 * usual + odd[1])
        try:
            program = _program(network, shape, free)
        except UserError as error:
            faults.append(str(error))
            continue
        return Graph(program, names, channels, _least_size(program, channels, side, step), step)
    raise UserError(faults[0])


def _least_side(network: ExportedNetwork, channels: int) -> tuple[int, tuple[str, ...]]:
    """The smallest power of two that the network takes as the side of a picture, and the names of its outputs."""
    side = 1
    while True:
        try:
            return side, network.names(len(outputs_of(network, torch.zeros(1, channels, side, side))))
        except (RuntimeError, ValueError, IndexError, AssertionError, ZeroDivisionError) as error:
            if side >= LARGEST:
                raise UserError(f"the network refuses pictures of {side} px: {first_line(error)}") from error
            side *= 2


def _program(network: ExportedNetwork, shape: tuple[int, ...], free: dict[int, Any]) -> ExportedProgram:
    x = torch.zeros(shape)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about operators that torch itself traces
            return torch.export.export(network, (x,), dynamic_shapes=(free,))
    except Exception as error:  # torch raises errors of many kinds, and the code of hosts any
        raise UserError(f"torch.export cannot capture this network: {first_line(error)}") from error


def _least_size(program: ExportedProgram, channels: int, side: int, multiple: int) -> Size:
    """The smallest height and width, from ``side``, that the conditions in the program allow.

    torch excludes maps of one pixel, so that this may be one pixel more than the stride.
    """
    module = program.module()
    while True:
        for candidate in (side, side + multiple):
            try:
                with torch.no_grad():
                    module(torch.zeros(2, channels, candidate, candidate))
                return candidate, candidate
            except (RuntimeError, AssertionError) as error:
                if side >= LARGEST:
                    raise UserError(f"the captured network refuses pictures of {side} px") from error
        side *= 2


def outputs_of(network: ExportedNetwork, x: Tensor) -> list[Tensor]:
    """The outputs for pictures, without gradients."""
    with torch.no_grad():
        return list(network(x))
