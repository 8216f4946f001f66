"""A network that computes only what an answer needs.

``EarlyExit`` runs a backbone output by output (``Backbone.start`` and ``advance``); pictures may leave at each output.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from mmms_plugin.backbones.msdnet import ConvNorm
from mmms_plugin.errors import UserError
from mmms_plugin.exits.timing import Profile
from mmms_plugin.inference.optimize import FoldedNorm, fold_norms
from mmms_plugin.scale.clock import seconds
from mmms_plugin.scale.flops import ExitCost, exit_costs


class Steps(Protocol):
    """What early exit needs of a backbone; ``Backbone`` has it."""

    out_indices: Sequence[int]

    def start(self, x: Tensor) -> list[Tensor]: ...

    def advance(self, maps: list[Tensor], index: int) -> list[Tensor]: ...


class Answer(NamedTuple):
    """Answers for a batch.

    Attributes:
        logits: ``[N, classes]``.
        exits: ``[N]``, number of the exit that gave each answer, from 0.
    """

    logits: Tensor
    exits: Tensor


@dataclass(frozen=True)
class _Running:
    """The pictures of a batch that are still computed: their maps and their places in the batch (None: all of it)."""

    maps: list[Tensor]
    pictures: Tensor | None

    def keep(self, places: Tensor) -> _Running:
        pictures = places if self.pictures is None else self.pictures[places]
        return _Running(_gather(self.maps, places), pictures)


class _Answers:
    """The answers of a batch so far. Each exit takes only a few small operations, which small networks would notice."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.waiting = count
        self._open: Tensor | None = None  # None while no picture has an answer
        self._logits: Tensor | None = None
        self._exits = torch.empty(count, dtype=torch.long, device=device)

    def take(self, logits: Tensor, index: int, ready: Tensor | None, pictures: Tensor | None) -> Tensor | None:
        """Store the answers of those running pictures that are ``ready`` (None: all) and have none yet.

        Args:
            logits: of the running pictures.
            index: of the exit.
            ready: ``[running]``, whether a picture leaves.
            pictures: places of the running pictures in the batch; None if all are running.

        Returns: places, among the running pictures, of those without an answer; None if all have one.
        """
        still = self._open if pictures is None or self._open is None else self._open[pictures]
        if still is None and (ready is None or bool(ready.all())):
            self.waiting, self._logits = 0, logits
            self._exits.fill_(index)
            return None
        leave = still if ready is None else ready if still is None else ready & still
        gone = cast(Tensor, leave).nonzero().flatten()
        if self._open is None:
            self._open = torch.ones(len(self._exits), dtype=torch.bool, device=logits.device)
            self._logits = logits.new_empty(len(self._exits), logits.shape[1])
        where = gone if pictures is None else pictures[gone]
        cast(Tensor, self._logits)[where] = logits[gone]
        self._exits[where] = index
        self._open[where] = False
        self.waiting -= len(gone)
        if not self.waiting:
            return None
        return (self._open if pictures is None else self._open[pictures]).nonzero().flatten()

    def all(self) -> Answer:
        return Answer(cast(Tensor, self._logits), self._exits)


class EarlyExit(nn.Module):
    """A backbone and a classifier for each of its outputs, for inference.

    It holds copies of the modules, with batch norms folded into the convolutions before them and weights in
    channels-last order, which is faster on CPUs. ``predict`` is the anytime setting of section 3 of the MSDNet paper,
    ``classify`` the budgeted one.

    Args:
        backbone: with the steps of ``Steps``.
        exits: a classifier for each of its outputs.
        fold: False copies the modules as they are.

    Raises: ValueError unless there are as many exits as outputs.
    """

    def __init__(self, backbone: nn.Module, exits: Sequence[nn.Module], *, fold: bool = True) -> None:
        super().__init__()
        outputs = len(cast(Steps, backbone).out_indices)
        if len(exits) != outputs:
            raise ValueError(f"{len(exits)} exits: must be {outputs}, one for each output of {type(backbone).__name__}")
        self.backbone = copy.deepcopy(backbone).eval()
        self.exits = copy.deepcopy(nn.ModuleList(exits)).eval()
        self.folded = fold
        if fold:
            fold_norms(self)
            merge_layers(self)
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.profile: Profile | None = None
        self._slower: set[tuple[int, tuple[float, ...]]] = set()  # batch sizes and thresholds, see measure_plan
        self._costs: dict[tuple[int, int], list[ExitCost]] = {}
        self._seconds: dict[tuple[int, ...], list[float]] = {}

    @classmethod
    def of(cls, model: nn.Module, *, fold: bool = True) -> EarlyExit:
        """From a model with ``backbone`` and ``head``: of ``weights.load_model``, or mmpretrain's ``ImageClassifier``.

        Raises: UserError if the model has one exit, several labels, a neck, or a backbone that cannot stop early.
        """
        backbone, head = getattr(model, "backbone", None), getattr(model, "head", None)
        exits = getattr(head, "exits", None)
        if backbone is None or exits is None:
            raise UserError(
                "the model has one classifier: early exit needs several, such as those of mmms_plugin.MultiExitHead"
            )
        if not hasattr(backbone, "advance"):
            kind = type(backbone).__name__
            raise UserError(f"backbone {kind}: cannot stop after an output; early exit needs one of mmms_plugin")
        if (neck := getattr(model, "neck", None)) is not None:
            raise UserError(
                f"neck {type(neck).__name__}: early exit needs the classifiers directly behind the backbone"
            )
        if getattr(head, "multi_label", False):
            raise UserError("the model predicts several labels: early exit is for one class per picture")
        if getattr(head, "ensemble", False):
            return cls(Ensemble(backbone, list(exits)), [nn.Identity() for _ in exits], fold=fold)
        return cls(backbone, list(exits), fold=fold)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Logits of every exit: ``[N, 3, H, W]`` to as many tensors ``[N, classes]`` as there are exits."""
        maps, logits = self._start(x), []
        for index, classifier in enumerate(self.exits):
            maps = self._advance(maps, index)
            logits.append(classifier(maps[-1]))
        return tuple(logits)

    def costs(self, size: tuple[int, int]) -> list[ExitCost]:
        """Multiply-adds of each exit for one picture of ``size``, (height, width) in px."""
        if size not in self._costs:
            self._costs[size] = exit_costs(self.backbone, list(self.exits), size)
        return self._costs[size]

    @torch.inference_mode()
    def predict(self, x: Tensor, budget: float | None = None, unit: str = "macs") -> Answer:
        """The answers of the last exit that a budget allows; earlier classifiers are not computed.

        Args:
            x: pictures ``[N, 3, H, W]``.
            budget: multiply-adds per picture, or seconds for the batch; None for no limit.
            unit: 'macs' or 'seconds'. Seconds are measured once for each shape of ``x``; then the last exit that
                usually fits is taken, or an earlier one when the machine is slow.

        Raises: UserError if even the first exit does not fit. ValueError for another unit.
        """
        if unit not in ("macs", "seconds"):
            raise ValueError(f"unit={unit!r}: allowed are 'macs', 'seconds'")
        if budget is None:
            return self._run_to(x, len(self.exits) - 1)
        if unit == "seconds":
            return self._within_seconds(x, budget)
        blocks = torch.tensor([cost.block for cost in self.costs(_size(x))]).cumsum(0)
        needed = [int(b) + cost.classifier for b, cost in zip(blocks, self.costs(_size(x)), strict=True)]
        return self._run_to(x, _last_fitting(needed, budget, "multiply-adds"))

    def _run_to(self, x: Tensor, last: int) -> Answer:
        maps = self._start(x)
        for index in range(last + 1):
            maps = self._advance(maps, index)
        return Answer(self.exits[last](maps[-1]), torch.full((len(x),), last, device=x.device))

    def _within_seconds(self, x: Tensor, budget: float) -> Answer:
        started = time.perf_counter()
        if tuple(x.shape) not in self._seconds:
            self._seconds[tuple(x.shape)] = self.measure_exits(x)
            started = time.perf_counter()
        needed = self._seconds[tuple(x.shape)]
        last = _last_fitting(needed, budget, "seconds")
        maps = self._start(x)
        for index in range(last + 1):
            if index and time.perf_counter() - started + needed[index] - needed[index - 1] > budget:
                break
            maps, reached = self._advance(maps, index), index
        return Answer(self.exits[reached](maps[-1]), torch.full((len(x),), reached, device=x.device))

    @torch.inference_mode()
    def measure_exits(self, x: Tensor, rounds: int = 3, clock: Callable[[], float] = time.perf_counter) -> list[float]:
        """Seconds up to each exit, with only its own classifier; the second fastest of a few rounds.

        Args:
            x: pictures ``[N, 3, H, W]``.
            rounds: one less than the number of measurements.
            clock: in seconds; budgets are in wall time, the default.
        """
        rows = []
        for _ in range(rounds + 1):
            begun, spent = clock(), 0.0
            maps, row = self._start(x), []
            for index, classifier in enumerate(self.exits):
                maps = self._advance(maps, index)
                before = clock()
                classifier(maps[-1])
                row.append(clock() - begun - spent)
                spent += clock() - before  # by classifiers that a later exit's answer skips
            rows.append(row)
        return [sorted(column)[1] for column in zip(*rows, strict=True)]

    @torch.inference_mode()
    def classify(self, x: Tensor, thresholds: Sequence[float]) -> Answer:
        """Each picture's answer from the first exit whose confidence reaches its threshold; there the picture leaves.

        The rest of the batch is gathered into a smaller one if ``profile`` predicts that this saves time; without a
        profile it always is. Where ``measure_plan`` measured the whole network as faster, the whole network is computed
        and all pictures leave at the last exit. Confidence is the largest softmax probability.

        Args:
            x: pictures ``[N, 3, H, W]``.
            thresholds: one for each exit, such as ``Plan.thresholds``; above 1 the exit's classifier is skipped. The
                last exit takes all remaining pictures, whatever its threshold.

        Raises: ValueError unless there are as many thresholds as exits.
        """
        if len(thresholds) != len(self.exits):
            raise ValueError(f"{len(thresholds)} thresholds: must be {len(self.exits)}, one for each exit")
        if (len(x), tuple(thresholds)) in self._slower:
            return self._run_to(x, len(self.exits) - 1)
        last, running, answers = len(self.exits) - 1, _Running(self._start(x), None), _Answers(len(x), x.device)
        for index, threshold in enumerate(thresholds):
            running = _Running(self._advance(running.maps, index), running.pictures)
            if threshold > 1 and index < last:
                continue
            logits = self.exits[index](running.maps[-1])
            ready = None if index == last else logits.softmax(1).amax(1) >= threshold
            size = len(logits)
            if ready is not None and answers.waiting == size and not ready.any():
                continue
            stay = answers.take(logits, index, ready, running.pictures)
            if stay is None:
                break
            if answers.waiting < size and self._pays(index + 1, size, answers.waiting):
                running = running.keep(stay)
        return answers.all()

    def _pays(self, block: int, running: int, left: int) -> bool:
        return self.profile is None or self.profile.pays(block, running, left)

    @torch.inference_mode()
    def measure(self, x: Tensor, rounds: int = 3) -> Profile:
        """Measure how long batches of up to ``len(x)`` pictures take on this machine, for ``classify``.

        Args:
            x: pictures ``[N, 3, H, W]``; the batch sizes measured are 1, 2, 4, ... and N.
            rounds: measurements of each; the fastest counts.
        """
        sizes = sorted({2**i for i in range(len(x).bit_length())} | {len(x)})
        blocks: list[list[float]] = [[] for _ in self.exits]
        copies: list[list[float]] = [[] for _ in self.exits]
        whole = [self._start(x)]
        for index in range(len(self.exits) - 1):
            whole.append(self._advance(whole[-1], index))
        for size in sizes:
            places = torch.arange(len(x) - size, len(x), device=x.device)
            for index, maps in enumerate(whole):
                gather = partial(_gather, maps, places)
                copies[index].append(min(seconds(gather) for _ in range(rounds)))
                block = partial(self._block, gather(), index)
                blocks[index].append(min(seconds(block) for _ in range(rounds)))
        self.profile = Profile(sizes, blocks, copies)
        return self.profile

    def measure_plan(self, pictures: Tensor, batch: int, thresholds: Sequence[float], rounds: int = 5) -> bool:
        """Measure whether leaving early is faster than the whole network; ``classify`` then uses the faster one.

        On a small network, an exit's own operations can take longer than those that it saves.

        Args:
            pictures: ``[N, 3, H, W]``, a sample of those to classify.
            batch: pictures at a time.
            thresholds: as for ``classify``.
            rounds: measurements of both, in turn; the median of the ratios counts.
        """
        key, parts = (batch, tuple(thresholds)), pictures.split(batch)
        self._slower.discard(key)
        ratios = []
        for _ in range(rounds):
            whole = seconds(lambda: [self.predict(part) for part in parts])
            ratios.append(seconds(lambda: [self.classify(part, thresholds) for part in parts]) / whole)
        if median(ratios) > 1:
            self._slower.add(key)
        return key not in self._slower

    def forget_plans(self) -> None:
        """Forget the results of ``measure_plan``."""
        self._slower.clear()

    def _start(self, x: Tensor) -> list[Tensor]:
        if self.folded:
            x = x.contiguous(memory_format=torch.channels_last)
        return cast(Steps, self.backbone).start(x)

    def _advance(self, maps: list[Tensor], index: int) -> list[Tensor]:
        return cast(Steps, self.backbone).advance(maps, index)

    def _block(self, maps: list[Tensor], index: int) -> Tensor:
        return cast(Tensor, self.exits[index](self._advance(maps, index)[-1]))


class Ensemble(nn.Module):
    """A backbone with its classifiers, whose output is the logarithm of the mean of the scores up to each exit.

    Args:
        backbone: with the steps of ``Steps``.
        exits: a classifier for each of its outputs.
    """

    def __init__(self, backbone: nn.Module, exits: Sequence[nn.Module]) -> None:
        super().__init__()
        self.backbone, self.exits = backbone, nn.ModuleList(exits)
        self.out_indices = cast(Steps, backbone).out_indices

    def start(self, x: Tensor) -> list[Tensor]:
        """As the backbone's."""
        return cast(Steps, self.backbone).start(x)

    def advance(self, maps: list[Tensor], index: int) -> list[Tensor]:
        """The backbone's maps, the sum of the scores ``[N, classes]`` so far, and the logarithm of their mean."""
        inner = maps[:-2] if index else maps
        inner = cast(Steps, self.backbone).advance(inner, index)
        scores: Tensor = self.exits[index](inner[-1]).softmax(1)
        total = maps[-2] + scores if index else scores
        return [*inner, total, (total / (index + 1)).clamp_min(torch.finfo(total.dtype).tiny).log()]


class FoldedLayer(nn.Module):
    """A ``ConvNorm`` in one call, its batch norm folded into the convolution; ``[N, C, H, W] -> [N, C', H', W']``.

    In networks for 32 px a layer takes about 50 microseconds, much of it in Python.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.options: Any = (conv.stride, conv.padding, conv.dilation, conv.groups)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, torch.conv2d(x, self.weight, self.bias, *self.options)).relu_()


def merge_layers(module: nn.Module) -> None:
    """Make one call of every ``ConvNorm`` whose norm was folded; the module is changed in place."""
    for part in list(module.modules()):
        for name, child in part.named_children():
            if type(child) is ConvNorm and isinstance(child.norm, FoldedNorm):
                setattr(part, name, FoldedLayer(child.conv))


def _gather(maps: list[Tensor], places: Tensor) -> list[Tensor]:
    return [x[places] for x in maps]  # keeps channels last


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]


def _last_fitting(needed: Sequence[float], budget: float, unit: str) -> int:
    fitting = [index for index, cost in enumerate(needed) if cost <= budget]
    if not fitting:
        raise UserError(f"budget={budget:g}: too small for the first exit, which needs {needed[0]:.4g} {unit}")
    return fitting[-1]
