"""Captured graphs: any size from one graph, and no path that is only quicker on the device they were captured on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mmms_plugin.backbones import DLA
from mmms_plugin.layers import ElasticConv2d, PSConv2d
from mmms_plugin.layers.resampling import fit_to
from mmms_plugin.necks import DLAUp


def exported(model: nn.Module, x: Tensor) -> Callable[[Tensor], object]:
    dims = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    return torch.export.export(model, (x,), dynamic_shapes=(dims,)).module()


def traced(model: nn.Module, x: Tensor) -> Callable[[Tensor], object]:
    return torch.jit.trace(model, x)


class Fit(nn.Module):
    """Fit a map that is smaller or larger than the input to its size."""

    def __init__(self, kernel: int, padding: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(kernel, 1, padding)

    def forward(self, x: Tensor) -> Tensor:
        return fit_to(self.pool(x), (x.shape[2], x.shape[3]))


@pytest.mark.parametrize("capture", [exported, traced])
@pytest.mark.parametrize(
    "make",
    [lambda: Fit(3, 0), lambda: Fit(2, 1), lambda: ElasticConv2d(4, 4, 3, padding=1)],
    ids=["repeat", "crop", "ElasticConv2d"],
)
def test_one_graph_fits_any_size(make, capture):
    """Sizes stay symbols: checks, cropping and padding put no condition on them."""
    model = make().eval()
    graph = capture(model, torch.randn(1, 4, 8, 11))
    for size in ((9, 6), (7, 7)):
        x = torch.randn(1, 4, *size)
        torch.testing.assert_close(graph(x), model(x))


@pytest.mark.slow
def test_dla_with_dla_up_exported_at_one_odd_size_runs_at_another():
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = DLA("46_c", out_indices=(1, 2))
            self.neck = DLAUp(self.backbone.out_channels)

        def forward(self, x: Tensor) -> Tensor:
            return self.neck(self.backbone(x))[0]

    torch.manual_seed(0)
    model = Network().eval()
    graph = exported(model, torch.randn(1, 3, 129, 97))
    for size in ((160, 130), (65, 64)):
        x = torch.randn(1, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(graph(x), model(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("capture", [exported, traced])
def test_the_path_for_narrow_layers_on_the_cpu_is_not_captured(capture):
    """There 10 small convolutions are quicker; the graph has the one for each dilation, for whatever runs it."""
    layer = PSConv2d(8, 8, 3, padding=1).eval()
    x = torch.randn(1, 8, 9, 10)
    graph = capture(layer, x)
    nodes = (
        [str(node.target) for node in graph.graph.nodes] if capture is exported else str(graph.inlined_graph).split()
    )
    assert sum("conv2d" in node or "_convolution(" in node for node in nodes) == 3
    torch.testing.assert_close(graph(x), layer(x))
