"""What backbones share: stages and dilations, resizing layers, outputs, freezing, initial weights, loading."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmms_plugin.backbones import (
    DLA,
    ElasticDenseNet,
    ElasticResNeXt,
    MSDNet,
    PSResNet,
    ShapeAdaptorMobileNetV2,
    ShapeAdaptorVGG,
)
from mmms_plugin.backbones.base import Backbone, run_block
from mmms_plugin.backbones.residual import BlockOptions, Bottleneck, ResidualNetwork, doubling_stages
from mmms_plugin.backbones.staged import Place, Resizing, dilation_grids
from mmms_plugin.layers.common import BATCH_NORM, HE_INIT


class Mix(nn.Module):
    """Resize both maps, by default to three quarters of the large one, and weigh them."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, small: Tensor, full: Tensor, size: tuple[int, int] | None) -> Tensor:
        size = size or (full.shape[2] * 3 // 4, full.shape[3] * 3 // 4)
        share = self.alpha.sigmoid()
        return (1 - share) * F.interpolate(small, size) + share * F.interpolate(full, size)


def mix_where_strided(place: Place) -> Resizing | None:
    return Resizing(Mix(), 2) if place.stride == 2 else None


class Small(ResidualNetwork):
    def __init__(self, style: str = "pytorch", with_cp: bool = False, **resizing) -> None:
        super().__init__(3, (0, 1, 2), -1, False, None, HE_INIT, zero_init_residual=True)
        block = partial(Bottleneck, BlockOptions(BATCH_NORM, style=style, with_cp=with_cp, **resizing))
        self.build_stem(3, 8, BATCH_NORM)
        grids = dilation_grids((1, 2, 2), (1, 1, 1))
        self.build_stages(doubling_stages(8, 4, (1, 2, 2), grids), block, 8, in_stride=4)


@pytest.mark.parametrize("style", ["pytorch", "caffe"])
def test_a_resizing_layer_takes_the_strides_place(style):
    torch.manual_seed(0)
    plain, learned = Small(style), Small(style, with_cp=True, resizing=mix_where_strided)
    added = set(learned.state_dict()) - set(plain.state_dict())
    assert added == {"layer2.0.resize.alpha", "layer3.0.resize.alpha"}
    assert not learned.load_state_dict(plain.state_dict(), strict=False).unexpected_keys  # a plain network's weights
    x = torch.randn(2, 3, 64, 96)
    assert [y.shape[2:] for y in plain(x)] == [(16, 24), (8, 12), (4, 6)]
    maps = learned(x)
    assert [y.shape[2:] for y in maps] == [(16, 24), (12, 18), (9, 13)]
    maps[-1].square().mean().backward()
    assert all(block.resize.alpha.grad for block in (learned.layer2[0], learned.layer3[0]))
    block = learned.layer2[0]
    assert (block.conv1.stride, block.conv2.stride, block.downsample[0].stride) == ((1, 1), (1, 1), (2, 2))
    assert block(maps[0], (10, 11)).shape[2:] == (10, 11)  # a size that the network chooses


@pytest.mark.parametrize(
    ("build", "parts"),
    [
        (lambda: PSResNet(18, out_indices=(0,)), ["conv1", "bn1", "layer1"]),
        (lambda: ElasticResNeXt(50, base_channels=16, out_indices=(1,)), ["conv1", "bn1", "layer1", "layer2"]),
        (lambda: ElasticDenseNet(121, out_indices=(0,)), ["conv0", "norm0", "denseblock1"]),
        (lambda: DLA("46_c", out_indices=(2,)), ["base_layer", "level0", "level1", "level2"]),
    ],
    ids=["PSResNet", "ElasticResNeXt", "ElasticDenseNet", "DLA"],
)
def test_stages_after_the_last_wanted_one_do_not_run_and_small_pictures_are_refused(build, parts):
    model, ran = build().eval(), []
    for name, module in model.named_children():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    (stride,) = model.out_strides
    model(torch.zeros(1, 3, stride, stride))
    assert ran == parts
    with pytest.raises(ValueError, match=f"picture of {stride - 1} x 64 is too small: .* must be at least {stride}"):
        model(torch.zeros(1, 3, stride - 1, 64))


TINY_MSDNET = dict(blocks=(1, 2, 2), stem=8, growth=4, factors=(1, 2), bottlenecks=(1, 2), large_pictures=False)


@pytest.mark.parametrize(
    ("network", "argument", "outputs", "stages"),
    [
        (PSResNet, 18, 4, 4),
        (ElasticDenseNet, 121, 4, 4),
        (DLA, "46_c", 6, 6),
        (ShapeAdaptorMobileNetV2, 0.25, 8, 8),
        (ShapeAdaptorVGG, 16, 5, 5),
        (MSDNet, TINY_MSDNET, 2, 3),
    ],
)
def test_which_outputs_and_frozen_stages_there_are(network, argument, outputs, stages):
    with torch.device("meta"):
        assert network(argument, out_indices=[0, outputs - 1]).out_indices == (0, outputs - 1)
        assert not any(p.requires_grad for p in network(argument, frozen_stages=stages).parameters())
        for indices in ((), (0, 0), (1, 0), (-1, 0), (0, outputs), 0):
            with pytest.raises(ValueError, match=f"out_indices=.*: allowed are ascending .* from 0 to {outputs - 1}"):
                network(argument, out_indices=indices)
        for frozen in (-2, stages + 1, 1.0):
            message = rf"frozen_stages={frozen}: allowed are -1 \(none\) to {stages} \(0 freezes the stem\)"
            with pytest.raises(ValueError, match=message):
                network(argument, frozen_stages=frozen)


BASE, CONTRACT = dict(dilations=(1, 2, 3, 4)), dict(dilations=(1, 2, 3, 4), contract_dilation=True)
GRID = dict(dilations=(1, 1, 1, 2), multi_grid=(1, 2, 4))


@pytest.mark.parametrize(
    ("network", "options", "dilations"),
    [
        (PSResNet, BASE, ([1] * 3, [2] * 4, [3] * 6, [4] * 3)),
        (PSResNet, CONTRACT, ([1] * 3, [1, 2, 2, 2], [1, *[3] * 5], [2, 4, 4])),
        (PSResNet, GRID, ([1] * 3, [1] * 4, [1] * 6, [2, 4, 8])),
        (ElasticResNeXt, BASE, ([1] * 3, [2] * 4, [3] * 6, [4] * 3)),
        (ElasticResNeXt, GRID, ([1] * 3, [1] * 4, [1] * 6, [2, 4, 8])),
    ],
)
def test_dilations_of_every_block(network, options, dilations):
    with torch.device("meta"):
        stages = network(50, **options).stages
    for conv in ("conv2",) if network is PSResNet else ("paths.high.conv2", "paths.low.conv2"):
        layers = [[block.get_submodule(conv) for block in stage] for stage in stages]
        assert tuple([layer.dilation[0] for layer in stage] for stage in layers) == dilations
        assert all(layer.padding == layer.dilation for stage in layers for layer in stage)


def test_strides_stand_in_the_first_block_where_the_style_says():
    with torch.device("meta"):
        networks = [PSResNet(50, style=style, strides=(1, 2, 3, 1)) for style in ("pytorch", "caffe")]
    for network, place in zip(networks, ("conv2", "conv1"), strict=True):
        for conv in ("conv1", "conv2"):
            strides = [[block.get_submodule(conv).stride[0] for block in stage[:2]] for stage in network.stages]
            assert strides == ([[1, 1], [2, 1], [3, 1], [1, 1]] if conv == place else [[1, 1]] * 4)


@pytest.mark.parametrize(
    "build",
    [
        lambda: PSResNet(18, base_channels=8, stem_channels=8, out_indices=(0, 2)),
        lambda: ElasticDenseNet(121, out_indices=(1, 2)),
        lambda: DLA("46_c", out_indices=(0, 3, 4)),
        lambda: MSDNet(TINY_MSDNET, output="exits", out_indices=(0, 2)),
    ],
    ids=["PSResNet", "ElasticDenseNet", "DLA", "MSDNet"],
)
def test_a_network_that_may_stop_early_runs_from_output_to_output(build):
    model, x = build().eval(), torch.randn(1, 3, 33, 40)
    with torch.no_grad():
        maps = model.start(x)
        for index, wanted in enumerate(model(x)):
            maps = model.advance(maps, index)
            assert torch.equal(maps[-1], wanted)
    with pytest.raises(ValueError, match="picture of 1 x 40 is too small"):
        model.start(x[:, :, :1])


def test_a_block_is_computed_again_only_if_that_is_asked_for_and_gradients_are():
    calls, module = [], nn.Module()

    def double(x: Tensor) -> Tensor:
        calls.append(x)
        return x * x

    for with_cp, grad, expected in ((False, True, 1), (True, True, 2), (True, False, 1)):
        calls.clear()
        module.with_cp = with_cp
        x = torch.ones(2, requires_grad=True)
        with torch.set_grad_enabled(grad):
            y = run_block(module, double, x)
        if grad:
            y.sum().backward()
            assert x.grad.tolist() == [2, 2]
        assert len(calls) == expected


@pytest.mark.parametrize(
    ("build", "norm"),
    [
        (lambda **options: PSResNet(18, base_channels=8, **options), "bn2"),
        (lambda **options: PSResNet(50, base_channels=8, **options), "bn3"),
        (lambda **options: ElasticResNeXt(50, base_channels=16, **options), "bn3"),
    ],
    ids=["BasicBlock", "Bottleneck", "ElasticResNeXt"],
)
def test_blocks_start_as_identities_unless_told_otherwise(build, norm):
    kaiming = dict(type="Kaiming", layer="Conv2d")
    for options, weight in ({}, 0), (dict(zero_init_residual=False), 1), (dict(init_cfg=kaiming), 1):
        model = build(**options)
        model.init_weights()
        for block in (block for stage in model.stages for block in stage):
            norms = {name: m for name, m in block.named_children() if isinstance(m, nn.BatchNorm2d)}
            assert all(bool((m.weight == (weight if name == norm else 1)).all()) for name, m in norms.items())


def test_a_whole_models_state_dict_loads_into_the_backbone_alone_and_into_the_model(capsys):
    model = nn.Module()
    model.backbone, model.head = PSResNet(18, base_channels=8), nn.Linear(8, 2)
    state, alone = model.state_dict(), PSResNet(18, base_channels=8)
    alone.load_state_dict(dict(state))
    assert all(torch.equal(value, state[f"backbone.{key}"]) for key, value in alone.state_dict().items())
    said = f"the state dict is a whole model's; its {len(state) - 2} backbone keys are loaded, the other 2 are not"
    assert said in capsys.readouterr().out
    model.load_state_dict(state)  # strictly
    with pytest.raises(RuntimeError, match=r'Unexpected key.*: "backbone.conv1.weight"'):  # its own keys count
        alone.load_state_dict({**alone.state_dict(), "backbone.conv1.weight": torch.zeros(1)})
    assert "whole model" not in capsys.readouterr().out


def test_a_new_network_is_refused_with_what_it_must_define():
    class Mine(Backbone):
        def __init__(self) -> None:
            super().__init__(1, (0,), -1, False, None)

    for method in ("stem_modules", "stage_modules"):
        with pytest.raises(NotImplementedError, match=f"Mine must define {method}"):
            getattr(Mine(), method)()
    with pytest.raises(NotImplementedError, match="Mine must define forward_stem"):
        Mine().forward_stem(torch.zeros(1))
