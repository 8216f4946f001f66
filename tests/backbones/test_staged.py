"""The staged network: a resizing layer in a stride's place, no stage run in vain, pictures that are too small."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmms_plugin.backbones import DLA, ElasticDenseNet, ElasticResNeXt, PSResNet
from mmms_plugin.backbones.residual import BlockOptions, Bottleneck, ResidualNetwork, doubling_stages
from mmms_plugin.backbones.staged import Place, Resizing, dilation_grids
from mmms_plugin.layers.initial import HE_INIT
from mmms_plugin.layers.norm import BATCH_NORM


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
