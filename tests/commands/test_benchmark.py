"""``mmms benchmark``: what is timed, how often, and the figures of the tables, the figure and the page."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
from torch import nn

import mmms_plugin.scale.speed as module
from mmms_plugin.commands import main
from mmms_plugin.commands.benchmark import of_checkout
from mmms_plugin.inference.optimize import FoldedNorm
from mmms_plugin.report.tables import Table
from mmms_plugin.scale import growth
from mmms_plugin.scale.speed import TWINS, Setting, layer_candidates, measure, twins

# Of the 3x3 layers of ResNet-50 and ResNeXt-50 at 224 px: channels, side, groups
LAYERS = [(64, 56, 1), (128, 28, 1), (256, 14, 1), (512, 7, 1), (128, 56, 32), (256, 28, 32), (512, 14, 32)]


@pytest.fixture(autouse=True)
def memory_of_the_tests(monkeypatch):
    """Stays as it is for the tests that follow in this process."""
    monkeypatch.setattr(module, "keep_memory", lambda: None)


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
    times = itertools.chain(
        [9, 9, 9, 9], [0.1, 1, 0.5, 3, 0.3, 2], itertools.repeat(1)
    )  # two rounds of warm-up, then three
    monkeypatch.setattr(module, "seconds", lambda call: (call(), next(times))[1])
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
    return [re.sub("  +", "|", line) for line in printed.splitlines() if " ms " in line and "plain in ms" not in line]


def test_the_tables_have_every_layer_and_network(capsys, monkeypatch):
    seen = []

    def stand_in(candidates: dict[str, nn.Module], x: torch.Tensor, setting: Setting) -> dict:
        seen.append((candidates, tuple(x.shape)))
        return {name: (2.0 + 1.5 * i, 0.5 + i) for i, name in enumerate(candidates)}

    monkeypatch.setattr(module, "measure", stand_in)
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["benchmark", "layers", "--batch", "3"]) == 0
    printed = capsys.readouterr().out
    cells = "2.00 ms (0.50)|1.75 (1.50)|2.50 (2.50)|3.25 (3.50)|4.00 (4.50)|4.75 (5.50)"
    assert rows_of(printed) == [f"{c} ch, {s} px, g {g}|{cells}" for c, s, g in LAYERS]
    threads = f"threads: {torch.get_num_threads()}, "
    assert re.match(f"layers: forward, cpu, {threads}\\w+ time, float32, NCHW, batch 3\n", printed)
    for (candidates, shape), (channels, side, groups) in zip(seen, LAYERS, strict=True):
        assert shape == (3, channels, side, side)
        assert list(candidates) == ["plain", "dilated", "PSConv", "cyclic", "masked", "published"]
        assert (candidates["plain"].groups, candidates["plain"].padding) == (groups, (1, 1))
        x = torch.zeros(1, channels, 5, 5)
        assert all(module(x).shape == x.shape for module in candidates.values())
        weights = [sum(p.numel() for p in one.parameters()) for one in candidates.values()]
        assert weights[:5] == [9 * channels**2 // groups] * 5
    seen.clear()
    options = ["--backward", "--channels-last", "--dtype", "bfloat16", "--image-size", "64"]
    with torch.device("meta"):
        assert main(["benchmark", "backbones", *options]) == 0
    printed = capsys.readouterr().out
    assert rows_of(printed) == [f"{name}|2.00 ms (0.50)|1.75 (1.50)" for name in TWINS]
    assert re.match("backbones: forward and backward, cpu, .*, bfloat16, NHWC, batch 8, 64 px\n", printed)
    assert [shape for _, shape in seen] == [(8, 3, 64, 64)] * len(TWINS)


@pytest.mark.parametrize("name", TWINS)
def test_twins_differ_in_the_method_only(name):
    """Parameters are those of the plain network, except where the paper changes the number of blocks."""
    with torch.device("meta"):
        plain, multi_scale = twins(name).values()
    counts = [sum(p.numel() for p in network.parameters()) / 1e6 for network in (plain, multi_scale)]
    assert type(plain) is type(multi_scale)
    assert repr(plain) != repr(multi_scale)
    assert counts[1] == pytest.approx(counts[0], rel=0.02 if "+Elastic" not in name else 0.15)


def test_optimized_networks_are_timed_and_the_original_is_counted(monkeypatch):
    timed = []
    monkeypatch.setattr(module, "step", lambda model, x, backward: timed.append(model))
    network = module.MODELS.build(dict(type="mmms_plugin.PSResNet", depth=18, base_channels=8, stem_channels=8))
    x = torch.randn(1, 3, 32, 32)
    (_, counted), (_, plain) = (
        measure({"a": network}, x, Setting(rounds=1, optimize=optimize))["a"] for optimize in (True, False)
    )
    assert any(isinstance(part, FoldedNorm) for part in timed[0].modules())
    assert timed[-1] is network
    assert counted == plain > 0


def test_growth_measures_both_twins_at_every_size(monkeypatch, tmp_path):
    """With stand-ins for the clock; the memory is that of real processes, here of this one."""
    calls = []

    def stand_in(candidates: dict[str, nn.Module], x: torch.Tensor, setting: Setting, warm_up: int) -> dict:
        calls.append((list(candidates), tuple(x.shape), setting.batch))
        return {"plain": (10.0, 1.0), "multi-scale": (12.0, 1.0)}

    class Here:
        def __init__(self, count: int, maxtasksperchild: int) -> None:
            pass

        def __enter__(self) -> Here:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def apply(self, function, arguments):
            return function(*arguments)

    small = dict(type="mmms_plugin.PSResNet", depth=18, base_channels=8, stem_channels=8)
    monkeypatch.setitem(TWINS, "PS-ResNet-50", (small | {"dilation_pattern": (1, 1, 1, 1)}, small))
    monkeypatch.setattr(growth, "measure", stand_in)
    monkeypatch.setattr(growth, "get_context", lambda kind: type("Context", (), {"Pool": Here}))
    setting = Setting(rounds=1)
    rows = growth.measure_growth(setting, ["PS-ResNet-50"], [(32, 1), (64, 1), (32, 2)])
    assert calls == [(["plain", "multi-scale"], (n, 3, side, side), n) for side, n in ((32, 1), (64, 1), (32, 2))]
    assert all(100 < mebibytes < 100_000 for row in rows for mebibytes in row.mebibytes)
    table = growth.growth_table(rows, setting)
    assert [[str(cell) for cell in row[:6]] for row in table.rows] == [
        ["PS-ResNet-50", side, batch, "10", "12", "1.20"] for side, batch in (("32", "1"), ("64", "1"), ("32", "2"))
    ]
    monkeypatch.setattr(growth, "POINTS", ((32, 1), (64, 1), (32, 2)))
    (figure,) = growth.draw_growth(rows, tmp_path)
    assert figure.read_text(encoding="utf-8").startswith("<?xml")


def test_the_page_has_every_subject_with_its_command(monkeypatch, tmp_path, capsys):
    seen = []

    def stand_in(options) -> list[Table]:
        seen.append((options.what, options.backward, options.optimize, options.batch))
        return [Table(options.what, f"caption of {options.what}", ("", "figure"), [("row", 1.5)], form=".1f")]

    monkeypatch.setattr("mmms_plugin.commands.benchmark._tables", stand_in)
    assert main(["benchmark", "all", "--out", str(tmp_path / "missing")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert not seen
    assert main(["benchmark", "all", "--out", str(tmp_path), "--batch", "2"]) == 0
    page = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    assert re.findall("^## (.*)$", page, re.MULTILINE) == [
        "`mmms benchmark layers --batch 2`",
        "`mmms benchmark layers --batch 2 --backward`",
        "`mmms benchmark backbones --channels-last --batch 2 --optimize`",
        "`mmms benchmark backbones --channels-last --batch 2 --backward`",
        "`mmms benchmark growth --channels-last --optimize`",
        "`mmms benchmark early-exit`",
        "`mmms benchmark size-ap`",
    ]
    assert f"torch {torch.__version__}" in page
    assert page.count("| row | 1.5 |") == 7
    assert "benchmark_growth.svg" in page


@pytest.mark.parametrize(
    "arguments",
    [
        ["layers", "--optimize"],
        ["early-exit", "--out", "x"],
        ["growth", "--arch", "x"],
        ["all", "--seeds", "4"],
        ["size-ap", "--device", "cuda"],
    ],
)
def test_an_option_of_another_subject_is_refused(arguments, capsys):
    assert main(["benchmark", *arguments]) == 2
    assert f"{arguments[1]}: only for " in capsys.readouterr().err


def test_what_cannot_be_trained_is_not_timed_in_training(capsys):
    assert main(["benchmark", "backbones", "--optimize", "--backward"]) == 2
    assert "give one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "name", "call"),
    [
        (["size-ap"], "size_ap_speed.size_ap_speed", (5000, 3)),
        (["size-ap", "--images", "1", "--rounds", "1"], "size_ap_speed.size_ap_speed", (1, 1)),
        (["size-ap-coverage"], "size_ap_coverage.run_coverage", (500,)),
        (["size-ap-seeds"], "size_ap_seeds.run_seed_coverage", (300, 3)),
        (["size-ap-seeds", "--seeds", "2", "--rounds", "4"], "size_ap_seeds.run_seed_coverage", (4, 2)),
        (["early-exit"], "mmms_plugin.exits.savings.early_exit_speed", ("imagenet_step4", 64, 5)),
        (["layers"], f"{module.__name__}.speed", ("layers", Setting(rounds=15))),
        (["backbones", "--batch", "1"], f"{module.__name__}.speed", ("backbones", Setting(batch=1, rounds=7))),
    ],
)
def test_what_is_measured_and_how_often(arguments, name, call, monkeypatch):
    calls = []
    if name.startswith("size_ap"):
        of_checkout(name.split(".")[0])

    def stand_in(*given: object) -> Table | list[Table]:
        calls.append(given)
        table = Table("", "", ("",), [])
        return [table] if name.startswith("size_ap_speed") else table

    monkeypatch.setattr(name, stand_in)
    assert main(["benchmark", *arguments]) == 0
    assert calls == [call]


def test_an_installed_package_says_what_it_lacks(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("mmms_plugin.commands.benchmark.BENCHMARKS", tmp_path / "tools/benchmarks")
    assert main(["benchmark", "size-ap"]) == 2
    assert f"{tmp_path}/tools/benchmarks: no such folder" in "".join(capsys.readouterr().err.splitlines())
