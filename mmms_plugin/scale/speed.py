"""Speed and multiply-adds of PSConv, the plain convolution and the published form, in one run.

Each figure is the median over rounds. Within a round every candidate runs once, so that a slow moment of the machine
affects all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmms_plugin.backbones import PSResNet
from mmms_plugin.layers import PSConv2d
from mmms_plugin.report.tables import Table
from mmms_plugin.report.terminal import print_table

# The 3x3 layers of ResNet-50 and of ResNeXt-50 32x4d at 224 px, one of each stage: (channels, side, groups).
LAYER_SHAPES = [(64, 56, 1), (128, 28, 1), (256, 14, 1), (512, 7, 1), (128, 56, 32), (256, 28, 32), (512, 14, 32)]


@dataclass(frozen=True)
class Setting:
    """How a benchmark runs: device, dtype, NHWC or NCHW, pictures per batch, rounds, with or without backward pass."""

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    batch: int = 8
    rounds: int = 15
    backward: bool = False


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
        "plain": nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False),
        "dilated": nn.Conv2d(channels, channels, 3, padding=2, dilation=2, groups=groups, bias=False),
        "PSConv": ps(dilation_pattern=(2, 1, 4, 1)),
        "cyclic": ps(channel_order="cyclic"),
        "masked": ps(implementation="masked"),
        "published": PublishedPSConv(channels, groups),
    }


def backbone_candidates(depth: int, groups: int) -> dict[str, nn.Module]:
    base_width = 4 if groups > 1 else 64
    return {
        "plain": PSResNet(depth, groups, base_width, dilation_pattern=(1, 1, 1, 1)),
        "PSConv": PSResNet(depth, groups, base_width, dilation_pattern=(2, 1, 4, 1)),
    }


def measure(candidates: dict[str, nn.Module], x: Tensor, setting: Setting) -> dict[str, tuple[float, float]]:
    """Median milliseconds and forward multiply-adds (1e9 per batch) of every candidate, all on the same input."""
    form = torch.channels_last if setting.channels_last else torch.contiguous_format
    x = x.to(setting.device, setting.dtype, memory_format=form)
    models = {name: module.to(setting.device, setting.dtype) for name, module in candidates.items()}
    for module in models.values():
        module.to(memory_format=form)  # type: ignore[call-overload]
    times: dict[str, list[float]] = {name: [] for name in models}
    for round_ in range(setting.rounds + 2):
        for name, model in models.items():
            elapsed = _time(lambda model=model: _step(model, x, setting.backward), setting.device)  # type: ignore[misc]
            if round_ >= 2:  # the first two warm up
                times[name].append(elapsed * 1e3)
    return {name: (median(times[name]), _gmacs(model, x)) for name, model in models.items()}


def _step(model: nn.Module, x: Tensor, backward: bool) -> None:
    if not backward:
        with torch.no_grad():
            model(x)
        return
    y = model(x)
    (y if isinstance(y, Tensor) else y[-1]).sum().backward()


def _time(run: Callable[[], None], device: str) -> float:
    synchronize = (lambda: None) if device.startswith("cpu") else torch.accelerator.synchronize
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - start


def _gmacs(model: nn.Module, x: Tensor) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return counter.get_total_flops() / 2e9


def run_benchmark(what: str, setting: Setting) -> None:
    """Measure 'layers' or 'backbones' and print a table of times and ratios to the plain twin."""
    torch.manual_seed(0)
    if what == "layers":
        cases = [
            (f"{c} ch, {s} px, g {g}", lambda c=c, g=g: layer_candidates(c, g), (setting.batch, c, s, s))
            for c, s, g in LAYER_SHAPES
        ]
    else:
        cases = [
            (name, lambda d=d, g=g: backbone_candidates(d, g), (setting.batch, 3, 224, 224))
            for name, d, g in (("ResNet-18", 18, 1), ("ResNet-50", 50, 1), ("ResNeXt-50 32x4d", 50, 32))
        ]
    results = {
        label: measure(make(), torch.randn(shape), setting)
        for label, make, shape in track(cases, "measuring", console=Console(stderr=True), transient=True)
    }
    names = list(next(iter(results.values())))
    pass_ = "forward and backward" if setting.backward else "forward"
    title = f"median ms of {pass_}, batch {setting.batch}, {setting.device}, {setting.dtype}, " + (
        "NHWC" if setting.channels_last else "NCHW"
    )
    rows = []
    for label, result in results.items():
        base = result["plain"][0]
        cells = (f"{result[n][0] / base:.2f} x {result[n][1]:.2f} G" for n in names[1:])
        rows.append((label, f"{base:.2f} ms {result['plain'][1]:.2f} G", *cells))
    note = "plain in ms, the others as multiples of it; G = 1e9 multiply-adds forward"
    print_table(Table("speed", title, ("", *names), rows, note=note), Console())
