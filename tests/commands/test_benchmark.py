"""``mmms benchmark``: what is timed, how often, and the figures of the table."""

from __future__ import annotations

import itertools
import re
import time

import pytest
import torch
from torch import nn

import mmms_plugin.scale.speed as module
from mmms_plugin.backbones import PSResNet
from mmms_plugin.commands import main
from mmms_plugin.commands.benchmark import of_checkout
from mmms_plugin.scale.speed import Setting, layer_candidates, measure

# Of the 3x3 layers of ResNet-50 and ResNeXt-50 at 224 px: channels, side, groups
LAYERS = [(64, 56, 1), (128, 28, 1), (256, 14, 1), (512, 7, 1), (128, 56, 32), (256, 28, 32), (512, 14, 32)]


class Counted(nn.Module):
    """Notes in one list, in which order modules are called, and with what."""

    def __init__(self, name: str, calls: list, outputs: int = 1) -> None:
        super().__init__()
        self.name, self.calls, self.outputs = name, calls, outputs
        self.layer = nn.Conv2d(4, 6, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        self.calls.append((self.name, x, torch.is_grad_enabled()))
        y = self.layer(x)
        return y if self.outputs == 1 else (y.detach(), y)


@pytest.mark.parametrize("backward", [False, True])
def test_candidates_take_turns_and_the_median_of_all_rounds_but_two_counts(backward, monkeypatch):
    seconds = itertools.chain(
        [9, 9, 9, 9], [0.1, 1, 0.5, 3, 0.3, 2], itertools.repeat(1)
    )  # two rounds of warm-up, then three
    ticks = itertools.chain.from_iterable((0.0, next(seconds)) for _ in itertools.count())
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    calls: list = []
    setting = Setting(dtype=torch.float64, channels_last=True, rounds=3, backward=backward)
    modules = {"a": Counted("a", calls), "b": Counted("b", calls, outputs=2)}
    found = measure(modules, torch.zeros(2, 4, 5, 5), setting)
    gmac = 2 * 25 * 4 * 6 / 1e9
    assert found == {"a": (300.0, pytest.approx(gmac)), "b": (2000.0, pytest.approx(gmac))}
    assert [name for name, *_ in calls] == ["a", "b"] * 5 + ["a", "b"]  # once more to count
    assert all(grad is backward for _, _, grad in calls[:-2])
    assert all(x.dtype is torch.float64 and x.is_contiguous(memory_format=torch.channels_last) for _, x, _ in calls)
    assert [one.layer.weight.grad is not None for one in modules.values()] == [backward, backward]
    measure({"a": modules["a"]}, torch.zeros(2, 4, 5, 5), Setting(rounds=1))
    assert calls[-1][1].is_contiguous()
    assert calls[-1][1].dtype is torch.float32


def test_the_published_form_computes_what_psconv_does():
    """From the same weights: a dense layer, and grouped ones of dilation 2 and 4 (the second on swapped halves)."""
    torch.manual_seed(0)
    for groups in (1, 2):
        published, ours = (layer_candidates(16, groups)[name] for name in ("published", "masked"))
        x = torch.randn(1, 16, 9, 9)
        impulse = torch.zeros(1, 16, 9, 9)
        impulse[0, :, 4, 4] = 1
        reached = published(impulse).abs().sum((0, 1)) > 0
        assert {int(step) for step in (torch.nonzero(reached) - 4).abs().flatten()} == {0, 1, 2, 4}
        assert published(x).shape == ours(x).shape == x.shape
        assert (published.dense.groups, published.two.groups, published.four.groups) == (groups, 4 * groups, 4 * groups)
        assert not any(layer.bias is not None for layer in (published.dense, published.two, published.four))
        half = torch.zeros(1, 16, 9, 9)
        half[:, : 8 // groups] = x[:, : 8 // groups]  # the first half of the first group
        only_four = published(half) - published.dense(half) - published.two(half)
        assert only_four[:, : 8 // groups].abs().max() < 1e-5  # dilation 4 reads the other half
        assert only_four[:, 8 // groups : 16 // groups].abs().max() > 0.01


def rows_of(printed: str) -> list[str]:
    return [re.sub("  +", "|", line) for line in printed.splitlines() if " ms " in line and "median" not in line]


def test_the_tables_have_every_layer_and_network(capsys, monkeypatch):
    seen = []

    def stand_in(candidates: dict[str, nn.Module], x: torch.Tensor, setting: Setting) -> dict:
        seen.append((candidates, tuple(x.shape)))
        return {name: (2.0 + 1.5 * i, 0.5 + i) for i, name in enumerate(candidates)}

    monkeypatch.setattr(module, "measure", stand_in)
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["benchmark", "layers", "--batch", "3"]) == 0
    printed = capsys.readouterr().out
    cells = "2.00 ms 0.50 G|1.75 x 1.50 G|2.50 x 2.50 G|3.25 x 3.50 G|4.00 x 4.50 G|4.75 x 5.50 G"
    assert rows_of(printed) == [f"{c} ch, {s} px, g {g}|{cells}" for c, s, g in LAYERS]
    assert "median ms of forward, batch 3, cpu, torch.float32, NCHW" in printed
    for (candidates, shape), (channels, side, groups) in zip(seen, LAYERS, strict=True):
        assert shape == (3, channels, side, side)
        assert list(candidates) == ["plain", "dilated", "PSConv", "cyclic", "masked", "published"]
        assert (candidates["plain"].groups, candidates["plain"].padding) == (groups, (1, 1))
        x = torch.zeros(1, channels, 5, 5)
        assert all(module(x).shape == x.shape for module in candidates.values())
        weights = [sum(p.numel() for p in one.parameters()) for one in candidates.values()]
        assert weights[:5] == [9 * channels**2 // groups] * 5
    seen.clear()
    options = ["--backward", "--channels-last", "--dtype", "bfloat16"]
    with torch.device("meta"):
        assert main(["benchmark", "backbones", *options]) == 0
    printed = capsys.readouterr().out
    assert rows_of(printed) == [
        f"{name}|2.00 ms 0.50 G|1.75 x 1.50 G" for name in ("ResNet-18", "ResNet-50", "ResNeXt-50 32x4d")
    ]
    title = printed.splitlines()[0]
    assert title == "median ms of forward and backward, batch 8, cpu, torch.bfloat16, NHWC"
    assert [shape for _, shape in seen] == [(8, 3, 224, 224)] * 3
    for (candidates, _), millions in zip(seen, ("11.2", "23.5", "23.0"), strict=True):  # torchvision's, without fc
        plain, multi_scale = candidates.values()
        assert isinstance(plain, PSResNet)
        assert {f"{sum(p.numel() for p in one.parameters()) / 1e6:.1f}" for one in (plain, multi_scale)} == {millions}
        assert "(2, 1, 4, 1)" in repr(multi_scale)
        assert "(2, 1, 4, 1)" not in repr(plain)


@pytest.mark.parametrize(
    ("arguments", "name", "call"),
    [
        (["size-ap"], "size_ap_speed.run_size_ap_benchmark", (5000, 3)),
        (["size-ap", "--images", "1", "--rounds", "1"], "size_ap_speed.run_size_ap_benchmark", (1, 1)),
        (["size-ap-coverage"], "size_ap_coverage.run_coverage", (500,)),
        (["size-ap-seeds"], "size_ap_seeds.run_seed_coverage", (300, 3)),
        (["size-ap-seeds", "--seeds", "2", "--rounds", "4"], "size_ap_seeds.run_seed_coverage", (4, 2)),
        (["early-exit"], "mmms_plugin.exits.savings.run_early_exit_benchmark", ("imagenet_step4", 64, 5)),
        (["layers"], f"{module.__name__}.run_benchmark", ("layers", Setting(rounds=15))),
        (["backbones", "--batch", "1"], f"{module.__name__}.run_benchmark", ("backbones", Setting(batch=1, rounds=15))),
    ],
)
def test_what_is_measured_and_how_often(arguments, name, call, monkeypatch):
    calls = []
    if name.startswith("size_ap"):
        of_checkout(name.split(".")[0])
    monkeypatch.setattr(name, lambda *given: calls.append(given))
    assert main(["benchmark", *arguments]) == 0
    assert calls == [call]


def test_an_installed_package_says_what_it_lacks(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("mmms_plugin.commands.benchmark.BENCHMARKS", tmp_path / "tools/benchmarks")
    assert main(["benchmark", "size-ap"]) == 2
    assert f"{tmp_path}/tools/benchmarks: no such folder" in "".join(capsys.readouterr().err.splitlines())
