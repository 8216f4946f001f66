"""Elastic layers against loops in float64, at odd sizes too, and against the plain layers that they divide."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmms_plugin.layers import Downsample, Elastic, ElasticConv2d, ElasticPolicy, Upsample, elastic_bottleneck
from tests.oracles.elastic import average_down, bilinear_up, dilated_conv, nearest_up

SIZES = [(8, 8), (7, 10), (9, 5), (2, 3)]


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_resampling_at_odd_sizes(ratio, size):
    """Repeat the last row and column, average, interpolate, crop: pixel by pixel."""
    x = torch.randn(2, 3, *size)
    low = average_down(x, ratio)
    for layout in (torch.contiguous_format, torch.channels_last):  # two implementations
        torch.testing.assert_close(Downsample(ratio)(x.to(memory_format=layout)), low)
        torch.testing.assert_close(Upsample(ratio)(low.to(memory_format=layout), size), bilinear_up(low, ratio, size))
    torch.testing.assert_close(Upsample(ratio, "nearest")(low, size), nearest_up(low, ratio, size))
    torch.testing.assert_close(Downsample(ratio, "nearest", pool=False)(x), x[..., ::ratio, ::ratio])
    # trained filters start as average pooling and bilinear up-sampling, at the border too
    torch.testing.assert_close(Downsample(ratio, "trained", False, 3)(x), average_down(x, ratio))
    torch.testing.assert_close(Upsample(ratio, "trained", 3)(low, size), bilinear_up(low, ratio, size))
    if ratio == 2:  # where "bilinear downsampling is equivalent to average pooling" (section 4)
        torch.testing.assert_close(Downsample(2, "bilinear", pool=False)(x), average_down(x, 2))


@pytest.mark.parametrize("pool", [False, True])
def test_dilated_branches_run_at_full_resolution(pool):
    """The branch's kernels are dilated; with pooling, every other value is that of the low resolution."""
    x, conv = torch.randn(1, 3, 8, 12), nn.Conv2d(3, 4, 3, padding=1)
    y = Elastic({"low": conv}, [2], "dilated", pool)(x)
    filtered = x
    if pool:
        padded = F.pad(x, (0, 1, 0, 1), mode="replicate")
        filtered = torch.stack([padded[..., i : i + 8, j : j + 12] for i in (0, 1) for j in (0, 1)]).mean(0)
    torch.testing.assert_close(y, dilated_conv(filtered, conv.weight, conv.bias, 2))
    if pool:
        torch.testing.assert_close(y[..., ::2, ::2], conv(F.avg_pool2d(x, 2)))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_the_wrapper_is_equation_3(method, size):
    high, low = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
    x = torch.randn(2, 3, *size)
    up = bilinear_up if method == "bilinear" else nearest_up
    expected = high(x) + up(low(average_down(x, 2)), 2, size)
    torch.testing.assert_close(Elastic(dict(high=high, low=low), (1, 2), method)(x), expected)


@pytest.mark.parametrize(("groups", "shares"), [(1, (0.5, 0.5)), (1, (0.25, 0.75)), (4, (0.75, 0.25)), (4, (0.5, 0.5))])
def test_conv_divides_the_plain_weight(groups, shares):
    plain = nn.Conv2d(8, 12, 3, padding=1, groups=groups)
    layer = ElasticConv2d(8, 12, 3, padding=1, groups=groups, shares=shares)
    layer.load_state_dict(plain.state_dict())
    x, cut = torch.randn(2, 8, 7, 10), round(8 * shares[0])
    masked = [x.clone(), average_down(x, 2)]
    masked[0][:, cut:], masked[1][:, :cut] = 0, 0
    convolved = [F.conv2d(m, plain.weight, padding=1, groups=groups) for m in masked]
    expected = convolved[0] + bilinear_up(convolved[1], 2, (7, 10)) + plain.bias.view(-1, 1, 1)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize(
    "options", [dict(shares=(1.0, 0.0)), dict(stride=2), dict(ratios=(1,), shares=(1.0,))], ids=str
)
def test_all_at_full_resolution_or_strided_is_the_plain_layer(options):
    plain = nn.Conv2d(8, 12, 3, options.get("stride", 1), padding=1, groups=2)
    layer = ElasticConv2d(8, 12, 3, padding=1, groups=2, **options)
    layer.load_state_dict(plain.state_dict())
    x = torch.randn(2, 8, 7, 10)
    torch.testing.assert_close(layer(x), plain(x))


@pytest.mark.parametrize(
    ("shares", "expected"),
    [((0.5, 0.5), (16, 16)), ((0.75, 0.25), (24, 8)), ((0.25, 0.75), (8, 24)), ((1, 0), (32,)),
     ((1 / 3,) * 3, (11, 10, 11))],
)  # fmt: skip
def test_branching_rates_divide_the_groups_of_a_bottleneck(shares, expected):
    policy = ElasticPolicy((1, 2, 4)[: len(shares)], shares)
    paths = elastic_bottleneck(policy, 64, 128, 256, groups=32)
    branches = [m for n, m in paths.named_children() if n not in ("down", "up")]
    assert tuple(branch.conv2.groups for branch in branches) == expected
    assert sum(branch.conv2.weight.numel() for branch in branches) == 128 * 4 * 9
    assert paths(torch.randn(2, 64, 5, 6)).shape == (2, 256, 5, 6)


@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("method", ["bilinear", "nearest", "trained", "dilated"])
def test_every_parameter_of_every_method_learns(method, pool):
    layer = elastic_bottleneck(ElasticPolicy((1, 2, 3), (0.5, 0.25, 0.25), method, pool), 4, 8, 6, groups=4)
    layer(torch.randn(2, 4, 7, 5)).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in layer.parameters())
    trained = [n for n, _ in layer.named_parameters() if n.startswith(("down.", "up."))]
    assert len(trained) == (0 if method != "trained" else 2 if pool else 4)


def bad_size(layer: nn.Module) -> Tensor:
    return layer(torch.randn(1, 8, 3, 9))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ElasticPolicy((1, 2), (0.5, 0.6)), r"shares=\(0.5, 0.6\): allowed are 2 numbers >= 0 that sum to 1"),
        (lambda: ElasticPolicy((1, 2), (1.5, -0.5)), r"shares=\(1.5, -0.5\): allowed are 2 numbers"),
        (lambda: ElasticPolicy((1, 2), (1.0,)), r"shares=\(1.0,\): allowed are 2 numbers"),
        (lambda: ElasticPolicy((1, 2), (math.nan, 0.5)), r"shares=\(nan, 0.5\): allowed are 2 numbers"),
        (lambda: ElasticPolicy((1, 2), 0.5), "shares=0.5: allowed are 2 numbers"),
        (lambda: ElasticPolicy((1, 2), ("half", 0.5)), r"shares=\('half', 0.5\): allowed are 2 numbers"),
        (lambda: ElasticPolicy((1, 2), (0.5, 0.50001)), r"shares=\(0.5, 0.50001\): allowed are 2 numbers"),
        (lambda: ElasticPolicy((1, True), (0.5, 0.5)), r"ratios=\(1, True\): allowed are integers >= 1"),
        (lambda: Downsample(0), r"ratios=\(0,\): allowed are integers >= 1"),
        (lambda: Upsample(0), r"ratios=\(0,\): allowed are integers >= 1"),
        (lambda: Downsample(2, "cubic"), "method='cubic': allowed are"),
        (lambda: Upsample(2, "cubic"), "method='cubic': allowed are"),
        (lambda: Upsample(2, "trained"), "channels=None: method='trained' needs"),
        (lambda: Elastic({"a": nn.Identity()}, (0,)), r"ratios=\(0,\): allowed are integers >= 1"),
        (lambda: Elastic({"a": nn.Identity(), "b": nn.Identity()}, (1,)), r"ratios=\(1,\): allowed are 2 integers"),
        (lambda: elastic_bottleneck(ElasticPolicy(), 8, 0, 8, groups=1), "groups=1: must divide the width .* 0"),
        (lambda: elastic_bottleneck(ElasticPolicy(), 8, 4, 8, groups=1), r"groups=1: must be at least 2, one for each"),
        (lambda: ElasticConv2d(1, 8, 3, padding=1), "in_channels=1: must be at least 2, one for each branch of shares"),
        (lambda: ElasticConv2d(8, 8, 3, padding=(1, 0)), r"padding=\(1, 0\): must be \(1.0, 1.0\)"),
        (lambda: ElasticConv2d(8, 8, 3, padding=(0, 1)), r"padding=\(0, 1\): must be \(1.0, 1.0\)"),
        (lambda: ElasticConv2d(8, 8, (3, 5), padding=1, dilation=(2, 1)), r"must be \(2.0, 2.0\), which keeps"),
        (lambda: ElasticPolicy(2, (0.5, 0.5)), "ratios=2: allowed are integers >= 1, at least one"),
        (lambda: ElasticConv2d(8, 8, 3, padding=1, ratios=2), "ratios=2: allowed are integers >= 1"),
        (lambda: elastic_bottleneck(ElasticPolicy(), 8, 8, 8, groups=0), "groups=0: must divide"),
        (lambda: ElasticPolicy((1, 0), (0.5, 0.5)), r"ratios=\(1, 0\): allowed are integers >= 1"),
        (lambda: ElasticPolicy((1, 1.5), (0.5, 0.5)), r"ratios=\(1, 1.5\): allowed are integers >= 1"),
        (lambda: ElasticPolicy(method="cubic"), "method='cubic': allowed are 'bilinear', 'nearest'"),
        (lambda: ElasticPolicy((), ()), r"ratios=\(\): allowed are integers >= 1, at least one"),
        (lambda: Elastic({"a": nn.Identity()}, (1, 2)), r"ratios=\(1, 2\): allowed are 1 integers"),
        (lambda: Elastic({"a": nn.Identity()}, (2,), "trained"), "channels=None: method='trained' needs"),
        (lambda: ElasticConv2d(8, 8, 3), r"padding=\(0, 0\): must be \(1.0, 1.0\), which keeps the size"),
        (lambda: ElasticConv2d(8, 8, 3, padding=1, shares=(0.99, 0.01)), "its branch gets none of in_channels=8"),
        (lambda: elastic_bottleneck(ElasticPolicy(), 8, 10, 8, groups=4), "groups=4: must divide the width of .* 10"),
        (lambda: bad_size(ElasticConv2d(8, 8, 3, padding=1, ratios=(1, 4))), "map of 3 x 9 is too small: .* ratio, 4"),
        (lambda: bad_size(Elastic({"a": nn.Identity(), "b": nn.Identity()}, (1, 4))), "map of 3 x 9 .* ratio, 4"),
    ],
)  # fmt: skip
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_numbers_at_their_limits_are_allowed():
    """Shares that add up within a millionth, a channel for each branch, a map of the ratio's size, any kernel."""
    assert ElasticPolicy((1, 2), (0.5, 0.5 + 9e-7)).divide(2, "channels") == [(1, 1), (2, 1)]
    assert ElasticPolicy((1, 2, 4), (0.5, 0, 0.5)).divide(8, "channels") == [(1, 4), (4, 4)]
    layer = ElasticConv2d(2, 4, (3, 1), padding=(2, 0), dilation=(2, 1), ratios=(1, 3))
    assert layer(torch.randn(1, 2, 3, 9)).shape == (1, 4, 3, 9)
    assert Elastic({"a": nn.Identity()}, (3,))(torch.randn(1, 2, 3, 9)).shape == (1, 2, 3, 9)
    same = ElasticConv2d(4, 4, 2, padding="same")  # one pixel at the bottom and right
    assert same(torch.randn(2, 4, 6, 7)).shape == (2, 4, 6, 7)
    strided = ElasticConv2d(4, 4, 3, stride=(1, 2))  # is the plain layer, so any padding will do
    assert not strided.down
    assert strided(torch.randn(4, 8, 9)).shape == (4, 6, 4)


def test_a_single_map_dtypes_and_what_is_printed():
    layer = ElasticConv2d(4, 4, 3, padding=1, groups=2, method="trained", pool=False, dtype=torch.float32)
    x = torch.randn(2, 4, 6, 7, dtype=torch.float32)
    assert {p.dtype for p in layer.parameters()} == {torch.float32}
    torch.testing.assert_close(layer(x[0]), layer(x)[0])
    half = ElasticConv2d(4, 4, 3, padding=1, bias=False)
    half.load_state_dict(dict(weight=layer.weight.detach().repeat(1, 2, 1, 1)))
    assert half.to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16
    assert "ratios=(1, 2), shares=(0.5, 0.5)" in repr(layer)
    assert "Downsample(2, method='trained', pool=False)" in repr(layer)
    assert "Upsample(2, method='trained')" in repr(layer)


def test_a_layer_with_strided_branches_keeps_their_size():
    """Where a branch has a ratio of 1, its map gives the size of the sum."""
    high, low = nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Conv2d(2, 3, 3, stride=2, padding=1)
    x = torch.randn(1, 2, 9, 12)
    expected = high(x) + bilinear_up(low(average_down(x, 2)), 2, (5, 6))
    torch.testing.assert_close(Elastic(dict(low=low, high=high), (2, 1))(x), expected)


def test_cost_is_that_of_table_1():
    """Multiply-adds: (n / r)^2 c k^2 / b summed over the branches."""
    from mmms_plugin.scale.flops import count

    n, c, k = 12, 16, 3
    for ratios, shares in (((1, 2), (0.5, 0.5)), ((1, 2, 4), (0.5, 0.25, 0.25)), ((2,), (1.0,))):
        layer = ElasticConv2d(c, c, k, padding=1, bias=False, ratios=ratios, shares=shares)
        expected = sum((n / r) ** 2 * c * c * k * k * b for r, b in zip(ratios, shares, strict=True))
        assert math.isclose(count(layer, torch.randn(1, c, n, n)).macs, expected)
