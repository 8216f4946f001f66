"""``optimize_for_inference``: batch norms folded into convolutions, NHWC weights, 1x1 convolutions through oneDNN,
kernels of PSConv put together once.

A norm is folded where it is known to follow its convolution and nothing else: in blocks of this package, of the hosts
and of torchvision, which register and name both in the order in which they run (``conv1`` and ``bn1``, ``conv`` and
``norm``, DenseNet's ``conv1`` and ``norm2``), and in sequences of such blocks; modules of others may take theirs apart.
Elastic's paths share the norm of their sum.
Everything else stays as it is.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from mmms_plugin.inference.onednn import PointwiseConv2d
from mmms_plugin.inference.packed import pack
from mmms_plugin.layers import Elastic, ElasticConv2d, PSConv2d
from mmms_plugin.layers.ps_conv import PublishedPSConv2d

KNOWN = ("mmms_plugin", "mmcv", "mmdet", "mmseg", "mmpretrain", "torchvision")  # packages whose blocks are so named
PAIR = re.compile(r"(?:conv|paths)\d* (?:bn|norm)\d*")  # names of a convolution and of the norm behind it
CONVOLUTIONS = (nn.Conv2d, PSConv2d, PublishedPSConv2d, ElasticConv2d)  # exactly these: the output is linear in weights
SIDE, TOLERANCE = 128, 1e-3  # px, and share of the largest value, of the picture on which backbones are compared
WEIGHTS = ("weight", "extra_weight")  # of these, with a row for each output channel


class FoldedNorm(nn.Identity):
    """In place of a norm that was folded into the convolution before it."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if any(key.startswith(prefix) for key in state_dict):  # which a loader that is not strict would pass over
            raise RuntimeError("this model was optimized for inference and has no batch norms: load into the original")

    def train(self, mode: bool = True) -> FoldedNorm:
        if mode:
            raise RuntimeError("this model was optimized for inference and has no batch norms: train the original")
        return super().train(mode)


def optimize_for_inference(model: nn.Module) -> nn.Module:
    """A copy of a model that computes the same faster on a CPU; it shares all tensors but those of convolutions.

    Outputs differ by rounding only. Gradients reach the input, though not the weights that were changed. PSConv layers
    keep their kernels beside their weight.

    Args:
        model: any network.

    Returns: the copy, for eval mode only; or ``model`` itself if it or a part of it is in training mode, if it is on
    another device or wrapped for several processes, or cannot be copied.
    """
    tensors = [*model.parameters(), *model.buffers()]
    in_training = any(module.training for module in model.modules())  # whose running statistics a comparison would move
    if in_training or isinstance(model, DistributedDataParallel) or any(t.device.type != "cpu" for t in tensors):
        return model
    try:
        optimized = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    except (TypeError, RuntimeError):  # such as of an open file, or of a tensor inside a graph
        return model
    fold_norms(optimized)
    use_onednn(optimized)
    for module in optimized.modules():
        if type(module) in (*CONVOLUTIONS, PointwiseConv2d) and not _is_hooked(module):
            weight: Any = module.weight
            kernels = weight.detach().contiguous(memory_format=torch.channels_last)
            module.weight = nn.Parameter(kernels, requires_grad=False)
            if type(module) is PSConv2d:
                pack(module)
    return optimized if _agree(model, optimized) else model


def fold_norms(model: nn.Module) -> int:
    """Fold batch norms into the convolutions before them; the weights are new tensors.

    Args:
        model: changed in place; modules in training mode stay.

    Returns: the number of folded norms.
    """
    uses = _uses(model)
    pairs = [
        (parent, *pair)
        for parent in _blocks(model)
        for pair in _pairs(parent)
        if all(uses[id(module)] == 1 for module in pair[1:])
    ]
    for parent, name, first, norm in pairs:
        _fold(_convolutions(first), norm)
        setattr(parent, name, FoldedNorm().eval())
    return len(pairs)


def use_onednn(model: nn.Module) -> int:
    """Let oneDNN compute the 1x1 convolutions of stride 1; returns their number. The model is changed in place."""
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Conv2d and _is_pointwise(child) and not _is_hooked(child)
    ]
    for parent, name, child in places:
        setattr(parent, name, PointwiseConv2d.of(child))
    return len(places)


def _is_pointwise(conv: nn.Conv2d) -> bool:
    plain = conv.kernel_size == conv.stride == (1, 1) and conv.groups == 1
    return plain and conv.padding in ((0, 0), "valid", "same")


def _uses(model: nn.Module) -> dict[int, int]:
    """Id of each module -> number of places that hold it."""
    uses: dict[int, int] = {}
    for parent in model.modules():
        for child in parent._modules.values():
            uses[id(child)] = uses.get(id(child), 0) + 1
    return uses


def _is_known(module: nn.Module) -> bool:
    return type(module).__module__.partition(".")[0] in KNOWN


def _is_sequence(module: nn.Module) -> bool:
    return type(module).forward is nn.Sequential.forward


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The modules whose children run in the order in which they are registered: known blocks, and their sequences."""
    blocks: dict[int, nn.Module] = {}
    others: set[int] = set()

    def visit(module: nn.Module, in_known: bool) -> None:
        is_container = _is_sequence(module) or isinstance(module, nn.ModuleList | nn.ModuleDict)
        if _is_known(module) or (in_known and is_container):
            blocks[id(module)] = module
        else:
            others.add(id(module))
        for child in module.children():
            visit(child, id(module) in blocks)

    visit(model, in_known=True)
    return [block for key, block in blocks.items() if key not in others]


def _pairs(parent: nn.Module) -> Iterator[tuple[str, nn.Module, _BatchNorm]]:
    """Each batch norm that can be folded: its name, what runs right before it, and itself."""
    in_order = _is_sequence(parent)
    if _is_replaced(parent):
        return
    if getattr(parent, "order", ("conv", "norm"))[:2] != ("conv", "norm"):  # of mmcv's ConvModule
        return
    for (first, before), (name, norm) in pairwise(parent.named_children()):
        if (in_order or PAIR.fullmatch(f"{first} {name}")) and isinstance(norm, _BatchNorm) and _can_fold(before, norm):
            yield name, before, norm


def _convolutions(before: nn.Module) -> list[Any]:
    """The convolutions whose sum a module gives, first one at full resolution; none if it gives something else."""
    if type(before) in CONVOLUTIONS:
        return [before]
    if type(before) is not Elastic or 1 not in before.ratios.values():
        return []
    names = sorted(before.ratios, key=lambda name: before.ratios[name])
    ends = [list(before.get_submodule(name).modules())[-1] for name in names]
    in_order = all(isinstance(before.get_submodule(name), nn.Sequential) for name in names)
    return ends if in_order and all(type(end) in CONVOLUTIONS for end in ends) else []


def _can_fold(before: nn.Module, norm: _BatchNorm) -> bool:
    convolutions = _convolutions(before)
    if norm.running_mean is None or not convolutions:
        return False
    if any(module.training or _is_hooked(module) for module in (before, *convolutions, norm)):
        return False
    return all(conv.out_channels == norm.num_features for conv in convolutions)


def _is_hooked(module: nn.Module) -> bool:
    """Whether something watches the module or changes its weights, such as a spectral norm."""
    hooks = module._forward_hooks or module._forward_pre_hooks or hasattr(module, "parametrizations")
    return bool(hooks or _is_replaced(module))


def _is_replaced(module: nn.Module) -> bool:
    """Whether somebody gave this module a ``forward`` of its own, as accelerate does."""
    return "forward" in vars(module)


def _fold(convolutions: Sequence[Any], norm: _BatchNorm) -> None:
    """Put a norm's factors into the weights of convolutions that are summed, and its offsets into a bias."""
    mean, variance = norm.running_mean, norm.running_var
    assert isinstance(mean, Tensor)
    assert isinstance(variance, Tensor)
    with torch.no_grad():
        scale = (variance + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight
        bias = sum((conv.bias for conv in convolutions if conv.bias is not None), start=-mean) * scale
        if norm.bias is not None:
            bias = bias + norm.bias
        for conv in convolutions:
            conv.bias = None
            for name in WEIGHTS:
                if isinstance(weight := getattr(conv, name, None), Tensor):
                    setattr(conv, name, nn.Parameter(weight * scale.view(-1, 1, 1, 1), requires_grad=False))
        convolutions[0].bias = nn.Parameter(bias, requires_grad=False)


def _agree(model: nn.Module, optimized: nn.Module) -> bool:
    """Whether both backbones give the same for a small picture; True if there is none that takes it."""
    backbone, other = getattr(model, "backbone", None), getattr(optimized, "backbone", None)
    if backbone is None or other is None:
        return True
    x = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            maps, others = (_tensors(part(x)) for part in (backbone, other))
    except (RuntimeError, ValueError, TypeError):
        return True
    return all(
        float((y - z).abs().max()) <= TOLERANCE * float(y.abs().max()) for y, z in zip(maps, others, strict=True)
    )


def _tensors(output: Any) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else [y for y in output if isinstance(y, Tensor)]
