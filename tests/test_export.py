"""Every backbone as a graph: torch.compile without a break, torch.export and ONNX at another size than captured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmms_plugin.backbones.shape_plan import ShapedNetwork, freeze_shapes
from mmms_plugin.export.write import prepare
from mmms_plugin.registry import MODELS
from tests.families import members
from tests.test_registry import BACKBONES, VARIANTS, fewer_layers  # noqa: F401  a fixture for all tests

CAPTURED, OTHER = (97, 129), (160, 130)


def built(name: str) -> tuple[nn.Module, tuple[tuple[int, int], ...]]:
    """A small instance with its weights drawn, and the sizes that its graph is for: a learned shape belongs to one."""
    torch.manual_seed(0)
    options = VARIANTS[name][0]
    if name == "ModelSequence":  # its other networks differ in depth only
        options = dict(networks=options["networks"][1:3])
    elif name == "PSResNet":
        options = VARIANTS[name][1]
    model = MODELS.build(dict(type=f"mmms_plugin.{name}", **options))
    model.init_weights()
    model.eval().requires_grad_(False)
    if isinstance(model, ShapedNetwork):
        freeze_shapes(model)
        return model, (CAPTURED,)
    return model, (CAPTURED, OTHER)


def same(found: object, model: nn.Module, x: Tensor) -> None:
    for one, expected in zip(found, model(x), strict=True):  # type: ignore[call-overload]
        scale = float(expected.std())
        torch.testing.assert_close(torch.as_tensor(one), expected, atol=1e-4 * scale, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", members(BACKBONES, {"PSResNet", "ElasticDenseNet", "MSDNet"}.__contains__))
def test_compiles_in_one_piece(name):
    model, _ = built(name)
    x = torch.randn(2, 3, *CAPTURED)
    torch.compiler.reset()  # the backbones share code, which is compiled at most eight times in a process
    same(torch.compile(model, backend="eager", fullgraph=True)(x), model, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", members(BACKBONES, {"ElasticResNeXt", "MSDNet", "ShapeAdaptorResNet"}.__contains__))
def test_one_graph_for_every_size_also_as_onnx(name, tmp_path: Path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, sizes = built(name)
    free = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC} if len(sizes) > 1 else {}
    simplest = prepare(model, own_operators=False)  # as mmms export does; without it, ONNX of some takes a minute
    program = torch.export.export(simplest, (torch.randn(2, 3, *CAPTURED),), dynamic_shapes=(free,))
    torch.onnx.export(program, (), tmp_path / "model.onnx", dynamo=True, verbose=False)
    graph = program.module()
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for size in sizes:
        x = torch.randn(2, 3, *size)
        same(graph(x), model, x)
        same(session.run(None, {session.get_inputs()[0].name: x.numpy()}), model, x)
