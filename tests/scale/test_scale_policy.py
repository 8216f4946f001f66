"""Scale policy scores and dilation shares against what they are defined as, computed step by step."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, conv2d

from mmms_plugin.backbones.base import run_block
from mmms_plugin.backbones.elastic_resnext import ElasticResNeXt
from mmms_plugin.layers import Elastic, ElasticPolicy, elastic_bottleneck
from mmms_plugin.layers.elastic import ElasticConv2d
from mmms_plugin.layers.ps_conv import PSConv2d, PublishedPSConv2d
from mmms_plugin.layers.ps_conv_variants import DepthwisePSConv2d, DynamicPSConv2d
from mmms_plugin.scale.policy.dilations import dilation_shares
from mmms_plugin.scale.policy.meter import PolicyMeter
from mmms_plugin.scale.policy.table import (
    Row,
    Table,
    by_class,
    by_size,
    compare_answers,
    embed,
    rows_of,
    size_correlations,
    write_csv,
    write_parquet,
)
from tests.without_float64 import OnMps


class Blocks(nn.Module):
    """Two Elastic bottlenecks, the second of which has no branch of lower resolution."""

    def __init__(self, policy: ElasticPolicy, with_cp: bool = False) -> None:
        super().__init__()
        self.paths = elastic_bottleneck(policy, 4, 16, 4, groups=8)
        self.full = elastic_bottleneck(policy, 4, 16, 4, groups=8, lower=False)
        self.with_cp = with_cp

    def forward(self, x):
        return self.full(run_block(self, self.paths, x))


def by_hand(paths, x):
    """A_high - A_low for one picture at a time, branch by branch."""
    scores = []
    for one in x.split(1):
        means = {}
        for name, ratio in paths.ratios.items():
            y = paths.down[name](one) if ratio > 1 else one
            for layer in list(paths.get_submodule(name).children())[:6]:
                y = layer(y)
            means[ratio] = y.double().mean()
        scores.append(means[1] - means[2])
    return torch.stack(scores)


@pytest.mark.parametrize("method", ["bilinear", "dilated"])
@pytest.mark.parametrize("with_cp", [False, True])
def test_scores_are_those_of_the_definition_and_the_model_stays_as_it_is(method, with_cp):
    torch.manual_seed(0)
    model = Blocks(ElasticPolicy(method=method), with_cp).eval()
    x = torch.randn(3, 4, 9, 11)
    plain = model(x)
    meter = PolicyMeter(model)
    assert meter.blocks == ("paths",)
    with meter:
        model(x).sum().backward()
        scores = meter.take()
        model(x[:2]).sum().backward()  # checkpointed blocks run again, after which the next batch must be right
        model(x[:1])
        assert meter.take().shape == (1, 1)
        with pytest.raises(RuntimeError, match="block paths has not run"):
            meter.take()
    torch.testing.assert_close(scores[:, 0], by_hand(model.paths, x), atol=1e-6, rtol=1e-5)
    assert torch.equal(model(x), plain)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("method", ["bilinear", "dilated"])
@pytest.mark.parametrize("groups", [1, 4])
def test_score_of_an_elastic_layer(groups, method):
    """A of the low branch is taken before its map is brought back to full resolution, as in whole Elastic blocks."""
    torch.manual_seed(0)
    layer = ElasticConv2d(8, 8, 3, padding=1, groups=groups, method=method, pool=method == "bilinear")
    x = torch.randn(2, 8, 8, 8)
    with torch.no_grad(), PolicyMeter(nn.Sequential(layer)) as meter:
        layer(x)
        scores = meter.take()[:, 0]
        silent = ElasticConv2d(8, 8, 3, padding=1, groups=groups, method=method, pool=method == "bilinear")
        silent.load_state_dict(layer.state_dict())
        low = (slice(None), slice(4, None)) if groups == 1 else (slice(4, None),)
        silent.weight[low] = 0  # what is left is the branch of full resolution, and the bias
        high = (silent(x) - layer.bias.view(1, -1, 1, 1))[:, : 8 if groups == 1 else 4]
        part = layer.weight[low]
        if method == "bilinear":
            rest = conv2d(layer.down["1"](x[:, 4:]), part, padding=1, groups=1 if groups == 1 else 2)
        else:  # the same as a convolution of dilation 2: each of its phases is a map of low resolution
            rest = conv2d(x[:, 4:], part, padding=2, dilation=2, groups=1 if groups == 1 else 2)
    expected = high.clamp(min=0).mean((1, 2, 3)) - rest.clamp(min=0).mean((1, 2, 3))
    torch.testing.assert_close(scores.float(), expected, atol=1e-6, rtol=1e-5)


def test_blocks_with_a_branch_at_full_resolution_are_measured_by_their_names():
    def branch():
        return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())

    model = nn.Module()
    model.backbone = nn.ModuleDict(
        dict(
            both=nn.ModuleDict(dict(paths=Elastic(dict(a=branch(), b=branch()), (1, 2)))),
            low=Elastic(dict(a=branch(), b=branch()), (2, 4)),
            full=Elastic(dict(a=branch()), (1,)),
            conv=ElasticConv2d(4, 4, 3, padding=1),
            low_conv=ElasticConv2d(4, 4, 3, padding=1, ratios=(2,), shares=(1.0,)),
            plain=ElasticConv2d(4, 4, 3, padding=1, stride=2),
        )
    )
    assert PolicyMeter(model).blocks == ("both", "conv")


def test_score_of_three_branches_with_and_without_a_relu():
    """A_low is the mean over the low branches; without a ReLU the positive part counts; of 1x1 layers the ReLU."""
    torch.manual_seed(0)
    convs = [nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(3)]
    plain = Elastic(dict(zip(("high", "low", "low2"), convs, strict=True)), (1, 2, 4))
    point = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    mixed = Elastic(dict(high=nn.Sequential(nn.ReLU(), convs[0], nn.ReLU(), nn.BatchNorm2d(4)), low=point), (1, 2))
    layer = ElasticConv2d(4, 4, 3, padding=1, bias=False, ratios=(1, 2, 4), shares=(0.5, 0.25, 0.25))
    x = torch.randn(2, 4, 8, 8)
    with torch.no_grad(), PolicyMeter(nn.ModuleList([plain, mixed, layer]).eval()) as meter:
        plain(x), mixed(x), layer(x)
        scores = meter.take().float()
        high, low, low2 = (
            conv(avg_pool2d(x, r)).clamp(min=0).mean((1, 2, 3)) for conv, r in zip(convs, (1, 2, 4), strict=True)
        )
        torch.testing.assert_close(scores[:, 0], high - (low + low2) / 2)
        relu = [convs[0](x.clamp(min=0)).clamp(min=0), point[0](avg_pool2d(x, 2)).clamp(min=0)]
        torch.testing.assert_close(scores[:, 1], relu[0].mean((1, 2, 3)) - relu[1].mean((1, 2, 3)))
        parts = layer.weight.split([2, 1, 1], 1)
        maps = [conv2d(avg_pool2d(y, r), w, padding=1).clamp(min=0).mean((1, 2, 3))
                for y, w, r in zip(x.split([2, 1, 1], 1), parts, (1, 2, 4), strict=True)]  # fmt: skip
        torch.testing.assert_close(scores[:, 2], maps[0] - (maps[1] + maps[2]) / 2, atol=1e-6, rtol=1e-5)


def test_resnext50_has_the_17_blocks_of_figure_6():
    with torch.device("meta"):
        model = ElasticResNeXt(depth=50, elastic="full")
    assert len(PolicyMeter(model).blocks) == 17


@pytest.mark.parametrize("order", ["block", "cyclic"])
def test_shares_of_dilations(order):
    layer = PSConv2d(8, 12, 3, padding=1, groups=1, channel_order=order)
    layer.weight.data.copy_(layer.dilation_matrix()[:, :, None, None].expand_as(layer.weight))
    (found,) = dilation_shares(nn.Sequential(layer, PSConv2d(8, 8, 1), nn.Conv2d(8, 8, 3)))
    assert (found.name, found.kernels) == ("0", {1: 0.5, 2: 0.25, 4: 0.25})
    assert found.weight == pytest.approx({1: 0.25, 2: 0.25, 4: 0.5})  # 2 x 1, 1 x 2 and 1 x 4 of 8


def test_shares_of_the_other_forms():
    depthwise, dynamic = DepthwisePSConv2d(4, 4, 3, padding=2, dilation=2), DynamicPSConv2d(4, 4, 3, padding=1)
    for layer in (depthwise, dynamic):
        nn.init.ones_(layer.weight)
    first, second = dilation_shares(nn.ModuleList([depthwise, dynamic]))
    assert first.weight == first.kernels == {2: 0.5, 4: 0.25, 8: 0.25}
    large = float(dynamic.mask().detach().mean())
    assert second.weight.get(2, 0) == pytest.approx(large)
    assert second.weight == pytest.approx(second.kernels)


def test_shares_with_extra_kernels_other_kernel_forms_and_no_weight_at_all():
    published = PublishedPSConv2d(8, 8, (1, 3), padding=(0, 2), groups=2, dilation=(1, 2), extra_dilation1=True)
    nn.init.ones_(published.weight)
    nn.init.constant_(published.extra_weight, 0.5)
    dead = PSConv2d(4, 4, (3, 1), dilation_pattern=(1, 3))
    nn.init.zeros_(dead.weight)
    dynamic = DynamicPSConv2d(4, 4, 3, dilation=2, dilations=(1, 3))
    for logits in (dynamic.left_logits, dynamic.right_logits):
        nn.init.constant_(logits, 1.0)
    nn.init.constant_(dynamic.right_logits[0], -1.0)
    model = nn.Module()
    model.backbone = nn.ModuleDict(dict(a=published, b=dead, c=dynamic, d=PSConv2d(4, 4, 3, dilation_pattern=(2, 2))))
    first, second, third = dilation_shares(model)
    assert [layer.name for layer in (first, second, third)] == ["a", "b", "c"]  # d has a single dilation
    assert first.kernels == {2: 0.5, 4: 0.25, 8: 0.25}
    total = 32 + 16 * 0.5  # of its kernels, and the extra ones of dilation 1 at half the weight
    assert first.weight == pytest.approx({1: 8 / total, 2: 16 / total, 4: 8 / total, 8: 8 / total})
    assert second.weight == {1: 0, 3: 0}
    assert third.kernels == {2: 0.5, 6: 0.5}


def test_scores_and_shares_where_the_device_has_no_float64():
    torch.manual_seed(0)
    model, x = Blocks(ElasticPolicy()).eval(), torch.randn(2, 4, 8, 8)
    with torch.no_grad(), PolicyMeter(model) as meter:
        model(x)
        expected = meter.take()
        model(x.as_subclass(OnMps))
        assert torch.equal(meter.take(), expected)
    layers = nn.ModuleList([PSConv2d(8, 8, 3, padding=1), PublishedPSConv2d(8, 8, 3, padding=1, groups=2)])
    expected = dilation_shares(layers)
    for layer in layers:
        for name, parameter in list(layer.named_parameters()):
            setattr(layer, name, nn.Parameter(parameter.detach().as_subclass(OnMps)))
    assert dilation_shares(layers) == expected


def test_answers_of_two_networks():
    def table(rights):
        rows = [Row(str(i), (), (f"c{i % 2}",), (20.0 * (i + 1),), "", right) for i, right in enumerate(rights)]
        return Table("none", (), rows)

    first, second = table([True, True, False, False, None]), table([True, False, True, False, True])
    found = {one.name: one.counts for one in compare_answers(first, second)}
    assert found["all"] == (1, 1, 1, 1)
    assert (found["small"], found["medium"]) == ((1, 0, 0, 0), (0, 1, 1, 1))
    assert (found["class c0"], found["class c1"]) == ((1, 0, 1, 0), (0, 1, 0, 1))
    assert "large" not in found  # its answer is not known


def test_groups_begin_at_coco_s_sizes_and_pictures_of_one_table_alone_do_not_count():
    def row(name, sides, right):
        return Row(name, (), (), sides, "", right)

    first = [row("a", (31.9,), True), row("b", (32.0,), True), row("c", (96.0, 95.9, 500), True), row("d", (), True),
             row("e", (1.0,), True), row("f", (2.0,), None)]  # fmt: skip
    second = [*(row(one.name, (), False) for one in first if one.name != "e"), row("g", (1.0,), True)]
    found = compare_answers(Table("none", (), first), Table("none", (), second))
    assert [(one.name, one.counts) for one in found] == [
        ("all", (0, 4, 0, 0)), ("small", (0, 1, 0, 0)), ("medium", (0, 1, 0, 0)), ("large", (0, 1, 0, 0)),
    ]  # fmt: skip
    scored = [Row(one.name, (1.0,), (), one.sides) for one in first]
    sizes = by_size(Table("scale policy", ("one",), scored))
    assert [(group.name, group.pictures) for group in sizes] == [("small", 3), ("medium", 1), ("large", 1)]


def test_correlations_at_their_limits():
    """Three pictures are enough; a column or a side that is the same everywhere has 0; a side of 0 is no error."""
    rows = [Row(str(i), (float(i), 1.0), (), sides) for i, sides in enumerate([(2.0,), (4.0, 8.0, 1.0), (8.0,), ()])]
    assert size_correlations(Table("scale policy", ("one", "two"), rows)) == pytest.approx([1, 0])
    assert size_correlations(Table("scale policy", ("one", "two"), rows[1:])) is None
    same = [Row(str(i), (float(i),), (), (5.0,)) for i in range(3)]
    assert size_correlations(Table("scale policy", ("one",), same)) == [0]
    nothing = [Row(str(i), (float(-i),), (), (side,)) for i, side in enumerate((0.0, 1e-3, 1.0))]
    logs = np.log2([1e-3, 1e-3, 1.0])
    expected = np.corrcoef(logs, [0, -1, -2])[0, 1]
    assert size_correlations(Table("scale policy", ("one",), nothing)) == pytest.approx([expected])
    groups = by_class(
        Table("scale policy", ("one", "two"), [Row("p", (3.0, 1.0), ("x", "y")), Row("q", (1, 0), ("y",))])
    )
    assert [(group.name, group.pictures, group.score, group.blocks) for group in groups] == [
        ("x", 1, 2.0, (3.0, 1.0)), ("y", 2, 1.25, (2.0, 0.5)),
    ]  # fmt: skip


def test_averages_maps_and_correlations():
    rows = [Row(f"p{i}", (float(i), -float(i)), (("a", "b")[i % 2],), (2.0**i,)) for i in range(6)]
    table = Table("scale policy", ("one", "two"), rows)
    assert [(g.name, g.pictures, g.blocks) for g in by_class(table)] == [("a", 3, (2.0, -2.0)), ("b", 3, (3.0, -3.0))]
    assert size_correlations(table) == pytest.approx([1, -1])
    assert [(g.name, g.pictures) for g in by_size(table)] == [("small", 5), ("medium", 1)]
    assert size_correlations(Table("scale policy", ("one", "two"), rows[:2])) is None


def test_a_batch_that_failed_leaves_nothing_behind(monkeypatch):
    """A picture that is too small for the network is skipped; the next one's score is its own."""
    layer, x = ElasticConv2d(8, 8, 3, padding=1), torch.randn(1, 8, 8, 8)

    def failing(terms):
        raise ValueError("too small")

    with torch.no_grad(), PolicyMeter(nn.Sequential(layer)) as meter:
        layer(x)
        expected = meter.take()
        with monkeypatch.context() as patch:
            patch.setattr("mmms_plugin.layers.elastic.sum_terms", failing)
            with pytest.raises(ValueError, match="too small"):
                layer(torch.randn(1, 8, 8, 8))
        layer(x)
        assert torch.equal(meter.take(), expected)


@pytest.mark.parametrize("columns", [1, 3])
def test_pictures_of_one_policy_lie_together_on_the_map(columns):
    noise = np.random.default_rng(0).normal(size=(24, columns))
    rows = [Row(str(i), tuple(noise[i] * 0.05 + 5 * (i % 2))) for i in range(24)]
    points, method = embed(Table("scale policy", ("one", "two", "three")[:columns], rows))
    far = np.linalg.norm(points[:, None] - points, axis=2) + np.diag([np.inf] * 24)
    assert all(far[i].argmin() % 2 == i % 2 for i in range(24))
    assert method == "t-SNE, perplexity 7.67"
    again, _ = embed(Table("scale policy", ("one", "two", "three")[:columns], rows))
    assert np.array_equal(points, again)
    flat = [Row(str(i), (2.0, float(i))) for i in range(4)]  # a column without spread is not divided by it
    points, method = embed(Table("scale policy", ("one", "two"), flat))
    assert np.isfinite(points).all()
    assert (points.shape, method) == ((4, 2), "t-SNE, perplexity 1")


def test_a_table_survives_its_file_and_damaged_rows_do_not(tmp_path):
    rows = [Row("=cmd", (0.5, 1.0), ("x",), (3.0,), "y", False), Row("b", (0.1, 0.2))]
    table = Table("exits", ("exit 1", "exit 2"), rows, 0.4)
    content = json.loads(json.dumps(table.to_json()))["rows"]
    assert rows_of(content, 2) == rows
    broken = [None, {}, {**content[0], "values": [1]}, {**content[0], "values": ["x", 1]}, content[1]]
    assert rows_of(broken, 2) == rows[1:]
    assert rows_of({"a": 1}, 2) == []
    assert table.exits.tolist() == [0, 1]
    write_csv(table, tmp_path / "t.csv")
    assert b"\r" not in (tmp_path / "t.csv").read_bytes()
    for value in (float("nan"), float("inf")):
        assert rows_of([{**content[0], "values": [1, value]}], 2) == []
    assert rows_of([{**content[0], "right": "yes"}], 2)[0].right is None
    assert [rows_of([{k: v for k, v in content[0].items() if k != key}], 2) for key in content[0]] == [[]] * 6
    lines = list(csv.reader((tmp_path / "t.csv").open(newline="", encoding="utf-8")))
    assert lines[1][0] == "'=cmd"  # no formula in a spreadsheet
    assert [line[lines[0].index("exit")] for line in lines[1:]] == ["1", "2"]


def test_what_is_written_of_every_picture(tmp_path, monkeypatch):
    """Names first, then the numbers; unknown is empty; a text never begins as a formula."""
    rows = [
        Row("a", (0.5, 1.0), ("x", "y"), (3.0, 5.0), "x", True),
        Row("@b", (0.25, 0.0), (), (), "", None),
        *(Row(f"{sign}c", (0.0, 0.0)) for sign in "=+-\t\r"),
    ]
    write_csv(Table("scale policy", ("one", "two"), rows), tmp_path / "t.csv")
    lines = list(csv.reader((tmp_path / "t.csv").open(newline="", encoding="utf-8")))
    assert lines[0] == ["picture", "classes", "objects", "median_side", "predicted", "right", "score", "one", "two"]
    assert lines[1] == ["a", "x; y", "2", "4.0", "x", "True", "0.75", "0.5", "1.0"]
    assert lines[2] == ["'@b", "", "0", "", "", "", "0.125", "0.25", "0.0"]
    assert [line[0] for line in lines[3:]] == [f"'{sign}c" for sign in "=+-\t "]
    write_csv(Table("exits", ("one", "two"), rows[:2], 0.5), tmp_path / "t.csv")
    lines = list(csv.reader((tmp_path / "t.csv").open(newline="", encoding="utf-8")))
    assert lines[0][-3:] == ["exit", "one", "two"]
    assert [line[-3] for line in lines[1:]] == ["1", "2"]  # the threshold is enough; nobody reached: the last
    assert Row("none", ()).score == 0
    monkeypatch.setattr("mmms_plugin.scale.policy.table.find_spec", lambda name: None)
    assert not write_parquet(Table("scale policy", ("one", "two"), rows), tmp_path / "t.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
