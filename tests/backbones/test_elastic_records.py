"""ElasticResNeXt and ElasticDenseNet against what the authors' own models compute, stage by stage and at the logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mmms_plugin.registry import MODELS
from mmms_plugin.weights.mapping import apply_table
from mmms_plugin.weights.tables import load_table
from tests.golden.records import load_record, make_input, make_state_dict


@pytest.mark.parametrize(
    "arch", ["resnext50", "resnext50_elastic", "se_resnext50", "densenet201", "densenet201_elastic"]
)
def test_authors_outputs(arch):
    table, record = load_table("elastic"), load_record(f"elastic_{arch}")
    mapped = apply_table(table, arch, make_state_dict(record))
    assert not mapped.dropped
    state = {key.removeprefix("backbone."): value for key, value in mapped.state.items()}
    head = nn.Linear(state["head.fc.weight"].shape[1], 1000)
    head.load_state_dict({key: state.pop(f"head.fc.{key}") for key in ("weight", "bias")})
    model = MODELS.build(dict(table.archs[arch].backbone)).eval()
    model.load_state_dict(state)
    assert sum(p.numel() for m in (model, head) for p in m.parameters()) == record["params"]
    for case in record["cases"]:
        with torch.no_grad():
            maps = model(make_input(case))
            outputs = dict(zip(table.archs[arch].outputs or table.outputs, maps, strict=True))
            outputs["output"] = head(maps[-1].mean((2, 3)))
        assert set(outputs) == set(case["outputs"])
        for stage, expected in case["outputs"].items():
            assert list(outputs[stage].shape) == expected["shape"]
            wanted = np.array(expected["value"])
            values = outputs[stage].flatten().numpy()[expected["index"]]
            wanted = wanted.clip(0) if stage in table.before_relu else wanted
            np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-4 * expected["std"])
