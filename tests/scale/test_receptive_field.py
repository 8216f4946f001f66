"""Receptive fields of networks whose fields are known in closed form."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmms_plugin.backbones.ps_resnet import PSResNet
from mmms_plugin.errors import UserError
from mmms_plugin.layers.ps_conv import PSConv2d
from mmms_plugin.scale.receptive_field import measure, middles, start_afresh, theoretical
from tests.without_float64 import OnMps

PICTURE = torch.rand(1, 41, 41, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def uniform(count: int, kernel: int, dilation: int = 1) -> nn.Module:
    """Convolutions of one channel with equal weights: the gradient is a power of a uniform distribution."""
    layers = [nn.Conv2d(1, 1, kernel, padding=dilation * (kernel // 2), dilation=dilation) for _ in range(count)]
    for layer in layers:
        nn.init.constant_(layer.weight, 1 / kernel**2)
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize(
    ("count", "kernel", "dilation"), [(1, 3, 1), (1, 5, 1), (4, 3, 1), (1, 3, 4), (2, 3, 3), (3, 5, 2)]
)
def test_convolutions(count, kernel, dilation):
    (field,) = measure(uniform(count, kernel, dilation), [PICTURE])
    assert field.theoretical == count * dilation * (kernel - 1) + 1
    # the variance of a sum of independent steps is that of one step times their number
    assert (field.two_sigma / 2) ** 2 == pytest.approx(count * dilation**2 * (kernel**2 - 1) / 12, rel=1e-9)
    assert not field.cut
    if count == 1:  # all pixels have the same gradient
        assert (field.side, field.extent) == (kernel, dilation * (kernel - 1) + 1)


def test_a_device_without_float64_measures_the_same():
    """Theoretical fields are computed on the CPU."""
    backbone, picture = uniform(2, 3).float(), PICTURE.float()
    (expected,) = measure(backbone, [picture])
    (field,) = measure(backbone, [picture.as_subclass(OnMps)], theory=False)
    assert (field.side, field.extent, field.two_sigma) == (expected.side, expected.extent, expected.two_sigma)


def test_pixels_above_the_threshold_of_the_paper():
    (field,) = measure(uniform(2, 3), [PICTURE])
    line = torch.tensor([1.0, 2, 3, 2, 1])
    gradient = line[:, None] * line / 9
    assert field.side == pytest.approx(float((gradient > 1 - 0.9545).sum()) ** 0.5)
    assert field.extent == 5


def test_a_picture_that_a_backbone_refuses_is_one_line():
    with pytest.raises(UserError, match=r"receptive fields: .* larger pictures are needed"):
        measure(PSResNet(18, base_channels=8, stem_channels=8), [torch.zeros(3, 16, 16)])


def test_the_middle_of_pictures_is_measured():
    wide, upright = torch.arange(77.0).view(1, 7, 11), torch.arange(77.0).view(1, 11, 7)
    (found,) = middles([wide], most_side=4)
    assert torch.equal(found, wide[:, 1:5, 3:7])
    assert [tuple(one.shape) for one in middles([wide, upright])] == [(1, 7, 11)]  # of as many the others
    assert [tuple(one.shape) for one in middles([wide, upright, upright])] == [(1, 11, 7)] * 2
    assert [tuple(one.shape) for one in middles([torch.zeros(1, 5, 5), upright])] == [
        (1, 5, 5)
    ]  # a square is no upright one
    assert middles([torch.zeros(1, 600, 900)])[0].shape == (1, 512, 512)


def test_upright_pictures_do_not_make_the_others_small():
    sizes = [(40, 90), (90, 40), (50, 80), (600, 700)]
    found = middles([torch.zeros(1, *size) for size in sizes], most_side=64)
    assert [tuple(one.shape) for one in found] == [(1, 40, 64)] * 3


def test_too_small_a_picture_is_reported():
    (field,) = measure(uniform(4, 3), [PICTURE[:, :7, :7]])
    assert field.cut
    assert theoretical(uniform(4, 3), 1, 32, (6, 8))["output 1"] is None
    assert theoretical(uniform(4, 3), 1, 32, (8, 16))["output 1"] == 9  # the first strip was too narrow


def test_a_field_that_ends_at_a_border_is_cut_off():
    """Of 9 px in 9 or 10 px of height or width: one more on each side is enough."""
    for height, width, cut in ((41, 11, False), (11, 41, False), (41, 9, True), (9, 41, True), (10, 41, True)):
        (field,) = measure(uniform(1, 9), [torch.rand(1, height, width, dtype=torch.float64)], theory=False)
        assert (field.extent, field.cut) == (9, cut), (height, width)
    reach = [theoretical(uniform(4, 3), 1, 32, (width,))["output 1"] for width in (9, 10, 11)]
    assert reach == [None, None, 9]


def test_pictures_draws_and_seeds_are_all_in_the_gradient():
    """The root mean square over them; the same seed draws the same."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1)).double()
    pictures = [torch.rand(1, 15, 15, dtype=torch.float64) - 0.5 for _ in range(3)]
    seen = []

    def watch(items):
        for item in items:
            seen.append(item)
            yield item

    one, two, other, more = (
        measure(backbone, pictures, theory=False, **options)[0]
        for options in (dict(seed=3), dict(seed=3, watch=watch), dict(seed=4), dict(seed=3, signs=64))
    )
    assert len(seen) == 3
    assert (one.heat == two.heat).all()
    assert (one.heat != other.heat).any()
    assert one.heat.dtype == "float32"
    assert one.heat.max() == 1
    expected = torch.zeros(15, 15, dtype=torch.float64)
    for picture in pictures:  # what the mean over all signs is: every channel by itself
        x = picture[None].requires_grad_()
        for value in backbone(x)[0, :, 7, 7]:
            expected += torch.autograd.grad(value, x, retain_graph=True)[0][0, 0].square()
    expected = expected.sqrt() / expected.sqrt().max()
    assert abs(more.heat - expected.numpy()).max() < 0.1
    alone = measure(backbone, pictures[:1], theory=False, seed=3)[0]
    assert (alone.heat != one.heat).any()


class Pieces(nn.Module):
    """A linear layer after pooling, a strided pooling, grouped and one-dimensional parts, and a map that is no map."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.conv = nn.Conv2d(4, 4, (1, 3), padding=(0, 1), groups=2)
        self.norm, self.act = nn.GroupNorm(2, 4), nn.LeakyReLU()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        y = self.act(self.norm(self.conv(self.pool(x))))
        gate = torch.sigmoid(self.fc(y.movedim(1, 3))).movedim(3, 1)
        return y, y * gate, nn.functional.max_pool2d(y, 2), y.mean((2, 3))


def test_every_kind_of_layer_is_seen_through():
    """Pooling 3 with stride 2, then 3 more of its cells: 3 + 2 * 2 = 7; another pooling of 2 of its cells: 9."""
    assert theoretical(Pieces(), 4, 32, (64,)) == {"output 1": 7, "output 2": 7, "output 3": 9}
    module = Pieces()
    measure(module, [torch.randn(4, 32, 32)])
    assert all(m.training for m in module.modules())


class Gated(nn.Module):
    """x times the sigmoid of a convolution of x, as in Swish and in squeeze-and-excitation, with growing sums."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.ModuleList(nn.Conv2d(1, 1, 3, padding=1) for _ in range(12))

    def forward(self, x):
        for gate in self.gates:
            x = x + x * torch.sigmoid(gate(x))
        return x


def test_gates_neither_hide_nor_blow_up_what_they_see():
    assert theoretical(Gated(), 1) == {"output 1": 12 * 2 + 1}


def test_dilations_of_a_pattern_are_seen_where_a_mask_leaves_them():
    layer = PSConv2d(6, 6, 3, padding=1, dilation_pattern=(1, 2, 1, 4))  # 6 channels: computed under masks
    assert theoretical(layer, 6)["output 1"] == 9
    assert theoretical(PSConv2d(6, 6, 3, padding=1, dilation_pattern=(1, 3)), 6)["output 1"] == 7


@pytest.mark.slow
def test_stages_of_resnet18():
    """The numbers that the usual recursion gives: stem 7 and pooling 3 reach 11 px, a layer at stride s adds 2 s."""
    host = pytest.importorskip("mmdet.models.backbones")
    network = host.ResNet(depth=18, base_channels=8, stem_channels=8)
    network.train()
    fields = measure(network, [torch.randn(3, 64, 64)], signs=1)
    assert [(f.stride, f.theoretical) for f in fields] == [(4, 43), (8, 99), (16, 211), (32, 435)]
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())


def test_every_stage_is_measured_whatever_the_backbone_returns():
    network = MODELS.build(dict(type="mmms_plugin.PSResNet", depth=18, base_channels=8, out_indices=(2,), with_cp=True))
    fields = measure(network, [torch.randn(3, 64, 64)], signs=1)
    assert [f.name for f in fields] == ["stage 1", "stage 2", "stage 3"]
    assert [f.theoretical for f in fields] == sorted(f.theoretical for f in fields)
    assert sum(module.with_cp for module in network.modules() if hasattr(module, "with_cp")) > 1
    assert not any(module._forward_hooks for module in network.modules())
    network.eval()
    network.layer1.train()
    with pytest.raises(UserError):
        measure(network, [torch.zeros(3, 8, 8)])
    assert [network.training, network.layer1.training, network.layer2.training] == [False, True, False]
    assert not any(module._forward_hooks for module in network.modules())


class Refusing(nn.Module):
    """Fails behind its only stage."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 1, 3)

    def stage_modules(self):
        return [[self.first], []]

    def forward(self, x):
        self.first(x)
        raise ValueError("too small")


def test_hooks_go_when_a_backbone_fails():
    backbone = Refusing()
    with pytest.raises(UserError, match="receptive fields: too small; larger pictures"):
        measure(backbone, [torch.zeros(1, 8, 8)])
    assert not backbone.first._forward_hooks


def test_a_fresh_start_is_he_s_by_its_seed_and_leaves_norms_without_weights_alone():
    def weights(seed):
        torch.manual_seed(seed + 1)  # of no influence
        network = nn.Sequential(
            nn.Conv2d(8, 64, 3),
            nn.BatchNorm2d(64, affine=False),
            nn.GroupNorm(2, 64),
            nn.Conv2d(64, 8, 1, bias=False),
            nn.BatchNorm2d(8),
        )
        for module in (network[2], network[4]):
            nn.init.constant_(module.weight, 3)
            nn.init.constant_(module.bias, 3)
        assert start_afresh(network, seed) is network
        assert [bool((network[i].weight == 1).all()) for i in (2, 4)] == [True, True]
        assert not any(bool(network[i].bias.any()) for i in (0, 2, 4))
        return network[0].weight.detach()

    first, second, other = weights(0), weights(0), weights(1)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert float(first.std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)  # by the outputs


def test_a_fresh_start_shows_what_blocks_see_that_begin_as_the_identity():
    network = MODELS.build(dict(type="mmms_plugin.PSResNet", depth=18, base_channels=8, dilation_pattern=(1, 1, 1, 1)))
    picture = torch.randn(3, 128, 128, generator=torch.Generator().manual_seed(0))
    for name, module in network.named_modules():
        if name.endswith(".bn2"):
            nn.init.zeros_(module.weight)
    before = measure(network, [picture], theory=False)[0]
    after = measure(start_afresh(network), [picture], theory=False)[0]
    assert before.extent <= 11 < after.extent  # 7 of the stem, 3 of the pooling at stride 2
    assert before.theoretical is None
    nn.init.constant_(network.bn1.bias, -1e6)
    silent = measure(network, [picture], theory=False)[0]
    assert (silent.side, silent.extent, silent.two_sigma) == (0, 0, 0)


def test_the_deepest_stage_alone_is_the_last_of_all():
    network = MODELS.build(
        dict(type="mmms_plugin.PSResNet", depth=18, base_channels=8, frozen_stages=1, dilation_pattern=(1, 1, 1, 1))
    )
    trained = [parameter.requires_grad for parameter in network.parameters()]
    pictures = [torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))]
    *_, last = measure(network, pictures, signs=8)
    (alone,) = measure(network, pictures, signs=8, deepest=True)
    assert (alone.name, alone.stride, alone.theoretical) == (last.name, last.stride, last.theoretical)
    assert alone.two_sigma == pytest.approx(last.two_sigma, rel=0.1)  # of other draws
    assert [parameter.requires_grad for parameter in network.parameters()] == trained
    assert {True, False} == set(trained)
