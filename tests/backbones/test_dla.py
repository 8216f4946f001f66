"""DLA: the papers' counts, Table 9, output strides, arguments."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmms_plugin.backbones import DLA
from mmms_plugin.layers import Downsample


# Counted on the authors' code; 102x simple is Table 9's 26.8 M and 5.0 G
@pytest.mark.parametrize(
    ("options", "millions", "gmacs"),
    [
        (dict(arch="60x"), "17.650", "3.594"),
        (dict(arch="60x", elastic="simple"), "17.650", "3.110"),
        (dict(arch="60x", elastic="full"), "17.650", "3.110"),
        (dict(arch="102x"), "26.772", "5.976"),
        (dict(arch="102x", elastic="simple"), "26.772", "4.965"),
        (dict(arch="102x", elastic=True), "24.917", "5.946"),
    ],
    ids=str,
)
def test_parameters_and_multiply_adds_with_classifier_and_what_is_left_out(options, millions, gmacs):
    own, macs, model = count(**options)
    left = sum(i * o + 2 * o for i, o, _ in model.left_out)
    left_macs = sum(i * o * (224 // stride) ** 2 for i, o, stride in model.left_out)
    assert f"{(own + left) / 1e6:.3f}" == millions
    assert f"{(macs + left_macs) / 1e9:.3f}" == gmacs


@pytest.mark.parametrize(
    ("arch", "parameters"),
    [  # timm's, which leaves the same projections out
        ("34", 15742104),
        ("46_c", 1301400),
        ("46x_c", 1068440),
        ("60", 22036632),
        ("dla60x", 17352344),
        ("60x_c", 1319832),
        ("102", 33268888),
        ("102x", 26309272),
        ("102x2", 41282200),
        ("dla169", 53389720),
    ],
)
def test_parameters_of_every_arch(arch, parameters):
    assert count(arch)[0] == parameters


def count(arch: str, elastic: bool | str = False) -> tuple[int, int, DLA]:
    with torch.device("meta"):
        model = DLA(arch, elastic)
        head = nn.Linear(model.out_channels[-1], 1000)
        with FlopCounterMode(display=False) as counter:
            head(model(torch.empty(1, 3, 224, 224))[-1].mean((2, 3)))
    parameters = sum(p.numel() for module in (model, head) for p in module.parameters())
    return parameters, counter.get_total_flops() // 2, model


def test_elastic_lowers_blocks_of_stride_1_before_the_last_level():
    for options, each in (
        (dict(arch="60x", elastic=True), (1, 3, 7, 0)),
        (dict(arch="102x", elastic=True), (7, 7, 7, 0)),
    ):
        with torch.device("meta"):
            model = DLA(**options)
        lowered = [sum(isinstance(m, Downsample) for m in level.modules()) for level in model.levels]
        assert tuple(lowered) == (0, 0, *each)
    with torch.device("meta"):
        plain = DLA("60x", elastic=True, elastic_cfg=dict(shares=(1, 0)))
    assert not any(isinstance(m, Downsample) for m in plain.modules())


def test_output_stride_16_keeps_the_weights_and_dilates():
    torch.manual_seed(0)
    plain = DLA("46_c").eval()
    dilated = DLA("46_c", strides=(1, 2, 2, 2, 2, 1), dilations=(1, 1, 1, 1, 1, 2)).eval()
    dilated.load_state_dict(plain.state_dict())
    assert dilated.out_strides == (4, 8, 16, 16)
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        maps, ours = plain(x), dilated(x)
    assert all(torch.equal(a, b) for a, b in zip(maps[:3], ours[:3], strict=True))
    assert ours[3].shape == (1, 256, 5, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(arch="61"), "arch='61': allowed are '34', '46_c', '46x_c', '60', '60x'"),
        (dict(arch="34", elastic=True), "elastic=True: allowed for arch='34' is False; 60x, 102x have it"),
        (dict(arch="102x2", elastic="simple"), "elastic='simple': allowed for arch='102x2' is False"),
        (dict(arch="60x", elastic="half"), "elastic='half': allowed are 'none', 'simple', 'full'"),
        (dict(arch="60x", elastic_cfg=dict(method="nearest")), "elastic_cfg=.*: allowed with elastic='simple' and"),
        (dict(arch="60x", elastic=True, elastic_cfg=dict(shares=(0.5, 0.4))), r"shares=\(0.5, 0.4\): .*sum to 1"),
        (dict(arch="34", out_indices=(2, 6)), r"out_indices=\(2, 6\): allowed are ascending stage indices from 0 to 5"),
        (dict(arch="34", strides=(1, 2, 2, 2)), "strides=.*: allowed are 6 integers >= 1"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        DLA(**options)


def test_a_picture_smaller_than_the_stride_is_refused():
    with pytest.raises(ValueError, match="picture of 16 x 64 is too small: height and width must be at least 32"):
        DLA("46_c")(torch.zeros(1, 3, 16, 64))
