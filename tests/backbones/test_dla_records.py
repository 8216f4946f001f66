"""DLA against what its authors' and ELASTIC's own models compute, level by level and at the logits."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mmms_plugin.registry import MODELS
from mmms_plugin.weights.mapping import apply_table
from mmms_plugin.weights.tables import load_table
from tests.golden.compare import assert_outputs
from tests.golden.records import load_record, make_input, make_state_dict

RECORDS = [
    "dla_dla34",
    "dla_dla60x",
    "dla_dla102",
    "dla_dla102x",
    "elastic_dla60x",
    "elastic_dla60x_elastic",
    "elastic_dla102x",
]
TRAINABLE = ("conv", "gamma", "gamma_small", "beta")


@pytest.mark.parametrize("name", RECORDS)
def test_authors_outputs(name):
    record, table = load_record(name), load_table(name.partition("_")[0])
    source = make_state_dict(record)
    mapped = apply_table(table, record["arch"], source)
    weight, bias = (mapped.state.pop(f"head.fc.{key}") for key in ("weight", "bias"))
    model = MODELS.build(dict(table.archs[record["arch"]].backbone)).eval()
    model.load_state_dict({key.removeprefix("backbone."): value for key, value in mapped.state.items()})

    # The only tensors without a place are projections that nothing depends on
    assert all(".project." in key for key in mapped.dropped)
    own = sum(p.numel() for p in (*model.parameters(), weight, bias))
    dropped = [math.prod(shape) for key, shape, _, kind, *_ in record["tensors"]
               if key in mapped.dropped and kind in TRAINABLE]  # fmt: skip
    assert own + sum(dropped) == record["params"]
    assert sum(i * o + 2 * o for i, o, _ in model.left_out) == sum(dropped)

    for case in record["cases"]:
        with torch.no_grad():
            maps = model(make_input(case))
        outputs = {f"level{i}": y for i, y in zip(model.out_indices, maps, strict=True)}
        assert_outputs(case, outputs | {"output": F.linear(maps[-1].mean((2, 3)), weight, bias)})
