"""Early exit on every registered backbone: the logits are those of the whole network, or it is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmms_plugin.exits import EarlyExit
from mmms_plugin.heads import MultiExitHead
from tests.families import is_first, members
from tests.test_registry import VARIANTS, build, fewer_layers  # noqa: F401  a fixture for all tests

SHAPED = {
    "ShapeAdaptorResNet": dict(base_channels=16, out_indices=(0, 2, 3)),
    "ShapeAdaptorVGG": dict(design_size=64, out_indices=(0, 3, 4)),
    "ShapeAdaptorMobileNetV2": dict(width_multiplier=0.25, out_indices=(0, 4, 7)),
}
CASES = [pytest.param(n, o, id=f"{n}-{i}") for n, options in VARIANTS.items() for i, o in enumerate(options)] + [
    pytest.param(name, dict(options, mode=mode, resize_outputs=resize), id=f"{name}-{mode}-{resize}")
    for name, options in SHAPED.items()
    for mode, resize in (("human", False), ("standard", True), ("autosc", False), ("autotl", True))
]


@pytest.mark.parametrize(("name", "options"), members(CASES, is_first))
def test_early_exit_gives_the_networks_own_logits(name, options):
    backbone = build(name, options)
    backbone.init_weights()
    head = MultiExitHead(5, backbone.out_channels, channels=4)
    for module in [*backbone.modules(), *head.modules()]:
        if isinstance(module, nn.BatchNorm2d):  # else folding would change nothing
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
    backbone.eval(), head.eval()
    last = len(head.exits) - 1
    plain, folded = (EarlyExit(backbone, list(head.exits), fold=fold) for fold in (False, True))
    for x in (torch.randn(3, 3, 33, 49), torch.randn(1, 3, 34, 35)):
        with torch.inference_mode():
            logits = torch.stack(head(backbone(x)))  # [exits, N, classes]
            assert torch.equal(torch.stack(plain(x)), logits)
            tolerance = dict(atol=1e-3 * float(logits.std()), rtol=0)
            torch.testing.assert_close(torch.stack(folded(x)), logits, **tolerance)
        confidence = logits.softmax(2).amax(2)
        halfway = (*(float(row.median()) for row in confidence[:-1]), 0.0)
        for network in (plain, folded):
            for thresholds, exits in (
                ((0.0,) * (last + 1), [0]),
                ((1.0,) * (last + 1), [last]),
                (halfway, range(last + 1)),
            ):
                answer = network.classify(x, thresholds)
                assert set(answer.exits.tolist()) <= set(exits)
                torch.testing.assert_close(answer.logits, logits[answer.exits, torch.arange(len(x))], **tolerance)
            assert torch.equal(network.predict(x).logits, network(x)[-1])
