"""How far a network sees: the theoretical and the effective receptive field of every stage (Luo et al., NIPS 2016).

The effective field is the gradient of the middle cell of a stage's map with respect to the picture. As in section 3 of
the paper, its size is the square root of the number of pixels whose gradient is above 1 - 95.45 % of the largest. The
gradient of a pixel is the root mean square over channels of the map, channels of the picture and pictures, estimated
with random signs for the channels of the map. Also reported: the extent (side of the smallest square around these
pixels; kernels with holes have fewer pixels than their extent) and two standard deviations of the gradient along an
axis.

The theoretical field consists of the columns with a non-zero gradient in the same network with positive weights,
without norms and activations and with mean instead of maximum pooling, so that no path cancels another or is cut off.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmms_plugin.errors import UserError

THRESHOLD = 1 - 0.9545  # of the largest gradient; section 3.1 of the paper
MOST_SIDE = 512  # px, largest side of a picture that fields are measured on
HEIGHT, WIDTHS = 64, (512, 2048)  # px, of the strips for theoretical fields; narrow ones take less time


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive field of one stage; lengths in px of the picture.

    Attributes:
        name: of the stage.
        stride: of the stage.
        theoretical: side of the theoretical field; None if it is wider than 2,048 px, the widest strip.
        side: of the effective field.
        extent: of the effective field.
        two_sigma: two standard deviations of the gradient along an axis.
        cut: whether the picture was too small for the extent.
        heat: ``[H, W]`` gradient, scaled to a largest value of 1.
    """

    name: str
    stride: int
    theoretical: int | None
    side: float
    extent: int
    two_sigma: float
    cut: bool
    heat: NDArray[np.float32]


def measure(
    backbone: nn.Module,
    pictures: Sequence[Tensor],
    signs: int = 4,
    seed: int = 0,
    theory: bool = True,
    deepest: bool = False,
    watch: Callable[[Sequence[Tensor]], Iterable[Tensor]] = iter,
) -> list[ReceptiveField]:
    """Receptive fields of every stage of a backbone, which is not changed.

    Args:
        backbone: ``[N, C, H, W]`` to one or several maps. Stages are its own if it names them, else its outputs.
        pictures: each ``[C, H, W]``, normalised as the backbone expects, all of one size.
        signs: random draws for each picture.
        seed: of the draws.
        theory: whether to measure the theoretical field too; otherwise it is None.
        deepest: whether to measure the last stage only, which takes a fraction of the time.
        watch: iterates over the pictures, to show progress.

    Raises: UserError if the pictures are too small for the backbone.
    """
    device = next((p.device for p in backbone.parameters()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    energies: dict[str, Tensor] = {}
    strides: dict[str, int] = {}
    with _evaluating(backbone):
        for picture in watch(pictures):
            try:
                of_picture, strides = _energies(backbone, picture[None].to(device), signs, generator, deepest)
            except ValueError as error:
                raise UserError(f"receptive fields: {error}; larger pictures are needed (--image-size)") from error
            for name, energy in of_picture.items():
                energies[name] = energies.get(name, torch.zeros(())) + energy
    height = min(HEIGHT, max(16, 4 * max(strides.values())))
    reach = theoretical(backbone, pictures[0].shape[0], height, deepest=deepest) if theory else {}
    return [_field(name, strides[name], reach.get(name), energy.sqrt().numpy()) for name, energy in energies.items()]


def middles(pictures: Sequence[Tensor], most_side: int = MOST_SIDE) -> list[Tensor]:
    """The middle of each picture ``[C, H, W]``, cut to one common size of at most ``most_side`` px.

    Either the upright pictures or the others, whichever are more: a common size would be small.
    """
    upright = [picture for picture in pictures if picture.shape[-2] > picture.shape[-1]]
    others = [picture for picture in pictures if picture.shape[-2] <= picture.shape[-1]]
    pictures = upright if len(upright) > len(others) else others
    height, width = (min(most_side, *(picture.shape[axis] for picture in pictures)) for axis in (-2, -1))
    crops = []
    for picture in pictures:
        top, left = (picture.shape[-2] - height) // 2, (picture.shape[-1] - width) // 2
        crops.append(picture[:, top : top + height, left : left + width])
    return crops


def _energies(
    backbone: nn.Module, x: Tensor, signs: int, generator: torch.Generator, deepest: bool
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Sum over the draws of the squared gradient, ``[H, W]`` for each stage, and the strides of the stages.

    The graph of a picture is freed on return: two at once would take gigabytes for a large network.
    """
    x = x.requires_grad_()
    maps = _stage_maps(backbone, x, deepest)
    energies = {}
    for name, y in maps.items():
        middle = y[0, :, y.shape[-2] // 2, y.shape[-1] // 2]
        total = torch.zeros(x.shape[-2:], dtype=torch.float64)
        for _ in range(signs):
            draw = torch.randint(0, 2, middle.shape, generator=generator).to(middle) * 2 - 1
            (gradient,) = torch.autograd.grad((middle * draw).sum(), x, retain_graph=True)
            total += gradient[0].cpu().double().square().sum(0)
        energies[name] = total
    return energies, {name: round(x.shape[-1] / y.shape[-1]) for name, y in maps.items()}


def _field(name: str, stride: int, reach: int | None, gradient: NDArray[np.float64]) -> ReceptiveField:
    if not gradient.any():  # all units of the cell are off
        return ReceptiveField(name, stride, reach, 0.0, 0, 0.0, False, gradient.astype(np.float32))
    heat = gradient / gradient.max()
    rows, columns = np.nonzero(heat > THRESHOLD)
    extent = int(max(np.ptp(rows), np.ptp(columns)) + 1)
    ends = (rows.min(), columns.min(), heat.shape[0] - 1 - rows.max(), heat.shape[1] - 1 - columns.max())
    sigma = float(np.sqrt(np.mean([_variance(heat.sum(1)), _variance(heat.sum(0))])))
    side = float(np.sqrt(len(rows)))
    return ReceptiveField(name, stride, reach, side, extent, 2 * sigma, bool(min(ends) == 0), heat.astype(np.float32))


def _variance(weights: NDArray[np.float64]) -> float:
    places = np.arange(len(weights))
    mean = np.average(places, weights=weights)
    return float(np.average((places - mean) ** 2, weights=weights))


def theoretical(
    backbone: nn.Module,
    channels: int = 3,
    height: int = HEIGHT,
    widths: Sequence[int] = WIDTHS,
    deepest: bool = False,
) -> dict[str, int | None]:
    """Width in px of the region that a cell of every stage depends on; None if it is wider than the widest strip.

    Args:
        backbone: as in ``measure``; a copy of it is run.
        channels: of the picture.
        height: of the picture; large enough for the backbone to run.
        widths: of the pictures, tried in turn until every field ends inside.
        deepest: as in ``measure``.
    """
    network = copy.deepcopy(backbone).cpu().double()
    fields: dict[str, int | None] = {}
    with _evaluating(network), _Positive():
        for width in widths:
            x = torch.ones(1, channels, height, width, dtype=torch.float64, requires_grad=True)
            for name, y in _stage_maps(network, x, deepest).items():
                if fields.get(name) is None:
                    fields[name] = _reach(y, x)
            if None not in fields.values():
                break
    return fields


def _reach(y: Tensor, x: Tensor) -> int | None:
    """Width of the region that the middle cell of a map depends on; None if it reaches an end of the picture."""
    middle = y[0, :, y.shape[-2] // 2, y.shape[-1] // 2].sum()
    (gradient,) = torch.autograd.grad(middle, x, retain_graph=True)
    columns = torch.nonzero(gradient[0].abs().amax((0, 1))).flatten()
    first, last = int(columns[0]), int(columns[-1])
    return None if first == 0 or last == x.shape[-1] - 1 else last - first + 1


@torch.no_grad()
def start_afresh(backbone: nn.Module, seed: int = 0) -> nn.Module:
    """Give the backbone random weights that make fields comparable: He initialisation, and norms that scale by 1.

    Many networks start with the last norm of each block at 0: every block is then the identity, and fields are tiny.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm) and module.affine:
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    return backbone


class _Positive(TorchFunctionMode):
    """Makes every layer a mean over its inputs: positive weights, no norms, no activations."""

    NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "local_response_norm", "dropout")
    ACTIVATIONS = ("relu", "relu6", "leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardtanh",
                   "hardswish", "softplus", "softmax", "log_softmax")  # fmt: skip

    GATES = ("sigmoid", "hardsigmoid", "tanh")  # factors of other maps

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", "").strip("_"), kwargs or {}
        if args and name in (*self.NORMS, *self.ACTIVATIONS):
            return args[0]
        if args and name in self.GATES and args[0].dim() > 1:  # a learned scalar keeps its value
            return args[0] / args[0].detach().amax()  # at most 1: products of gates must not grow
        if name == "conv2d":
            return _mean_conv(*args, **kwargs)
        if name == "linear":
            return F.linear(args[0], _positive(args[1] if len(args) > 1 else kwargs["weight"]))
        if name in ("max_pool2d", "max_pool2d_with_indices"):
            return _mean_pool(*args, **kwargs)
        return func(*args, **kwargs)


def _positive(weight: Tensor) -> Tensor:
    """The weight's pattern of zeros, such as a mask's, with equal values elsewhere; they sum to 1 without zeros."""
    ones = (weight != 0).to(weight.dtype)
    return (ones if ones.any() else torch.ones_like(weight)) / weight[0].numel()


def _mean_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """``conv2d`` with ``_positive`` weights. If all are equal, so are all outputs of a group: only one is computed."""
    positive = _positive(weight)
    if x.dim() != 4 or positive.amin() != positive.amax():
        return F.conv2d(x, positive, None, stride, padding, dilation, groups)
    means = x.unflatten(1, (groups, -1)).mean(2)
    kernel = positive.new_full((groups, 1, *weight.shape[2:]), 1 / weight[0, 0].numel())
    y = F.conv2d(means, kernel, None, stride, padding, dilation, groups)
    return y.repeat_interleave(len(weight) // groups, 1)


def _mean_pool(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    return F.avg_pool2d(x, kernel_size, stride or kernel_size, padding, ceil_mode)


def _stage_maps(backbone: nn.Module, x: Tensor, deepest: bool) -> dict[str, Tensor]:
    """The map ``[N, C, h, w]`` of every stage that runs, or of the last one only, by its name."""
    by_stage: dict[str, Tensor] = {}
    handles = [last.register_forward_hook(_keeper(by_stage, name)) for name, last in _stages(backbone)]
    try:
        with torch.enable_grad():
            outputs = backbone(x)
    finally:
        for handle in handles:
            handle.remove()
    outputs = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    maps = {f"output {i + 1}": y for i, y in enumerate(outputs) if isinstance(y, Tensor) and y.dim() == 4}
    maps = by_stage if len(by_stage) >= len(maps) else maps
    return dict([*maps.items()][-1:]) if deepest else maps


def _keeper(by_stage: dict[str, Tensor], name: str) -> Callable[..., None]:
    def keep(_: nn.Module, __: Any, y: Any) -> None:
        if isinstance(y, Tensor) and y.dim() == 4 and y.requires_grad:
            by_stage[name] = y

    return keep


def _stages(backbone: nn.Module) -> list[tuple[str, nn.Module]]:
    """Name and last module of every stage, for the networks here and the hosts' ResNets; else empty."""
    own = getattr(backbone, "stage_modules", None)
    if callable(own):
        return [(f"stage {i + 1}", modules[-1]) for i, modules in enumerate(own()) if modules]
    names = getattr(backbone, "res_layers", None) or ()
    return [(f"stage {i + 1}", backbone.get_submodule(name)) for i, name in enumerate(names)]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode, without gradients of weights, and without checkpointing, which some implementations refuse here.

    All of it is restored afterwards.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    training = {module: module.training for module in model.modules()}
    checkpointed = [module for module in model.modules() if getattr(module, "with_cp", False) is True]
    for module in checkpointed:
        module.with_cp = False  # type: ignore[assignment]
    for module in training:
        module.training = False
    for parameter in trained:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad = True
        for module, state in training.items():
            module.training = state
        for module in checkpointed:
            module.with_cp = True  # type: ignore[assignment]
