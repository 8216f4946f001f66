"""The resolution at which each block of a network looks at a picture: section 4.1.1 of the ELASTIC paper.

The scale policy score of a block is ``S = A_high - A_low``, the mean activation behind the ReLU after the 3x3 layer of
the high-resolution branch minus that of the low-resolution branch. Blocks whose branches all run at full resolution
(strided ones, the last stage) have none: ResNeXt-50 + Elastic has 17 scores, as Figure 6 shows.

1. With several branches of lower resolution, A_low is the mean over those branches.
2. Where no ReLU follows the 3x3 layer inside the branch, the mean of the positive part of its output is taken: in
   ElasticDenseNet, whose branches are summed first, and ElasticConv, whose ReLU is outside the layer.
3. Batches should hold one picture, or pictures of one size: padding counts like any other pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmms_plugin.layers.elastic import Elastic, ElasticConv2d

Handle = torch.utils.hooks.RemovableHandle


class PolicyMeter:
    """Hooks that reduce the activations of every Elastic block to one score per picture, and keep no map.

    Use it as a context, which removes the hooks at its end; the model is not changed. A block that runs twice for one
    batch, as checkpointed blocks do in the backward pass, has the score of its last run.

    Attributes:
        blocks: names of the blocks, in the order of the model's modules.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers: dict[str, nn.Module] = {}
        for path, module in model.named_modules():
            if isinstance(module, Elastic | ElasticConv2d) and _lowers(module):
                self._layers[_short_name(path)] = module
        self.blocks = tuple(self._layers)
        self._scores: dict[str, Tensor] = {}
        self._handles: list[Handle] = []

    def __enter__(self) -> PolicyMeter:
        for name, module in self._layers.items():
            watch = _watch_conv if isinstance(module, ElasticConv2d) else _watch_branches
            self._handles += watch(module, partial(self._keep, name))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _keep(self, name: str, score: Tensor) -> None:
        self._scores[name] = score

    def take(self) -> Tensor:
        """Take the scores of the last batch: float64 ``[N, blocks]`` on the CPU. A second call needs another batch.

        Raises: RuntimeError if a block has not run.
        """
        scores, self._scores = self._scores, {}
        if missing := [name for name in self.blocks if name not in scores]:
            raise RuntimeError(f"block {missing[0]} has not run since the scores were last taken")
        return torch.stack([scores[name] for name in self.blocks], 1)


def _lowers(module: Elastic | ElasticConv2d) -> bool:
    ratios = module.ratios if isinstance(module, ElasticConv2d) else list(module.ratios.values())
    return max(ratios) > 1 and min(ratios) == 1


def _short_name(path: str) -> str:
    return path.removeprefix("backbone.").removesuffix(".paths")


def _watch_branches(module: Any, keep: Callable[[Tensor], None]) -> list[Handle]:
    means: dict[str, Tensor] = {}
    handles = []
    for name in module.ratios:
        source, is_relu = _activation(module.get_submodule(name))

        def reduce(_: nn.Module, __: Any, out: Tensor, name: str = name, is_relu: bool = is_relu) -> None:
            means[name] = _means(out if is_relu else _positive(out))

        handles.append(source.register_forward_hook(reduce))

    def finish(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
        # method 'dilated' splits a picture into r x r successive ones
        by_branch = {name: mean.reshape(len(inputs[0]), -1).mean(1) for name, mean in means.items()}
        low = [by_branch[name] for name, ratio in module.ratios.items() if ratio > 1]
        high = [by_branch[name] for name, ratio in module.ratios.items() if ratio == 1]
        keep(torch.stack(high).mean(0) - torch.stack(low).mean(0))
        means.clear()

    handles.append(module.register_forward_hook(finish))
    return handles


def _activation(branch: nn.Module) -> tuple[nn.Module, bool]:
    """The module whose output is A, and whether it is a ReLU: the first ReLU after the last spatial convolution."""
    parts = list(branch.modules())
    places = [i for i, part in enumerate(parts) if isinstance(part, nn.Conv2d) and max(part.kernel_size) > 1]
    last = places[-1] if places else 0
    relu = next((part for part in parts[last:] if isinstance(part, nn.ReLU)), None)
    return (relu, True) if relu is not None else (parts[last], False)


def _watch_conv(module: Any, keep: Callable[[Tensor], None]) -> list[Handle]:
    """``ElasticConv2d`` sums its branches in one function: the high branch is the output minus the low branches."""
    low: list[Tensor] = []  # at full resolution
    means: list[Tensor] = []  # of maps before up-sampling, whose interpolation would mix positive and negative values

    def begin(_: nn.Module, __: tuple[Tensor, ...]) -> None:  # drop the rest of a batch that failed
        low.clear()
        means.clear()

    handles = [module.register_forward_pre_hook(begin)]
    for up in module.up.values():
        handles.append(up.register_forward_hook(lambda _, inputs, out: low.append(out.detach())))
        handles.append(up.register_forward_pre_hook(lambda _, inputs: means.append(_means(_positive(inputs[0])))))

    def finish(_: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        rest = out.detach()
        if module.bias is not None:
            rest = rest - module.bias.detach().to(rest.dtype).view(1, -1, 1, 1)
        if module.groups == 1:
            for term in low:
                rest = rest - term
        else:
            parts = zip(rest.split(module.outputs, 1), module.ratios, strict=True)
            rest = torch.cat([part for part, ratio in parts if ratio == 1], 1)
        low_means = [mean.reshape(len(inputs[0]), -1).mean(1) for mean in means]  # as in _watch_branches
        keep(_means(_positive(rest)) - torch.stack(low_means).mean(0))
        begin(_, inputs)

    return [*handles, module.register_forward_hook(finish)]


def _positive(maps: Tensor) -> Tensor:
    return maps.detach().clamp(min=0)


def _means(maps: Tensor) -> Tensor:
    """``[N, C, H, W]`` to ``[N]`` on the CPU; means over pixels in single precision, over channels in double."""
    return maps.detach().float().mean((2, 3)).cpu().double().mean(1)
