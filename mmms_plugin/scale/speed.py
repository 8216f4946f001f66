"""Speed and multiply-adds of PSConv and of the multi-scale networks, beside their plain twins, in one run.

Each figure is the median over rounds. Within a round every candidate runs once, so that a slow moment of the machine
affects all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, TypeVar

import torch
from mmengine.registry import MODELS
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import mmms_plugin.backbones  # noqa: F401 - registers them
from mmms_plugin.inference import optimize_for_inference
from mmms_plugin.layers import PSConv2d
from mmms_plugin.processes import keep_memory
from mmms_plugin.report.tables import Table
from mmms_plugin.scale.clock import clock_name, seconds

# The 3x3 layers of ResNet-50 and of ResNeXt-50 32x4d at 224 px, one of each stage: (channels, side, groups).
LAYER_SHAPES = [(64, 56, 1), (128, 28, 1), (256, 14, 1), (512, 7, 1), (128, 56, 32), (256, 28, 32), (512, 14, 32)]
PS = {"type": "mmms_plugin.PSResNet", "depth": 50}
PSX = {**PS, "groups": 32, "base_width": 4}
ELASTIC = {"type": "mmms_plugin.ElasticResNeXt", "depth": 50}
DLA = {"type": "mmms_plugin.DLA", "arch": "60x"}
DENSENET = {"type": "mmms_plugin.ElasticDenseNet", "depth": 201}
ADAPTED = {"type": "mmms_plugin.ShapeAdaptorResNet", "depth": 50, "init_cfg": None}
ONE_SCALE = {"dilation_pattern": (1, 1, 1, 1)}
TWINS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # name: plain network, multi-scale network
    "PS-ResNet-50": (PS | ONE_SCALE, PS),
    "PS-ResNeXt-50": (PSX | ONE_SCALE, PSX),
    "ResNeXt-50+sElastic": (ELASTIC, ELASTIC | {"elastic": "simple"}),
    "ResNeXt-50+Elastic": (ELASTIC, ELASTIC | {"elastic": "full"}),
    "DLA-X60+Elastic": (DLA, DLA | {"elastic": True}),
    "DenseNet201+Elastic": (DENSENET, DENSENET | {"elastic": True}),
    "Shape Adaptor (AutoTL), ResNet-50": (ADAPTED | {"mode": "human"}, ADAPTED | {"mode": "autotl"}),
}
T = TypeVar("T", Tensor, nn.Module)
Case = tuple[str, Callable[[], dict[str, nn.Module]], tuple[int, ...]]  # name, candidates, shape of the input
PLAIN, MULTI_SCALE = "plain", "multi-scale"


@dataclass(frozen=True)
class Setting:
    """How a benchmark runs.

    Attributes:
        device: as torch names it.
        dtype: of weights and pictures.
        channels_last: NHWC maps and weights, not NCHW.
        batch: pictures at a time.
        side: of the pictures of backbones, px.
        rounds: measurements of each candidate.
        backward: forward and backward pass in training mode, not the forward pass in eval mode.
        optimize: networks as ``optimize_for_inference`` makes them, the plain ones too.
    """

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    batch: int = 8
    side: int = 224
    rounds: int = 15
    backward: bool = False
    optimize: bool = False

    def __str__(self) -> str:
        what = "forward and backward" if self.backward else "forward, optimized" if self.optimize else "forward"
        where = f"{self.device}, threads: {torch.get_num_threads()}, {clock_name()}"
        return f"{what}, {where}, {str(self.dtype).removeprefix('torch.')}, {'NHWC' if self.channels_last else 'NCHW'}"


class PublishedPSConv(nn.Module):
    """The arithmetic of the published code: a dense dilation-1 layer and grouped layers of dilation 2 and 4."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.dense = nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False)
        self.two = nn.Conv2d(channels, channels, 3, padding=2, dilation=2, groups=groups * 4, bias=False)
        self.four = nn.Conv2d(channels, channels, 3, padding=4, dilation=4, groups=groups * 4, bias=False)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        halves = x.unflatten(1, (self.groups, 2, -1))
        swapped = torch.stack((halves[:, :, 1], halves[:, :, 0]), 2).flatten(1, 3)
        return self.dense(x) + self.two(x) + self.four(swapped)


def layer_candidates(channels: int, groups: int) -> dict[str, nn.Module]:
    def ps(**options: object) -> nn.Module:
        return PSConv2d(channels, channels, 3, padding=1, groups=groups, bias=False, **options)  # type: ignore[arg-type]

    return {
        PLAIN: nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False),
        "dilated": nn.Conv2d(channels, channels, 3, padding=2, dilation=2, groups=groups, bias=False),
        "PSConv": ps(dilation_pattern=(2, 1, 4, 1)),
        "cyclic": ps(channel_order="cyclic"),
        "masked": ps(implementation="masked"),
        "published": PublishedPSConv(channels, groups),
    }


def twins(name: str) -> dict[str, nn.Module]:
    """The plain and the multi-scale network of one row of `TWINS`, from the same seed."""
    networks = {}
    for kind, config in zip((PLAIN, MULTI_SCALE), TWINS[name], strict=True):
        torch.manual_seed(0)
        networks[kind] = MODELS.build(dict(config))
    return networks


def measure(
    candidates: dict[str, nn.Module], x: Tensor, setting: Setting, warm_up: int = 2
) -> dict[str, tuple[float, float]]:
    """Median milliseconds and forward multiply-adds (1e9 per batch) of every candidate, all on the same input.

    Args:
        candidates: networks or layers by name.
        x: the batch.
        setting: how they run.
        warm_up: rounds before those that count.
    """
    keep_memory()
    x = prepared(x, setting)
    models = {name: prepared(module, setting) for name, module in candidates.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for round_ in range(warm_up + setting.rounds):
        for name, model in models.items():
            elapsed = seconds(partial(step, model, x, setting.backward))
            if round_ >= warm_up:
                times[name].append(elapsed * 1e3)
    return {name: (median(times[name]), _gmacs(module, x)) for name, module in candidates.items()}


def prepared(what: T, setting: Setting) -> T:
    """A network or a batch, as the setting wants it."""
    form = torch.channels_last if setting.channels_last else torch.contiguous_format
    what = what.to(setting.device, setting.dtype)  # type: ignore[assignment]
    what = what.to(memory_format=form)  # type: ignore[assignment, call-overload]
    if isinstance(what, nn.Module):
        what.train(setting.backward)
        return optimize_for_inference(what) if setting.optimize else what  # type: ignore[return-value]
    return what


def step(model: nn.Module, x: Tensor, backward: bool) -> None:
    """One pass of a batch."""
    if not backward:
        with torch.no_grad():
            model(x)
        return
    y = model(x)
    (y if isinstance(y, Tensor) else y[-1]).sum().backward()


def _gmacs(model: nn.Module, x: Tensor) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return counter.get_total_flops() / 2e9


def speed(what: str, setting: Setting) -> Table:
    """Times of 'layers' or 'backbones', with ratios to the plain twin."""
    torch.manual_seed(0)
    cases: list[Case]
    if what == "layers":
        cases = [
            (f"{c} ch, {s} px, g {g}", partial(layer_candidates, c, g), (setting.batch, c, s, s))
            for c, s, g in LAYER_SHAPES
        ]
        about = ""
    else:
        cases = [(name, partial(twins, name), (setting.batch, 3, setting.side, setting.side)) for name in TWINS]
        about = f", {setting.side} px"
    results = {
        label: measure(make(), torch.randn(shape), setting)
        for label, make, shape in track(cases, "measuring", console=Console(stderr=True), transient=True)
    }
    names = list(next(iter(results.values())))
    rows = []
    for label, result in results.items():
        base = result[PLAIN][0]
        cells = (f"{result[n][0] / base:.2f} ({result[n][1]:.2f})" for n in names[1:])
        rows.append((label, f"{base:.2f} ms ({result[PLAIN][1]:.2f})", *cells))
    note = "plain in ms, the others as multiples of it; in brackets multiply-adds forward, 1e9 per batch"
    return Table(what, f"{what}: {setting}, batch {setting.batch}{about}", ("", *names), rows, note=note)
