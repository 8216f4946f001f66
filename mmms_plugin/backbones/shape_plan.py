"""Shared by the shape-adapted networks: the places of their adaptors, the size of every map, the memory bound.

Shape Adaptor (Liu et al., ECCV 2020), sections 2 and 3. A network is a row of cells (a convolution or a block each). A
cell may lower the resolution by a stride that a human chose, or by an adaptor:

- 'human': strides as designed, no adaptor;
- 'standard': no strides; adaptors at even distances, never in the last cell, which start so that the last map has a
  side of 8;
- 'autosc' (compression): strides as designed; adaptors in cells without a stride, which start at s = 0.95;
- 'autotl' (transfer): an adaptor in place of every stride, which starts at s = 0.55.

1. Sizes are computed from the size of the picture and Python numbers, not from maps. 'standard' and 'autotl' round
   every side down (``int(side * s)``); 'autosc' carries the exact side along and rounds to the nearest integer, as the
   published models do.
2. The paper uses square pictures. Here height and width are resized alike, and a memory bound applies to the square
   root of the last map's area.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mmms_plugin.arguments import check_choice
from mmms_plugin.backbones.base import Backbone
from mmms_plugin.layers.shape_adaptor import RATIOS, Reshape, ShapeAdaptor

MODES = ("human", "standard", "autosc", "autotl")
LAST_SIDE = 8  # px, of the last map of a network in mode 'standard' before training
START = {"autosc": 0.95, "autotl": 0.55}
LEAST_ODDS = 1e-4  # of the full-size map in 'standard' before training, so the least alpha is ln 1e-4
SMALL = 64  # px; networks for larger pictures have more resizing layers and another number of adaptors
DESIGN_SIZES = {"cifar": 32}  # by the stem; 224 for all others


def design_side(design_size: int | None, stem: str) -> int:
    """Side in px of the pictures that a network is designed for; ``design_size`` is None for the stem's default."""
    return DESIGN_SIZES.get(stem, 224) if design_size is None else design_size


@dataclass(frozen=True)
class ShapeOptions:
    """How a network's shape is learned.

    Args:
        mode: 'human', 'standard', 'autosc' or 'autotl', see above.
        design_size: side in px of the pictures that the network is designed for.
        num_adaptors: for 'standard' ``log2(design_size / 2)`` if None, for 'autosc' the published number.
        initial_scale: s of every adaptor before training, or a sequence with s of each; None for the mode's.
        output_dim: for 'standard', side in px of the last map before training, from which s follows; 8 if None. Where s
            would be 0.5 or less, adaptors start just above 0.5.
        limit_side: largest side in px of the last map, which bounds the memory; None for no bound.
        fixed: whether the shape is constant, as after ``freeze_shapes``: that of the loaded weights.

    Raises: ValueError for an unknown mode, a number below 1, and for a bound or a fixed shape without adaptors.
    """

    mode: str = "standard"
    design_size: int = 224
    num_adaptors: int | None = None
    limit_side: float | None = None
    fixed: bool = False
    initial_scale: float | Sequence[float] | None = None
    output_dim: float | None = None

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, MODES)
        if not isinstance(self.design_size, int) or self.design_size < 4:
            raise ValueError(f"design_size={self.design_size!r}: must be an integer from 4, a side in px")
        if self.num_adaptors is not None:
            if self.mode not in ("standard", "autosc"):
                raise ValueError(f"num_adaptors={self.num_adaptors!r}: not for mode {self.mode!r}, leave it out")
            if not isinstance(self.num_adaptors, int) or self.num_adaptors < 1:
                raise ValueError(f"num_adaptors={self.num_adaptors!r}: must be an integer from 1")
        if self.initial_scale is not None:
            if self.mode == "human":
                raise ValueError(f"initial_scale={self.initial_scale!r}: needs a mode with adaptors")
            low, high = RATIOS
            given: Any = self.initial_scale
            scales = given if isinstance(given, list | tuple) else [given]
            if not all(isinstance(scale, int | float) and low < scale < high for scale in scales):
                raise ValueError(f"initial_scale={self.initial_scale!r}: must be above {low:g} and below {high:g}")
        if self.output_dim is not None:
            if self.mode != "standard" or self.initial_scale is not None:
                why = "beside initial_scale" if self.mode == "standard" else f"for mode {self.mode!r}"
                raise ValueError(f"output_dim={self.output_dim!r}: not {why}, leave it out")
            if not isinstance(self.output_dim, int | float) or not 1 <= self.output_dim < self.design_size:
                raise ValueError(
                    f"output_dim={self.output_dim!r}: must be from 1 to less than design_size={self.design_size}, "
                    "sides in px"
                )
        if self.limit_side is not None and (self.mode == "human" or not self.limit_side > 0):
            raise ValueError(f"limit_side={self.limit_side!r}: must be above 0, and needs a mode with adaptors")
        if self.fixed and self.mode == "human":
            raise ValueError(f"fixed_shape={self.fixed!r}: needs a mode with adaptors, leave it out for 'human'")


@dataclass(frozen=True)
class Cell:
    """A convolution or a block in the row.

    Args:
        name: key of the module.
        stride: as designed.
        compressible: whether AutoSC may put an adaptor into it.
        rounds_up: whether its stride rounds odd sides up, as a padded convolution does.
        counted: whether the exact side that 'autosc' carries along takes its stride into account.
    """

    name: str
    stride: int = 1
    compressible: bool = True
    rounds_up: bool = True
    counted: bool = True


def place_adaptors(cells: Sequence[Cell], options: ShapeOptions, published: int) -> dict[int, float]:
    """The cells that get an adaptor, and their initial scales: ``{index: s}``.

    Args:
        cells: the row of cells.
        options: mode, number and start of the adaptors.
        published: number of adaptors of the published AutoSC model.

    Raises: ValueError for more adaptors than places, for another number of scales than of adaptors, and for a last map
        that would have to be enlarged.
    """
    if options.mode == "human":
        return {}
    if options.mode == "autotl":
        free = [i for i, cell in enumerate(cells) if cell.stride > 1]
        number = len(free)
    elif options.mode == "autosc":
        free = [i for i, cell in enumerate(cells) if cell.stride == 1 and cell.compressible]
        number = options.num_adaptors or published
    else:
        free = list(range(len(cells) - 1))
        number = options.num_adaptors or max(1, int(math.log2(options.design_size / 2)))
    if number > len(free):
        raise ValueError(f"num_adaptors={number}: there are {len(free)} places for mode {options.mode!r}")
    given = options.initial_scale
    if isinstance(given, Sequence):
        if len(given) != number:
            raise ValueError(f"initial_scale={given!r}: must be {number} numbers, one for each adaptor, or one for all")
        scales = list(given)
    else:
        scales = [given or START.get(options.mode) or _standard_scale(options, number)] * number
    return {free[int(k * (len(free) / number))]: scale for k, scale in enumerate(scales)}


def _standard_scale(options: ShapeOptions, number: int) -> float:
    """The scale from which so many adaptors start in mode 'standard'."""
    r1, r2 = RATIOS
    last = LAST_SIDE if options.output_dim is None else options.output_dim
    scale = float((last / options.design_size) ** (1 / number))
    if scale >= r2:
        raise ValueError(
            f"num_adaptors={number}: from {options.design_size} to {last:g} px each would have to scale by "
            f"{scale:.3f}, and an adaptor scales by less than {r2:g}"
        )
    return max(scale, r1 + (r2 - r1) * LEAST_ODDS / (1 + LEAST_ODDS))


class ShapePlan:
    """The row of cells of one network with its adaptors; gives the sizes of a forward pass.

    Sizes follow from the scales last read (``read_scales``). Reading waits for a GPU, so it is done once per pass.

    Args:
        cells: in the order in which they run.
        adaptors: ``{index of a cell: adaptor}``; such a cell has no stride.
        options: mode and memory bound.
    """

    def __init__(self, cells: Sequence[Cell], adaptors: dict[int, ShapeAdaptor], options: ShapeOptions) -> None:
        self.cells, self.adaptors, self.options = tuple(cells), dict(adaptors), options
        if options.fixed:
            for adaptor in self.adaptors.values():
                adaptor.freeze()

    def read_scales(self) -> None:
        """Read the adaptors' present scales."""
        for adaptor in self.adaptors.values():
            adaptor.read_scale()

    def stride(self, index: int) -> int:
        """The actual stride of cell ``index``."""
        adapted = index in self.adaptors or self.options.mode == "standard"
        return 1 if adapted else self.cells[index].stride

    def counted_stride(self, index: int) -> int:
        """The stride of cell ``index`` in the exact sides from which those of adaptors follow."""
        return self.stride(index) if self.cells[index].counted else 1

    def penalty(self, height: int, width: int) -> float:
        """p of the memory bound for a picture of this size: ``(limit / last side) ** (1 / n)``, at most 1.

        Raises: ValueError if even the smallest scales would not meet the bound.
        """
        limit = self.options.limit_side
        if limit is None:
            return 1.0
        strides = math.prod(self.counted_stride(i) for i in range(len(self.cells)))
        side, number = math.sqrt(height * width) / strides, len(self.adaptors)
        least = side * math.prod(adaptor.ratios[0] for adaptor in self.adaptors.values())
        if limit <= least:
            raise ValueError(
                f"limit_side={limit!r}: with {number} adaptors the last map of a picture of {height} x {width} has a "
                f"side of at least {least:.2f} px; allow more, or use more adaptors"
            )
        side *= math.prod(adaptor.known_scale for adaptor in self.adaptors.values())
        return min(1.0, math.pow(limit / side, 1 / number))

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Height and width of the map in front of every cell, and of the last map."""
        reshapes = self.reshapes(height, width)
        sizes = [(height, width)]
        for index in range(len(self.cells)):
            if index in reshapes:
                height, width = reshapes[index][:2]
            else:
                stride, rounds_up = self.stride(index), self.cells[index].rounds_up
                height, width = (
                    -(-side // stride) if rounds_up else max(1, side // stride) for side in (height, width)
                )
            sizes.append((height, width))
        return sizes

    def reshapes(self, height: int, width: int) -> dict[int, Reshape]:
        """The output that each adaptor is asked for: ``{index of its cell: Reshape}``."""
        penalty, exact = self.penalty(height, width), (float(height), float(width))
        reshapes: dict[int, Reshape] = {}
        for index in range(len(self.cells)):
            adaptor = self.adaptors.get(index)
            if adaptor is None:
                exact = (exact[0] / self.counted_stride(index), exact[1] / self.counted_stride(index))
                continue
            scale = adaptor.known_scale
            exact = (exact[0] * scale * penalty, exact[1] * scale * penalty)
            rounded = [max(1, round(side) if self.options.mode == "autosc" else int(side)) for side in exact]
            reshapes[index] = Reshape(rounded[0], rounded[1], penalty)
            if self.options.mode != "autosc":
                exact = (float(rounded[0]), float(rounded[1]))
        return reshapes

    def pool(self, x: Tensor) -> Tensor:
        """2x2 max-pooling, also as an adaptor's small map: odd sides are rounded up in 'autosc' and down otherwise.

        A side of 1 stays.
        """
        kernel = [min(2, side) for side in x.shape[-2:]]
        return F.max_pool2d(x, kernel, kernel, ceil_mode=self.options.mode == "autosc")


class ShapedNetwork(Backbone):
    """Mixin for a backbone of cells with adaptors: computes their sizes and passes them to the cells.

    A subclass sets ``plan``, ``first_block`` (cells before the first stage) and ``resize_outputs``. Its
    ``forward_stem`` asks ``plan`` for sizes, its blocks take ``(x, reshape)``.
    """

    plan: ShapePlan
    first_block: int
    resize_outputs: bool

    def blocks_of(self, modules: Sequence[nn.Module]) -> Sequence[nn.Module]:
        """The blocks of a stage, one for each cell, given its modules (one sequence)."""
        return [block for module in modules for block in module.children()]

    def start(self, x: Tensor) -> list[Tensor]:
        """As ``Backbone``. The first map is the picture without channels, from whose size all others follow."""
        self.check_size(x)
        self.plan.read_scales()
        return [x[:, :0], self.forward_stem(x)]

    def advance(self, maps: list[Tensor], index: int) -> list[Tensor]:
        """As ``Backbone``: the picture without its channels, the map at its learned size, and the output if resized."""
        picture, x = maps[:2]
        size = (picture.shape[-2], picture.shape[-1])
        reshapes, stages = self.plan.reshapes(*size), self.stages_to(index)
        rows = [self.blocks_of(modules) for modules in self.stage_modules()]
        first = self.first_block + sum(len(row) for row in rows[: stages.start])
        for cell, block in enumerate(chain.from_iterable(rows[stages]), first):
            x = block(x, reshapes[cell]) if cell in reshapes else block(x)
        output = resize_to_strides(x, size, self.out_strides[index]) if self.resize_outputs else x
        return [picture, x] if output is x else [picture, x, output]

    def shapes(self, height: int, width: int) -> list[tuple[str, int, int]]:
        """``(name, height, width)`` of every cell's input for a picture of this size, then of the last map."""
        self.plan.read_scales()
        names = [*(cell.name for cell in self.plan.cells), "output"]
        return [(name, *size) for name, size in zip(names, self.plan.sizes(height, width), strict=True)]


def freeze_shapes(model: nn.Module) -> int:
    """Fix the present shape of every adaptor in ``model``, for export and deployment; returns the number of adaptors.

    Outputs stay the same. Sizes no longer depend on tensors, so the model can be exported for a given picture size.
    """
    adaptors = [module for module in model.modules() if isinstance(module, ShapeAdaptor)]
    for adaptor in adaptors:
        adaptor.freeze()
    return len(adaptors)


def resize_to_strides(x: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """A map ``[N, C, h, w]`` of a picture of ``size``, resized to ``[N, C, ceil(H / stride), ceil(W / stride)]``."""
    wanted = (-(-size[0] // stride), -(-size[1] // stride))
    if tuple(x.shape[-2:]) == wanted:
        return x
    return F.interpolate(x, size=wanted, mode="bilinear", align_corners=False)
