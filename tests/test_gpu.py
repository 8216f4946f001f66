"""On a GPU: the layers' values are the CPU's, and PS Mask R-CNN trains with AMP and channels_last."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from mmms_plugin.commands import main
from mmms_plugin.layers import DepthwisePSConv2d, DynamicPSConv2d, PSConv2d

pytestmark = [pytest.mark.gpu, pytest.mark.needs(torch.cuda.is_available(), reason="a CUDA device")]


@pytest.mark.parametrize(
    "layer",
    [
        PSConv2d(64, 64, 3, padding=1),
        PSConv2d(64, 64, 3, padding=1, channel_order="cyclic", groups=4),
        PSConv2d(128, 128, 3, padding=1, groups=32, dilation_pattern=(2, 1, 4, 1), extra_dilation1=True),
        DepthwisePSConv2d(64, 64, 3, padding=1),
        DynamicPSConv2d(64, 64, 3, padding=1),
    ],
)
def test_layers_compute_what_the_cpu_computes(layer, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    x = torch.randn(2, layer.in_channels, 28, 28)
    ours, twin = layer, copy.deepcopy(layer).cuda()
    for form in (torch.contiguous_format, torch.channels_last):
        xs = [x.clone().requires_grad_(), x.cuda().to(memory_format=form).detach().requires_grad_()]
        ys = [ours(xs[0]), twin(xs[1])]
        torch.testing.assert_close(ys[1].cpu(), ys[0], atol=1e-4, rtol=1e-4)
        for y in ys:
            y.square().mean().backward()
        torch.testing.assert_close(xs[1].grad.cpu(), xs[0].grad, atol=1e-4, rtol=1e-4)


def test_mask_rcnn_trains_with_amp_and_channels_last(shapes: Path, tmp_path: Path):
    options = ["train_cfg.max_iters=100", "train_cfg.val_interval=1000", "custom_hooks=[]"]
    command = ["train", "demo/mask_rcnn_ps_r18_shapes", "--coco-dir", str(shapes), "--work-dir", str(tmp_path)]
    assert main([*command, "--amp", "--channels-last", "--cfg-options", *options]) == 0
    (log,) = tmp_path.glob("*/vis_data/scalars.json")
    losses = [row["loss"] for row in map(json.loads, log.read_text(encoding="utf-8").splitlines()) if "loss" in row]
    assert losses[-1] < 0.8 * losses[0]
