"""Optimized networks compute the same, and what is not known to be safe stays as it is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from torch import nn

from mmms_plugin.inference import optimize_for_inference
from mmms_plugin.inference.onednn import PointwiseConv2d
from mmms_plugin.inference.optimize import FoldedNorm
from mmms_plugin.inference.packed import PackedPSConv2d
from mmms_plugin.layers import PSConv2d
from mmms_plugin.registry import MODELS
from tests.test_registry import BACKBONES, VARIANTS, fewer_layers  # noqa: F401  a fixture for all tests

PRE_ACTIVATED = ("ElasticDenseNet",)  # most norms come before the convolution


def draw_norms(model: nn.Module) -> nn.Module:
    """Statistics and factors as after a training."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)
            norm.running_mean.normal_(std=0.1)
            norm.running_var.uniform_(0.5, 1.5)
    return model.eval()


def count(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_gives_the_same_maps(name):
    torch.manual_seed(0)
    model = draw_norms(MODELS.build(dict(type=f"mmms_plugin.{name}", **VARIANTS[name][0])))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimized = optimize_for_inference(model)
    x = torch.randn(2, 3, 97, 129)
    with torch.no_grad():
        for y, expected in zip(optimized(x), model(x), strict=True):
            torch.testing.assert_close(y, expected, atol=1e-4 * float(expected.std()), rtol=0)
    assert count(optimized, FoldedNorm)
    assert not count(model, FoldedNorm)
    norms = [name for name, norm in optimized.named_modules() if isinstance(norm, nn.BatchNorm2d)]
    assert not norms or name in PRE_ACTIVATED
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Block(nn.Module):
    """Of a package that is not known, whose names may mean anything."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 1)
        self.bn1 = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.conv1(F.relu(self.bn1(x)))


def shared() -> nn.Module:
    conv = nn.Conv2d(4, 4, 3)
    return nn.Sequential(conv, nn.BatchNorm2d(4), conv)


def replaced(part: str) -> nn.Module:
    """With a ``forward`` that somebody put on a module, or on the whole sequence."""
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))
    module = model.get_submodule(part)
    own = type(module).forward
    module.forward = lambda x: 2 * own(module, x)
    return model


class Apart(nn.Module):
    """Of a package that is not known: it takes its sequence apart."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))

    def forward(self, x):
        return self.layers[1](self.layers[0](x).tanh())


@pytest.mark.parametrize(
    ("make", "folded"),
    [
        (lambda: replaced("0"), 0),
        (lambda: replaced("1"), 0),
        (lambda: replaced(""), 0),
        (lambda: ConvModule(4, 6, 3, norm_cfg=dict(type="BN")), 1),
        (lambda: ConvModule(4, 6, 3, norm_cfg=dict(type="BN"), order=("norm", "conv", "act")), 0),
        (lambda: ConvModule(4, 6, 3, norm_cfg=dict(type="BN"), with_spectral_norm=True), 0),
        (lambda: nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.BatchNorm2d(6)), 1),
        (lambda: nn.Sequential(nn.Conv2d(4, 6, 1), nn.GroupNorm(2, 6)), 0),
        (lambda: nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6, track_running_stats=False)), 0),
        (lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 2), nn.BatchNorm2d(6)), 0),
        (shared, 0),
        (Block, 0),
        (Apart, 0),
        (lambda: nn.Sequential(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)), nn.ReLU()), 1),
    ],
    ids=["own convolution", "own norm", "own sequence", "ConvModule", "norm first", "spectral norm", "sequence",
         "group norm", "batch statistics", "transposed", "used twice", "unknown block", "taken apart", "in a sequence"],
)  # fmt: skip
def test_only_norms_known_to_follow_their_convolution_are_folded(make, folded):
    torch.manual_seed(0)
    model = draw_norms(make())
    optimized, x = optimize_for_inference(model), torch.randn(2, 4, 9, 8)
    assert count(optimized, FoldedNorm) == folded
    with torch.no_grad():
        torch.testing.assert_close(optimized(x), model(x), atol=1e-5, rtol=1e-4)


def test_a_model_in_training_mode_stays_and_an_optimized_one_is_not_trained():
    model = nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6))
    assert optimize_for_inference(model) is model
    model.eval()[1].train()
    assert optimize_for_inference(model) is model
    optimized = optimize_for_inference(model.eval())
    with pytest.raises(RuntimeError, match="train the original"):
        optimized.train()
    with pytest.raises(RuntimeError, match="load into the original"):
        optimized.load_state_dict(model.state_dict(), strict=False)
    optimized.load_state_dict(optimized.state_dict())


@pytest.mark.parametrize(
    ("options", "packed"),
    [
        (dict(in_channels=128, out_channels=128), True),
        (dict(in_channels=128, out_channels=256, stride=2, bias=False), True),
        (dict(in_channels=64, out_channels=64, groups=4), True),
        (dict(in_channels=64, out_channels=64, groups=16), True),
        (dict(in_channels=30, out_channels=34), True),
        (dict(in_channels=64, out_channels=64), False),
        (dict(in_channels=128, out_channels=128, channel_order="cyclic"), False),
        (dict(in_channels=128, out_channels=128, axes="output"), False),
        (dict(in_channels=128, out_channels=128, dilation_pattern=(1, 1)), False),
        (dict(in_channels=128, out_channels=128, groups=2, extra_dilation1=True), False),
    ],
    ids=["grouped", "stride", "masked", "depthwise", "uneven", "narrow", "cyclic", "output", "plain", "extra"],
)
def test_kernels_of_ps_conv_are_put_together_once(options, packed):
    torch.manual_seed(0)
    layer = PSConv2d(**{"kernel_size": 3, "padding": 1, "dilation_pattern": (2, 1, 4, 1), **options})
    model = nn.Sequential(layer).eval()
    optimized = optimize_for_inference(model)
    assert (type(optimized[0]) is PackedPSConv2d) is packed
    assert type(layer) is not PackedPSConv2d
    x = torch.randn(2, layer.in_channels, 13, 9)
    for inputs in (x, x.contiguous(memory_format=torch.channels_last), x[0]):
        with torch.no_grad():
            y = optimized(inputs)
        torch.testing.assert_close(y, model(inputs).detach(), atol=1e-5, rtol=0)
        assert not packed or y.stride() == model(inputs).stride()
    if packed:  # the kernels are kept: those that the weight now has are not looked at
        own, optimized[0].weight.data = optimized[0].weight.data, torch.zeros_like(layer.weight)
        with torch.no_grad():
            torch.testing.assert_close(optimized(x), model(x), atol=1e-5, rtol=0)
        optimized[0].weight.data = own
    leaf = x.clone().requires_grad_()
    by_packed, by_layer = (torch.autograd.grad(net(leaf).square().sum(), leaf)[0] for net in (optimized, model))
    torch.testing.assert_close(by_packed, by_layer, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(optimized.double()(x.double()), model.double()(x.double()))


def test_weights_are_not_loaded_behind_kernels_that_are_kept():
    model = nn.Sequential(PSConv2d(128, 128, 3, padding=1)).eval()
    optimized = optimize_for_inference(model)
    with pytest.raises(RuntimeError, match="load into the original"):
        optimized.load_state_dict(model.state_dict(), strict=False)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_onednn_gives_what_torch_gives_with_gradients(layout):
    """The operator is not in torch's documentation: this fails if a version of torch changes it."""
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 7, 1)
    x = torch.randn(2, 5, 6, 4).contiguous(memory_format=layout)
    results = []
    for layer in (conv, PointwiseConv2d.of(conv)):
        inputs = x.clone().requires_grad_()
        y = layer(inputs)
        gradients = torch.autograd.grad(y.square().sum(), (inputs, conv.weight, conv.bias))
        results.append((y, *gradients))
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)
    assert "mkldnn" in type(results[1][0].grad_fn).__name__.lower()


def test_a_block_that_names_its_layers_in_another_order_falls_back(monkeypatch):
    """The names promise more than they hold: the comparison on a small picture notices."""

    class Late(Block):
        def forward(self, x):
            return self.bn1(self.conv1(x).relu())

    monkeypatch.setattr(Late, "__module__", "mmdet.blocks")
    model = nn.Module()
    model.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), Late())
    assert optimize_for_inference(draw_norms(model)) is model
