"""PSConv2d and its variants against equation (3) in float64 loops and against nn.Conv2d."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmms_plugin.layers import DepthwisePSConv2d, DynamicPSConv2d, PSConv2d, ps_conv
from mmms_plugin.layers.ps_conv import PublishedPSConv2d, published_mask
from mmms_plugin.scale.flops import kept_for_backward
from tests.oracles.poly_scale_conv import poly_scale_conv

PATTERNS = [(1, 2, 1, 4), (2, 1, 4, 1), (1, 2), (1, 2, 1, 1, 1, 1, 1, 1), (1, 2, 3), (1, 1, 1, 1), (3,), (1, 2, 4, 8)]


def part(channel: int, channels: int, t: int, order: str) -> int:
    return channel * t // channels if order == "block" else channel % t


def oracle_of(layer: PSConv2d, x: torch.Tensor) -> np.ndarray:
    t, order = len(layer.dilation_pattern), layer.channel_order
    outs, ins = layer.out_channels // layer.groups, layer.in_channels // layer.groups

    def dilation_of(c: int, k: int) -> int:
        c, k = part(c, outs, t, order), part(k, ins, t, order)
        return layer.dilation_pattern[{"both": (k - c) % t, "input": k, "output": c}[layer.axes]]

    y = poly_scale_conv(
        x.detach().numpy(),
        layer.weight.detach().numpy(),
        dilation_of,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
    )
    return y if layer.bias is None else y + layer.bias.detach().numpy()[None, :, None, None]


@pytest.mark.parametrize("order", ["block", "cyclic"])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_equation_3(pattern, order):
    torch.manual_seed(0)
    for groups, axes in itertools.product((1, 2), ("both", "input", "output")):
        sizes = (24 * groups, 24 * groups, 3)
        options = dict(padding=1, groups=groups, dilation_pattern=pattern, channel_order=order, axes=axes)
        layer = PSConv2d(*sizes, **options, dtype=torch.float64)
        masked = PSConv2d(*sizes, **options, implementation="masked", dtype=torch.float64)
        masked.load_state_dict(layer.state_dict())
        x = torch.randn(2, 24 * groups, 7, 5, dtype=torch.float64)
        expected = oracle_of(layer, x)
        assert (layer.implementation, masked.implementation) == ("grouped", "masked")
        for each in (layer, masked):
            np.testing.assert_allclose(each(x).detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        dict(in_channels=3, out_channels=8, kernel_size=7, stride=2, padding=3),
        dict(in_channels=6, out_channels=10, kernel_size=5, padding=2, dilation=2),
        dict(in_channels=8, out_channels=8, kernel_size=3, stride=(2, 1), padding=(2, 1), dilation=(2, 1), bias=False),
        dict(in_channels=8, out_channels=4, kernel_size=(3, 5), padding=0, groups=2),
        dict(in_channels=1, out_channels=1, kernel_size=3, padding=1),
        dict(in_channels=16, out_channels=16, kernel_size=3, padding=1, groups=16),
        dict(in_channels=8, out_channels=8, kernel_size=1, dilation=3),
        dict(in_channels=8, out_channels=8, kernel_size=(1, 3), padding=(0, 4), dilation=4),
    ],
    ids=str,
)
@pytest.mark.parametrize("order", ["block", "cyclic"])
def test_any_geometry(options, order):
    torch.manual_seed(0)
    layer = PSConv2d(**options, channel_order=order, dtype=torch.float64)
    x = torch.randn(2, layer.in_channels, 15, 13, dtype=torch.float64)
    y = layer(x)
    assert y.shape == nn.Conv2d(**options, dtype=torch.float64)(x).shape
    np.testing.assert_allclose(y.detach().numpy(), oracle_of(layer, x), atol=1e-12)
    torch.testing.assert_close(layer(x[0]), y[0])


@pytest.mark.parametrize("padding", ["same", "valid", 0, 3])
@pytest.mark.parametrize("kernel_size", [2, 3, 4])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_size_is_the_plain_layers(kernel_size, padding, mode):
    options = dict(kernel_size=kernel_size, padding=padding, padding_mode=mode, dilation=2)
    x, plain = torch.randn(1, 8, 24, 20), nn.Conv2d(8, 8, **options)
    assert PSConv2d(8, 8, **options)(x).shape == plain(x).shape
    one = PSConv2d(8, 8, dilation_pattern=(1, 1), **options)
    one.load_state_dict(plain.state_dict())
    torch.testing.assert_close(one(x), plain(x))


@pytest.mark.parametrize("kernel_size", [(2, 3), (4, 1)])
def test_an_odd_widening_puts_the_odd_pixel_to_the_bottom_and_right(kernel_size):
    layer = PSConv2d(4, 4, kernel_size, padding=1, dilation=(1, 3), dilation_pattern=(2,))
    x = torch.randn(1, 4, 9, 12)
    extra = [d * (k - 1) for d, k in zip((1, 3), kernel_size, strict=True)]
    top, left = (1 + e // 2 for e in extra)
    padded = nn.functional.pad(x, (left, 2 + extra[1] - left, top, 2 + extra[0] - top))
    torch.testing.assert_close(layer(x), nn.functional.conv2d(padded, layer.weight, layer.bias, dilation=(2, 6)))


def test_unit_pattern_is_conv2d_and_loads_its_checkpoint():
    plain = nn.Conv2d(6, 9, 3, stride=2, padding=1, groups=3)
    for order in ("block", "cyclic"):
        layer = PSConv2d(6, 9, 3, stride=2, padding=1, groups=3, dilation_pattern=(1, 1, 1, 1), channel_order=order)
        layer.load_state_dict(plain.state_dict())
        x = torch.randn(2, 6, 11, 8)
        assert torch.equal(layer(x), plain(x))
    assert list(PSConv2d(6, 9, 3, groups=3).state_dict()) == list(plain.state_dict())


def test_gradients():
    torch.manual_seed(0)
    layers = [
        PSConv2d(8, 4, 3, padding=1, dtype=torch.float64),
        PSConv2d(8, 8, 3, padding=1, groups=2, channel_order="cyclic", dtype=torch.float64),
        PSConv2d(3, 5, 3, padding=1, dtype=torch.float64),
        PSConv2d(8, 8, 3, padding=1, groups=2, extra_dilation1=True, dtype=torch.float64),
        DepthwisePSConv2d(4, 8, 3, padding=1, dtype=torch.float64),
    ]
    for layer in layers:
        x = torch.randn(1, layer.in_channels, 6, 5, dtype=torch.float64, requires_grad=True)
        names = [name for name, _ in layer.named_parameters()]

        def run(x, *values, layer=layer, names=names):
            return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

        assert torch.autograd.gradcheck(run, (x, *layer.parameters()), fast_mode=True)


@pytest.mark.parametrize("order", ["block", "cyclic"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("form", ["grouped", "few channels", "one channel"])
def test_each_form_has_the_outputs_and_gradients_of_torchs_own_operators(form, groups, order, monkeypatch):
    """Sums in place with a gradient of their own, and the forms for few channels on a CPU; also at odd sizes."""
    if form == "grouped":
        monkeypatch.setattr(ps_conv, "NARROW", 0)
        monkeypatch.setattr(ps_conv, "DENSE", 0)
    torch.manual_seed(0)
    patterns = [(1, 2, 1, 4), (1, 1, 2), (1, 2, 1, 1, 2, 1), (2, 3, 4, 6)]
    strides = [1, 2, (2, 1), 3]
    for pattern, axes, stride, kind in itertools.product(patterns, ("both", "input"), strides, (False, True)):
        channels = len(pattern) * groups * (1 if form == "one channel" else 2)  # in a part
        options = dict(dilation_pattern=pattern, axes=axes, channel_order=order, extra_dilation1=kind)
        if kind and (axes == "input" or 1 not in pattern):
            continue
        layer = PSConv2d(channels, channels, 3, stride, 1, groups=groups, dtype=torch.float64, **options)
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
        x = torch.randn(2, channels, 9, 12, dtype=torch.float64, requires_grad=True)
        wanted = (x, *layer.parameters())
        results = []
        for memory_format in (torch.contiguous_format, torch.channels_last):
            y = layer(x.contiguous(memory_format=memory_format))
            results.append((y, *torch.autograd.grad(y.sin().sum(), wanted)))
            with torch.no_grad():
                results.append((layer(x.contiguous(memory_format=memory_format)),))
        with monkeypatch.context() as patch:
            patch.setattr(ps_conv, "is_transformed", lambda: True)
            patch.setattr(ps_conv, "is_observed", lambda: True)
            y = layer(x)
            expected = (y, *torch.autograd.grad(y.sin().sum(), wanted))
        for result in results:
            for tensor, reference in zip(result, expected, strict=False):
                torch.testing.assert_close(tensor, reference, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("groups", [1, 2, 4])  # grouped, under a mask, depthwise
def test_mixed_precision_trains(groups):
    torch.manual_seed(0)
    layer = PSConv2d(16, 16, 3, padding=1, groups=groups)
    x = torch.randn(2, 16, 9, 9, requires_grad=True)
    expected = torch.autograd.grad(layer(x).square().sum(), (x, layer.weight))
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    for grad, reference in zip(torch.autograd.grad(y.float().square().sum(), (x, layer.weight)), expected, strict=True):
        assert grad.dtype == torch.float32
        torch.testing.assert_close(grad, reference, atol=0.02 * reference.abs().max().item(), rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("order", ["block", "cyclic"])
def test_transforms_and_forward_mode(order, groups):
    torch.manual_seed(0)
    layer = PSConv2d(16, 16, 3, padding=1, groups=groups, channel_order=order, dtype=torch.float64)
    x, tangent = torch.randn(2, 3, 16, 9, 9, dtype=torch.float64)
    expected = layer(x).detach()
    along = layer(tangent).detach() - layer.bias.detach().view(-1, 1, 1)  # linear in x
    for image in (x, x.to(memory_format=torch.channels_last)):
        torch.testing.assert_close(torch.func.vmap(layer)(image).detach(), expected)
        with torch.autograd.forward_ad.dual_level():
            dual = layer(torch.autograd.forward_ad.make_dual(image, tangent))
            torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(dual).tangent.detach(), along)


def test_second_and_per_sample_gradients():
    torch.manual_seed(0)
    for groups, axes in ((1, "both"), (2, "both"), (2, "input")):  # grouped, depthwise, under a mask
        layer = PSConv2d(8, 8, 3, 2, 1, groups=groups, bias=False, dtype=torch.float64, axes=axes)
        x = torch.randn(2, 8, 5, 6, dtype=torch.float64, requires_grad=True)

        def run(x, weight, layer=layer):
            return torch.func.functional_call(layer, dict(weight=weight), (x,))

        assert torch.autograd.gradgradcheck(run, (x, layer.weight), fast_mode=True)

        def loss(weight, image, run=run):
            return run(image[None], weight).square().sum()

        per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0))(layer.weight.detach(), x.detach())
        whole = torch.autograd.grad(run(x, layer.weight).square().sum(), layer.weight)[0]
        torch.testing.assert_close(per_sample.sum(0), whole)


@pytest.mark.parametrize(("channels", "groups"), [(128, 1), (128, 2), (128, 32), (64, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_no_more_memory_is_kept_for_the_backward_pass_than_by_the_plain_layer(channels, groups, stride):
    for device in ("cpu", "meta"):
        x = torch.empty(2, channels, 10, 10, device=device, requires_grad=True)
        options = dict(stride=stride, padding=1, groups=groups, bias=False, device=device)
        plain, layer = nn.Conv2d(channels, channels, 3, **options), PSConv2d(channels, channels, 3, **options)
        assert kept_for_backward(layer, x) == kept_for_backward(plain, x)


def test_multiply_adds_do_not_exceed_the_plain_layers():
    x = torch.randn(1, 64, 8, 8)

    def flops(layer):
        with FlopCounterMode(display=False) as counter:
            layer(x)
        return counter.get_total_flops()

    for groups, order, axes, pattern in itertools.product(
        (1, 2, 8), ("block", "cyclic"), ("both", "input", "output"), [(1, 2, 1, 4), (2, 1, 4, 1), (1, 2, 1, 1), (1, 2)]
    ):
        layer = PSConv2d(64, 128, 3, padding=1, groups=groups, dilation_pattern=pattern, channel_order=order, axes=axes)
        assert flops(layer) == flops(nn.Conv2d(64, 128, 3, padding=1, groups=groups))
    assert flops(DepthwisePSConv2d(64, 64, 3, padding=1)) == flops(nn.Conv2d(64, 64, 3, padding=1, groups=64))


def test_extra_dilation1_is_the_published_sum():
    """The published layer: masked dense dilation 1 + grouped dilation 2 + shifted grouped dilation 4, 32 groups."""
    torch.manual_seed(0)
    groups, channels = 32, 256
    layer = PSConv2d(
        channels, channels, 3, padding=1, groups=groups, bias=False, dilation_pattern=(2, 1, 4, 1), extra_dilation1=True
    )
    assert isinstance(layer, PublishedPSConv2d)
    nn.init.normal_(layer.extra_weight)
    own = layer.weight.detach().view(groups, 4, 2, 4, 2, 3, 3)
    extra = layer.extra_weight.detach().view(groups, 4, 2, 2, 2, 3, 3)
    dense, gw, shift = own.clone(), torch.empty(groups, 4, 2, 2, 3, 3), torch.empty(groups, 4, 2, 2, 3, 3)
    for o in range(4):
        gw[:, o], shift[:, o] = own[:, o, :, o], own[:, o, :, (o + 2) % 4]
        dense[:, o, :, o], dense[:, o, :, (o + 2) % 4] = extra[:, o, :, 0], extra[:, o, :, 1]
    keep = ~published_mask(groups)
    assert keep.view(groups, -1).any(1).sum() == 32  # kernels at dilation 1 by pattern are never masked
    assert [g for g in range(groups) if not keep[g, 0, 0]] == [0, 8, 16, 24]
    dense = dense * keep[:, :, None, :, None, None, None]
    x = torch.randn(1, channels, 9, 9)
    swapped = x.view(1, groups, 2, -1, 9, 9).flip(2).view_as(x)
    conv = nn.functional.conv2d
    expected = (
        conv(x, dense.reshape(channels, -1, 3, 3), padding=1, groups=groups)
        + conv(x, gw.reshape(channels, -1, 3, 3), padding=2, dilation=2, groups=groups * 4)
        + conv(swapped, shift.reshape(channels, -1, 3, 3), padding=4, dilation=4, groups=groups * 4)
    )
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
    layer(x).square().sum().backward()
    masked = layer.extra_weight.grad.view(groups, 4, 2, 2, 2, 3, 3)[[0, 8, 16, 24]]
    assert not masked.any()
    assert layer.extra_weight.grad.any()


def test_depthwise_gives_each_channel_one_dilation():
    x = torch.randn(1, 6, 12, 12)
    for order, multiples in (("block", [1, 1, 2, 1, 1, 4]), ("cyclic", [1, 2, 1, 4, 1, 2])):
        layer = DepthwisePSConv2d(6, 12, 3, padding=1, channel_order=order)
        for channel, d in enumerate(multiples):
            mine = slice(2 * channel, 2 * channel + 2)
            expected = nn.functional.conv2d(
                x[:, channel : channel + 1], layer.weight[mine], layer.bias[mine], padding=d, dilation=d
            )
            torch.testing.assert_close(layer(x)[:, mine], expected)


def test_depthwise_forms_at_any_geometry():
    torch.manual_seed(0)
    for options in (dict(stride=2, dilation=2, padding=2, padding_mode="reflect"), dict(bias=False, groups=8)):
        layer, x = DepthwisePSConv2d(8, 8, 3, **options), torch.randn(2, 8, 17, 13)
        y = layer(x)
        assert y.shape == nn.Conv2d(8, 8, 3, **{**options, "groups": 8})(x).shape
        torch.testing.assert_close(layer(x[0]), y[0])
        torch.testing.assert_close(layer(x.to(memory_format=torch.channels_last)), y)
    for groups in (1, 4):
        with pytest.raises(ValueError, match=f"groups={groups}: allowed are None, 8"):
            DepthwisePSConv2d(8, 8, 3, groups=groups)
    with pytest.raises(ValueError, match="channel_order='row': allowed are 'block', 'cyclic'"):
        DepthwisePSConv2d(8, 8, 3, channel_order="row")


def test_logits_of_the_mask_start_and_learn_between_minus_one_and_one():
    torch.manual_seed(0)
    layer = DynamicPSConv2d(60, 48, 1)
    logits = torch.cat([layer.left_logits.flatten(), layer.right_logits.flatten()]).detach()
    assert (layer.left_logits.shape, layer.right_logits.shape) == ((6, 6), (8, 10))  # as even as they divide
    assert -1 <= logits.min() < -0.8 < 0.8 < logits.max() <= 1
    with torch.no_grad():
        layer.left_logits.fill_(0.5)
        layer.right_logits.view(-1)[:6] = torch.tensor([0.0, -1.0, 1.0, -1.001, 1.001, -0.0])
    layer.mask().sum().backward()
    assert layer.mask().detach()[0, :6].tolist() == [1, 0, 1, 0, 1, 1]  # 0 counts as positive
    assert (layer.right_logits.grad.view(-1)[:6] != 0).tolist() == [True, True, True, False, False, True]
    x = torch.randn(2, 60, 5, 4)
    torch.testing.assert_close(layer(x[0]), layer(x)[0])
    assert "dilations=(1, 2)" in repr(layer)


@pytest.mark.parametrize("dilations", [(1,), (1, 2, 3), (0, 2), (2, 2), (2, 1)])
def test_two_ascending_dilations_are_wanted(dilations):
    with pytest.raises(ValueError, match=r"dilations=\(.*\): allowed are two integers, 1 <= small < large"):
        DynamicPSConv2d(8, 8, 3, dilations=dilations)


def test_dynamic_mask_chooses_between_two_dilations_and_learns():
    torch.manual_seed(0)
    layer = DynamicPSConv2d(8, 12, 3, padding=1, bias=False, dilations=(1, 3))
    mask = layer.mask()
    assert mask.shape == (12, 8)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    x = torch.randn(1, 8, 9, 9)
    chosen = mask.bool()
    expected = poly_scale_conv(
        x.numpy(), layer.weight.detach().numpy(), lambda c, k: 3 if chosen[c, k] else 1, padding=(1, 1)
    )
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-5)

    target = nn.functional.conv2d(x, layer.weight.detach(), padding=3, dilation=3)  # every kernel at the large dilation
    optimizer = torch.optim.Adam([layer.left_logits, layer.right_logits], lr=0.02)
    first = (layer(x) - target).square().mean().item()
    for _ in range(200):
        optimizer.zero_grad()
        loss = (layer(x) - target).square().mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * first
    assert layer.mask().mean() > 0.9


EVERY_LAYER = [
    lambda: PSConv2d(8, 8, 3, padding=1),
    lambda: PSConv2d(8, 16, 3, padding=1, stride=2, groups=2, channel_order="cyclic"),
    lambda: PSConv2d(3, 8, 3, padding=1),
    lambda: PSConv2d(16, 16, 3, padding=1, groups=2, extra_dilation1=True),
    lambda: PSConv2d(8, 8, 3, padding=1, groups=2, axes="output"),
    lambda: DepthwisePSConv2d(8, 8, 3, padding=1),
    lambda: DynamicPSConv2d(8, 8, 3, padding=1),
]


@pytest.mark.slow
@pytest.mark.parametrize("make", EVERY_LAYER)
def test_works_like_any_module(make):
    layer = make()
    x = torch.randn(2, layer.in_channels, 12, 10)
    y = layer(x)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), y)
    last = x.to(memory_format=torch.channels_last)
    out = copy.deepcopy(layer).to(memory_format=torch.channels_last)(last)
    torch.testing.assert_close(out, y, atol=1e-5, rtol=1e-5)
    assert out.is_contiguous(memory_format=torch.channels_last)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            half = layer(x)
        assert half.dtype == dtype
        torch.testing.assert_close(half.float(), y, atol=0.05, rtol=0.05)
    exported = torch.export.export(
        layer, (x,), dynamic_shapes=({0: torch.export.Dim("n"), 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)
    )
    wide = torch.randn(3, layer.in_channels, 14, 18)
    torch.testing.assert_close(exported.module()(wide), layer(wide))
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), y)
    compiled(x).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(dilation_pattern=()), r"dilation_pattern=\(\): allowed is a non-empty sequence of integers >= 1"),
        (dict(dilation_pattern=(1, 0)), "integers >= 1"),
        (dict(dilation_pattern=(1, True)), r"dilation_pattern=\(1, True\): allowed"),
        (dict(dilation_pattern=(1, 2.0)), r"dilation_pattern=\(1, 2.0\): allowed"),
        (dict(dilation_pattern=4), "dilation_pattern=4: allowed is a non-empty sequence"),
        (dict(dilation_pattern={1, 2}), r"dilation_pattern=\{1, 2\}: allowed is a non-empty sequence"),
        (dict(extra_dilation1=True, implementation="masked"), "extra_dilation1=True: allowed with"),
        (dict(extra_dilation1=True, dilation_pattern=(2, 2)), "extra_dilation1=True: allowed with"),
        (dict(extra_dilation1=True, dilation_pattern=(1, 2, 4)), "extra_dilation1=True: allowed with"),
        (dict(dilation_pattern="1214"), "dilation_pattern='1214'"),
        (dict(channel_order="blocks"), "channel_order='blocks': allowed are 'block', 'cyclic'"),
        (dict(axes="all"), "axes='all': allowed are 'both', 'input', 'output'"),
        (dict(implementation="fast"), "implementation='fast'"),
        (dict(extra_dilation1=True, axes="input"), "extra_dilation1=True: allowed with"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        PSConv2d(8, 8, 3, **options)


def test_what_is_printed_and_which_implementation_is_used():
    layers = [
        (dict(), "grouped", "dilation_pattern=(1, 2, 1, 4), channel_order='block'"),
        (dict(axes="input"), "grouped", "channel_order='block', axes='input'"),
        (dict(groups=2, extra_dilation1=True), "grouped", "channel_order='block', extra_dilation1=True"),
        (dict(dilation_pattern=(1, 2, 4)), "masked", "dilation_pattern=(1, 2, 4), channel_order='block'"),
        (dict(in_channels=12, groups=3, out_channels=6), "masked", "dilation_pattern=(1, 2, 1, 4)"),
    ]
    for options, implementation, text in layers:
        layer = PSConv2d(**{**dict(in_channels=8, out_channels=8, kernel_size=3), **options})
        assert layer.implementation == implementation
        assert repr(layer).endswith(f"{text})") or (text in repr(layer) and "axes" not in text)


@pytest.mark.parametrize("groups", [1, 2])
def test_extra_kernels_of_a_pattern_of_two(groups):
    """Only four parts have a published mask: here dilation 1 is dense, the extra kernels where the pattern has 3."""
    torch.manual_seed(0)
    layer = PSConv2d(4 * groups, 4 * groups, 3, padding=1, groups=groups, dilation_pattern=(1, 3), extra_dilation1=True)
    assert layer.extra_weight.shape == (4 * groups, 2, 3, 3)
    x, plain = torch.randn(1, 4 * groups, 8, 7), PSConv2d(4 * groups, 4 * groups, 3, padding=1, groups=groups,
                                                         dilation_pattern=(1, 3))  # fmt: skip
    plain.load_state_dict(layer.state_dict(), strict=False)
    torch.testing.assert_close(layer(x), plain(x))  # they start at zero
    nn.init.normal_(layer.extra_weight)
    dense = torch.zeros_like(layer.weight)
    for row in range(4 * groups):  # the other half of the inputs than the row's own
        columns = slice(2, 4) if row % 4 < 2 else slice(0, 2)
        dense[row, columns] = layer.extra_weight[row]
    torch.testing.assert_close(layer(x), plain(x) + nn.functional.conv2d(x, dense, padding=1, groups=groups))
