"""ElasticResNeXt and ElasticDenseNet against what the authors' own models compute, stage by stage and at the logits."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmms_plugin.registry import MODELS
from mmms_plugin.weights.tables import Rule, load_table
from tests.golden.records import load_record, make_input, make_state_dict

DENSE_STAGES = ("features.denseblock1", "features.denseblock2", "features.denseblock3")
RESIDUAL_STAGES = ("layer1", "layer2", "layer3", "layer4")


def rename(state: dict[str, Tensor], rules: tuple[Rule, ...]) -> dict[str, Tensor]:
    """The first rule that matches a whole key says its new one; every key must have one, and no two the same."""
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        rule = next(r for r in rules if re.fullmatch(r.pattern, key) and counts(r, state))
        assert rule.target is not None
        target = re.sub(rule.pattern, rule.target, key)
        assert target not in renamed
        renamed[target] = value
    return renamed


def counts(rule: Rule, state: dict[str, Tensor]) -> bool:
    found = {option: any(re.fullmatch(option, key) for key in state) for option in (rule.when, rule.unless) if option}
    return found.get(rule.when, True) and not found.get(rule.unless, False)


@pytest.mark.parametrize(
    "arch", ["resnext50", "resnext50_elastic", "se_resnext50", "densenet201", "densenet201_elastic"]
)
def test_authors_outputs(arch):
    table, record = load_table("elastic"), load_record(f"elastic_{arch}")
    state = rename(make_state_dict(record), table.rules)
    head = nn.Linear(state["head.fc.weight"].shape[1], 1000)
    head.load_state_dict({key: state.pop(f"head.fc.{key}") for key in ("weight", "bias")})
    model = MODELS.build(dict(table.archs[arch].backbone)).eval()
    model.load_state_dict({key.removeprefix("backbone."): value for key, value in state.items()})
    parameters = sum(p.numel() for m in (model, head) for p in m.parameters())
    assert parameters == record["params"]
    for case in record["cases"]:
        with torch.no_grad():
            maps = model(make_input(case))
            outputs = dict(zip(DENSE_STAGES if "dense" in arch else RESIDUAL_STAGES, maps, strict=False))
            outputs["output"] = head(maps[-1].mean((2, 3)))
        for stage, expected in case["outputs"].items():
            wanted = np.array(expected["value"])
            if stage == "features.norm_final":  # taken before the ReLU that our last stage ends with
                outputs[stage], wanted = maps[-1], wanted.clip(0)
            assert list(outputs[stage].shape) == expected["shape"]
            values = outputs[stage].flatten().numpy()[expected["index"]]
            np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-4 * expected["std"])
