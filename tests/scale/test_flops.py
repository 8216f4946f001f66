"""Parameters, multiply-adds and bilinear up-sampling by hand; memory of training; the ELASTIC paper's figures."""

from __future__ import annotations

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_plugin.scale.flops import UPSAMPLE_OPS, Cost, count, exit_costs, exit_macs, kept_for_backward, measure


class Up(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return nn.Upsample(scale_factor=2, mode="bilinear")(F.interpolate(x, scale_factor=2))


def test_bilinear_up_sampling_counts_apart_and_nearest_does_not():
    cost = count(nn.Sequential(nn.Conv2d(3, 2, 1), Up()), torch.empty(1, 3, 4, 6, device="meta"))
    assert cost.upsampling == UPSAMPLE_OPS * 2 * (8 * 12 + 32 * 48)
    assert cost.macs == 3 * 2 * 4 * 6


def test_positional_modes_count_too_and_other_modes_do_not():
    x = torch.empty(1, 2, 4, 6, device="meta")

    class Resize(nn.Module):
        def __init__(self, *arguments: object) -> None:
            super().__init__()
            self.arguments = arguments

        def forward(self, x: Tensor) -> Tensor:
            return F.interpolate(x, *self.arguments)

    assert count(Resize(None, 2, "bilinear"), x).upsampling == 8 * 2 * 8 * 12
    assert count(Resize(None, 2, "bicubic"), x) == Cost(0, 0, 0)


def test_cost_of_a_config_with_a_classifier_at_any_size():
    """By hand: two 3x3 layers a stage of VGG-like width; unused layers of DLA at sizes that are rounded up."""
    config = dict(type="mmms_plugin.ShapeAdaptorVGG", mode="human", in_channels=2, out_indices=(0, 1))
    plain, classified = measure(config, (8, 12)), measure(config, (8, 12), classes=7)
    first, second = 64 * 9 * (2 + 64), 128 * 9 * (64 + 128)
    later = 9 * (128 * 256 + 2 * 256**2 + 256 * 512 + 5 * 512**2)
    norms = 2 * (2 * 64 + 2 * 128 + 3 * 256 + 6 * 512)
    convs = 2 * 64 + 2 * 128 + 3 * 256 + 6 * 512  # their biases
    assert plain.params == first + second + later + norms + convs * any("conv.bias" in name for name in names(config))
    assert plain.macs == 8 * 12 * first + 4 * 6 * second
    assert (classified.params - plain.params, classified.macs - plain.macs) == (128 * 7 + 7, 128 * 7)
    cost = measure(dict(type="mmms_plugin.DLA", arch="34"), (33, 65))
    layers = ((64, 128, 8), (128, 256, 16))
    assert cost.unused_params == sum(a * b + 2 * b for a, b, _ in layers)
    assert cost.unused_macs == 64 * 128 * 5 * 9 + 128 * 256 * 3 * 5
    assert plain.unused_params == plain.unused_macs == plain.upsampling == 0


def names(config: dict[str, object]) -> list[str]:
    with torch.device("meta"):
        return [name for name, _ in MODELS.build(dict(config)).named_parameters()]


def test_cost_of_every_exit_is_apart_from_its_classifier():
    class Exits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.blocks = nn.Conv2d(3, 4, 1), nn.ModuleList(nn.Conv2d(4, 4, 3, 2, 1) for _ in range(2))

        def start(self, x: Tensor) -> list[Tensor]:
            return [self.stem(x)]

        def advance(self, maps: list[Tensor], index: int) -> list[Tensor]:
            return [self.blocks[index](maps[-1])]

    backbone, exits = Exits(), [nn.Conv2d(4, 5, 1), nn.Conv2d(4, 6, 1)]
    costs = exit_costs(backbone, exits, (8, 12))
    assert costs == [(96 * 12 + 24 * 144, 24 * 20), (6 * 144, 6 * 24)]
    assert exit_macs(backbone, exits, (8, 12)) == [5088, 6096]
    assert backbone.training
    assert next(backbone.parameters()).device.type == exits[0].weight.device.type == "cpu"


def test_memory_that_training_keeps_counts_every_tensor_once():
    """Inputs of the two layers and of the ReLU's result; not the weights, and in eval mode the same."""
    layers = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 2, bias=False))
    for device in ("cpu", "meta"):
        x = torch.zeros(5, 4, device=device)
        with torch.no_grad():
            assert kept_for_backward(layers.to(device).eval(), x) == 4 * (5 * 4 + 5 * 6)
        assert layers.training
    assert kept_for_backward(nn.Dropout(0.5), torch.ones(8, requires_grad=True)) > 0  # in training mode
