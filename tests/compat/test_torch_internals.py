"""What torch does not document still does what the documented functions do."""

from __future__ import annotations

import multiprocessing

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from mmms_plugin.compat import torch_internals


def test_a_dispatch_mode_is_seen_while_it_is_active():
    assert not torch_internals.is_dispatch_observed()
    with FlopCounterMode(display=False):
        assert torch_internals.is_dispatch_observed()
    assert not torch_internals.is_dispatch_observed()


def test_a_transform_is_seen_while_it_is_active():
    seen = []
    torch.func.vmap(lambda x: seen.append(torch_internals.is_functorch_active()) or x)(torch.ones(2))
    assert seen == [True]
    assert not torch_internals.is_functorch_active()


def test_forward_mode_is_seen_while_it_is_active():
    assert not torch_internals.is_forward_mode_active()
    with torch.autograd.forward_ad.dual_level():
        assert torch_internals.is_forward_mode_active()
    assert not torch_internals.is_forward_mode_active()


def test_kernels_of_operators():
    assert torch_internals.has_kernel("aten::add.Tensor", "cpu")
    assert not torch_internals.has_kernel("aten::no_such_operator", "cpu")
    assert not torch_internals.has_kernel("aten::add.Tensor", "toaster")


@pytest.mark.parametrize("needed", [(True, True), (True, False), (False, True)])
def test_the_backward_pass_of_a_convolution(needed):
    torch.manual_seed(0)
    x = torch.randn(2, 6, 9, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    y = F.conv2d(x, weight, None, (2, 1), (1, 2), (1, 2), 2)
    grad = torch.randn_like(y)
    results = torch_internals.conv2d_backward(grad, x.detach(), weight.detach(), ((2, 1), (1, 2), (1, 2)), 2, needed)
    for result, expected, asked in zip(results, torch.autograd.grad(y, (x, weight), grad), needed, strict=True):
        assert (result is not None) == asked
        if result is not None:
            torch.testing.assert_close(result, expected)


def test_workers_of_a_data_loader_end_and_remove_their_files(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    loader = DataLoader([torch.zeros(2), torch.ones(2)], num_workers=1, persistent_workers=True)
    assert [batch.tolist() for batch in loader] == [[[0, 0]], [[1, 1]]]
    (worker,) = multiprocessing.active_children()
    assert worker.is_alive()
    torch_internals.end_workers(loader)
    assert not worker.is_alive()
    assert [*tmp_path.iterdir()] == []
    torch_internals.end_workers(None)
