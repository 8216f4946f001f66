"""Elastic in ONNX: few nodes, cropped only where sizes need it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from mmms_plugin.export.engines import onnx_program
from mmms_plugin.export.graph import capture
from mmms_plugin.export.networks import ExportedNetwork
from mmms_plugin.export.resampling import replace_resampling
from mmms_plugin.layers import ElasticConv2d


class Layers(ExportedNetwork):
    """Two layers at full and at half the size."""

    def forward(self, x):
        return (self.model(x),)


def layers(method: str) -> nn.Module:
    elastic = [
        ElasticConv2d(4, 4, 3, padding=1, ratios=(1, 2, 4), shares=(0.5, 0.25, 0.25), method=method) for _ in "ab"
    ]
    return nn.Sequential(nn.Conv2d(3, 4, 3), elastic[0], nn.MaxPool2d(2), elastic[1])


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_the_same_values_at_odd_sizes(method):
    torch.manual_seed(0)
    model = layers(method).eval()
    x = torch.randn(2, 3, 17, 24)
    with torch.no_grad():
        expected = model(x)
        replace_resampling(model)
        torch.testing.assert_close(model(x), expected)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "multiple", "slices"), [("bilinear", 1, 4), ("nearest", 8, 0)])
def test_one_node_for_each_enlargement(method, multiple, slices, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model = layers(method).eval()
    model[0].padding = (1, 1)
    x = torch.randn(3, 3, 40, 56)
    with torch.no_grad():
        expected = model(x)
    replace_resampling(model)
    program = onnx_program(capture(Layers(model), (32, 32), multiple))
    nodes = Counter(node.op_type for node in program.model.graph)
    assert (nodes["Resize"], nodes["Slice"]) == (4, slices)
    program.save(tmp_path / "model.onnx")
    (found,) = runtime.InferenceSession(tmp_path / "model.onnx").run(None, {"picture": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected)
