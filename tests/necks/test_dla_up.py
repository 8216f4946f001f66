"""DLAUp: up-sampling, odd sizes, levels for detectors, gradients, arguments."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmms_plugin.backbones import DLA
from mmms_plugin.layers.resampling import BilinearUp, fit_to
from mmms_plugin.necks import DLAUp


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_up_sampling_starts_bilinear(factor):
    """Inside; at the border the transposed convolution sees zeros around the map."""
    x = torch.randn(2, 3, 7, 6)
    up = BilinearUp(3, factor)(x)
    assert up.shape == (2, 3, 7 * factor, 6 * factor)
    expected = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    inside = slice(factor, -factor)
    torch.testing.assert_close(up[..., inside, inside], expected[..., inside, inside])


@pytest.mark.parametrize("factor", [0, 1, 3, 6])
def test_only_powers_of_two_double_a_map(factor):
    with pytest.raises(ValueError, match=f"factor={factor}: allowed are powers of two from 2"):
        BilinearUp(3, factor)


def test_initialisation_keeps_up_sampling_bilinear_and_gives_he_to_the_rest():
    torch.manual_seed(0)
    neck = DLAUp((64, 128, 256))
    neck.init_weights()
    fuse = neck.ida[0][0]
    assert torch.equal(fuse.up.weight, BilinearUp(128, 2).weight)
    assert 0.95 < float(fuse.node[0].weight.detach().std()) / (2 / (128 * 9)) ** 0.5 < 1.05


def test_fitting_crops_or_repeats_at_the_right_and_bottom():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    fitted = fit_to(x, (2, 6))[0, 0]
    np.testing.assert_array_equal(fitted, np.pad(x[0, 0, :2].numpy(), ((0, 0), (0, 2)), "edge"))


@pytest.mark.parametrize(
    ("levels", "size"), [((1, 2, 3, 4, 5), (65, 97)), ((2, 3, 4, 5), (80, 33)), ((3, 4, 5), (64, 64))], ids=str
)
def test_down_ratios_2_4_8_at_odd_sizes(levels, size):
    backbone = DLA("46_c", out_indices=levels)
    neck = DLAUp(backbone.out_channels)
    maps = backbone(torch.randn(2, 3, *size))
    (y,) = neck(maps)
    assert y.shape == maps[0].shape
    y.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in neck.parameters())


def test_as_an_alternative_to_fpn():
    backbone = DLA("46_c").eval()
    neck = DLAUp(backbone.out_channels, out_channels=32, num_outs=5)
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 129, 161))
    outputs = neck(maps)
    assert neck.out_channels == (32,) * 5
    assert [y.shape[1:] for y in outputs] == [(32, 33, 41), (32, 17, 21), (32, 9, 11), (32, 5, 6), (32, 3, 3)]
    sum(y.square().mean() for y in outputs[:4]).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in neck.parameters())
    # fewer outputs are the same maps, and leave no parameter unused
    few = DLAUp(backbone.out_channels, out_channels=32, num_outs=2)
    few.load_state_dict({k: v for k, v in neck.state_dict().items() if k in few.state_dict()})
    neck.eval(), few.eval()
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(few(maps), neck(maps)[:2], strict=True))
    sum(y.square().mean() for y in few(maps)).backward()
    assert all(p.grad is not None for p in few.parameters())


def test_a_map_depends_on_coarser_ones_only():
    """Level k aggregates levels k and up: the pyramid is top-down, as FPN's."""
    neck = DLAUp((8, 8, 8), num_outs=3).eval()
    maps = [torch.randn(1, 8, 16 // 2**k, 16 // 2**k, requires_grad=True) for k in range(3)]
    for k, y in enumerate(neck(maps)):
        grads = torch.autograd.grad(y.sum(), maps, retain_graph=True, allow_unused=True)
        assert [g is not None for g in grads] == [i >= k for i in range(3)]


def test_maps_of_one_stride_and_channels_left_alone():
    neck = DLAUp((8, 16, 16), in_strides=(8, 16, 16), num_outs=3).eval()
    maps = [torch.randn(1, c, s, s) for c, s in ((8, 10), (16, 5), (16, 5))]
    assert neck.out_channels == (8, 16, 16)
    assert [y.shape[1:] for y in neck(maps)] == [(8, 10, 10), (16, 5, 5), (16, 5, 5)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(in_channels=(8,)), r"in_channels=\(8,\): allowed are two or more integers from 1, finest map first"),
        (dict(in_channels=(8, 0)), "in_channels=.*: allowed are two or more"),
        (dict(in_channels=8), "in_channels=8: allowed are two or more"),
        (dict(in_channels=(8, 8.0)), r"in_channels=\(8, 8.0\): allowed are two or more"),
        (dict(in_channels=(8, 8), num_outs=1.5), "num_outs=1.5: allowed are integers from 1"),
        (dict(in_channels=(8, 8), out_channels=0), "out_channels=0: allowed are None and integers from 1"),
        (dict(in_channels=(8, 8), out_channels=8.0), "out_channels=8.0: allowed are None and integers from 1"),
        (dict(in_channels=(8, 8), in_strides=(8,)), r"in_strides=\(8,\): allowed are 2 ascending"),
        (dict(in_channels=(8, 8), in_strides=(8, 16, 32)), r"in_strides=\(8, 16, 32\): allowed are 2 ascending"),
        (dict(in_channels=(8, 8), in_strides=(0, 8)), r"in_strides=\(0, 8\): allowed are 2 ascending"),
        (dict(in_channels=(8, 8), in_strides=(2.0, 4)), r"in_strides=\(2.0, 4\): allowed are 2 ascending"),
        (dict(in_channels=(8, 8), num_outs=0), "num_outs=0: allowed are integers from 1"),
        (dict(in_channels=(8, 8), out_channels=-1), "out_channels=-1: allowed are None and integers from 1"),
        (dict(in_channels=(8, 8), in_strides=(8, 4)), r"in_strides=\(8, 4\): allowed are 2 ascending powers of two"),
        (dict(in_channels=(8, 8), in_strides=(4, 12)), r"in_strides=\(4, 12\): allowed are 2 ascending powers of two"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        DLAUp(**options)


def test_the_smallest_neck_and_its_parts():
    """One channel, one output; projections only where channels differ; up-sampling by the ratio of strides."""
    neck = DLAUp((1, 2, 2), 1, 1, in_strides=(1, 8, 16))
    fuses = [fuse for step in neck.ida for fuse in step]
    assert [[len(step)] for step in neck.ida] == [[1], [2]]
    assert [isinstance(fuse.proj, torch.nn.Identity) for fuse in fuses] == [True, False, False]
    assert [fuse.up.stride for fuse in fuses] == [(2, 2), (8, 8), (8, 8)]
    assert [fuse.node[0].kernel_size for fuse in fuses] == [(3, 3)] * 3
    assert neck.out_channels == (1,)
    maps = [torch.randn(1, c, s, s) for c, s in ((1, 16), (2, 2), (2, 1))]
    (y,) = neck.eval()(maps)
    # the definition, step by step
    (a,), (b, c) = neck.ida
    middle = a(maps[1], maps[2])
    fine = b(maps[0], maps[1])
    torch.testing.assert_close(y, neck.out_convs[0](c(fine, middle)))


def test_another_number_of_maps_is_refused():
    with pytest.raises(ValueError, match=r"inputs: 1 maps, in_channels=\(8, 8\) needs 2"):
        DLAUp((8, 8))([torch.zeros(1, 8, 4, 4)])
