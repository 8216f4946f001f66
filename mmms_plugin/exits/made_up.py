"""``mmms benchmark early-exit``: what early exits save, on random weights and pictures."""

from __future__ import annotations

import numpy as np
import torch
from rich.console import Console

from mmms_plugin.backbones import MSDNet
from mmms_plugin.exits.benchmark import BATCHES, full_macs, measure_saving, print_savings
from mmms_plugin.exits.clock import clock_name
from mmms_plugin.exits.network import EarlyExit
from mmms_plugin.exits.plans import choose_plans
from mmms_plugin.heads import MultiExitHead

BUDGETS = (0.5, 0.75, 1.0)


def run_early_exit_benchmark(arch: str, pictures: int, rounds: int, batches: tuple[int, ...] = BATCHES) -> None:
    """Print promised and achieved speed-up of an MSDNet for each batch size.

    Thresholds are chosen on the same pictures, so that the wanted shares leave.
    """
    torch.manual_seed(0)
    large = MSDNet.arch_settings[arch].large_pictures
    backbone = MSDNet(arch, output="exits")
    head = MultiExitHead(1000 if large else 100, backbone.out_channels, channels=None if large else 128)
    network = EarlyExit(backbone, list(head.exits))
    side = 224 if large else 32
    images = torch.randn(pictures, 3, side, side)
    with torch.inference_mode():
        scores = [network(part) for part in images.split(16)]
    confidence = np.stack(
        [torch.cat(logits).double().softmax(1).amax(1).numpy() for logits in zip(*scores, strict=True)], 1
    )
    plans = choose_plans(confidence, np.ones(confidence.shape, bool), network.costs((side, side)))
    full = full_macs(network, (side, side))
    savings = []
    for batch in (b for b in batches if b <= pictures):
        for budget in BUDGETS:
            plan = min(plans, key=lambda row: abs(row.macs - budget * full))
            savings.append(measure_saving(network, images, batch, plan, rounds))
    title = f"{arch}, {pictures} pictures of {side} px, {torch.get_num_threads()} threads, {clock_name()}"
    print_savings(savings, title, Console())
