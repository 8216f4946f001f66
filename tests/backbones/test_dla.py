"""DLA: parameters, where resolution is lowered, output strides, arguments.

Counts of the ELASTIC paper's DLA: tests/commands/test_console.py. Outputs: tests/weights/test_records.py.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmms_plugin.backbones import DLA
from mmms_plugin.backbones.dla import Root
from mmms_plugin.layers import Downsample


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
    with torch.device("meta"):
        model = DLA(arch)
        head = nn.Linear(model.out_channels[-1], 1000)
    assert sum(p.numel() for module in (model, head) for p in module.parameters()) == parameters


def test_deep_networks_add_the_newest_map_to_what_a_root_joins():
    with torch.device("meta"):
        networks = {arch: DLA(arch) for arch in DLA.arch_settings} | {"102x full": DLA("102x", elastic=True)}
    residual = {
        arch: {m.residual for m in network.modules() if isinstance(m, Root)} for arch, network in networks.items()
    }
    assert residual == {arch: {arch.startswith("1")} for arch in networks}


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


def convs(module: nn.Module) -> list[nn.Conv2d]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]


@pytest.mark.parametrize(
    ("options", "inner", "last"),
    [
        (dict(arch="34"), [3] * 8, [4, 4, 8, 8]),
        (dict(arch="46_c"), [3] * 4, [4, 8]),
        (dict(arch="60x", elastic=True), [3] * 16, [4, 4, 8, 8]),
    ],
)
def test_dilations_of_every_block(options, inner, last):
    with torch.device("meta"):
        model = DLA(**options, dilations=(1, 2, 1, 1, 3, 4), multi_grid=(1, 2))
        plain = DLA(**options, dilations=(1, 1, 1, 1, 3, 4))
    for network, expected in ((model, last), (plain, [4] * len(last))):
        assert [layer.dilation[0] for layer in convs(network.level4)] == inner
        assert [layer.dilation[0] for layer in convs(network.level5)] == expected
    assert [layer.dilation for layer in convs(model.level1)] == [(2, 2)]
    assert all(layer.padding == layer.dilation for layer in convs(model))


def test_layers_that_published_counts_have_on_top():
    """Each tree of more than one level that changes the channels: in, out and the stride behind it."""
    for arch, expected in (
        ("34", ((64, 128, 8), (128, 256, 16))),
        ("60", ((128, 256, 8), (256, 512, 16), (256, 512, 16))),
        (
            "169",
            (
                (32, 128, 4),
                (128, 256, 8),
                (128, 256, 8),
                (256, 512, 16),
                (256, 512, 16),
                (256, 512, 16),
                (256, 512, 16),
            ),
        ),
    ):
        with torch.device("meta"):
            assert DLA(arch).left_out == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(arch="60x", multi_grid=(1, 2, 4)), r"multi_grid=\(1, 2, 4\): allowed are 2 integers .* block of level 5"),
        (dict(arch="34", dilations=(1,) * 5), "dilations=.*: allowed are 6 integers >= 1"),
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
