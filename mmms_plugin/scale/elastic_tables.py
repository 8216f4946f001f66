"""Parameters and FLOPs in the tables of the ELASTIC paper, beside those measured here.

1. Table 1 has formulas; its rows are evaluated for one layer, n = 56, 64 to 64 channels, k = 3, r = (1, 2), b = (2, 2).
   The pyramids are built here as their formulas have them, with every branch at full resolution.
2. Classification errors on ImageNet are the paper's, for orientation; they are not measured.
3. The authors' DLA has layers that it never uses; its figures include them, and so do the measured ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from mmengine.registry import MODELS
from torch import nn

from mmms_plugin.scale.flops import Cost, count, measure

SIZE, CLASSES = (224, 224), 1000
LAYER_SIDE, LAYER_CHANNELS, LAYER_KERNEL = 56, 64, 3


class Row(NamedTuple):
    """A row of the paper: parameters in 1e6, None if it gives none; FLOPs in 1e9; top-1 error in %."""

    table: str
    name: str
    config: Mapping[str, Any]
    params: float | None
    flops: float
    top1: float | None = None


def _resnext(depth: int, elastic: str = "none", **options: Any) -> dict[str, Any]:
    return dict(type="mmms_plugin.ElasticResNeXt", depth=depth, elastic=elastic, **options)


def _dense(elastic: bool) -> dict[str, Any]:
    return dict(type="mmms_plugin.ElasticDenseNet", depth=201, elastic=elastic)


def _dla(arch: str, elastic: str = "none", **policy: Any) -> dict[str, Any]:
    options = dict(elastic_cfg=policy) if policy else {}
    return dict(type="mmms_plugin.DLA", arch=arch, elastic=elastic, **options)


_PLAIN_LAYER = LAYER_SIDE**2 * LAYER_CHANNELS**2 * LAYER_KERNEL**2  # n^2 c k^2, with c for both channel counts
_LAYER_PARAMS = LAYER_CHANNELS**2 * LAYER_KERNEL**2

ROWS = (
    Row("1", "single-scale layer", dict(type="Conv2d"), _LAYER_PARAMS / 1e6, _PLAIN_LAYER / 1e9),
    Row("1", "feature pyramid, concat", dict(type="feature pyramid, concat"), 2 * _LAYER_PARAMS / 1e6,
        2 * _PLAIN_LAYER / 1e9),
    Row("1", "feature pyramid, add", dict(type="feature pyramid, add"), _LAYER_PARAMS / 1e6, _PLAIN_LAYER / 1e9),
    Row("1", "filter pyramid, standard", dict(type="filter pyramid"), _LAYER_PARAMS * (1 + 4) / 2 / 1e6,
        _PLAIN_LAYER * (1 + 4) / 2 / 1e9),
    Row("1", "filter pyramid, dilated", dict(type="mmms_plugin.PSConv"), _LAYER_PARAMS / 1e6,
        _PLAIN_LAYER / 1e9),
    Row("1", "Elastic layer", dict(type="mmms_plugin.ElasticConv"), _LAYER_PARAMS / 1e6,
        (_PLAIN_LAYER / 2 + _PLAIN_LAYER / 4 / 2) / 1e9),
    Row("2", "DenseNet201*", _dense(False), 20.0, 4.4, 22.25),
    Row("2", "DenseNet201+Elastic", _dense(True), 19.5, 4.3, 22.07),
    Row("2", "ResNeXt50*", _resnext(50), 25.0, 4.2, 22.23),
    Row("2", "ResNeXt50+Elastic", _resnext(50, "full"), 25.2, 4.2, 21.56),
    Row("2", "SE-ResNeXt50*", _resnext(50, se_ratio=16), 27.6, 4.2, 21.87),
    Row("2", "SE-ResNeXt50+Elastic", _resnext(50, "full", se_ratio=16), 27.8, 4.2, 21.38),
    Row("2", "ResNeXt101*", _resnext(101), 44.2, 8.0, 21.18),
    Row("2", "ResNeXt101+Elastic", _resnext(101, "full"), 44.3, 7.9, 20.83),
    Row("2", "ResNeXt50x2+Elastic", _resnext(50, "full", groups=64), 45.6, 7.9, 20.86),
    Row("2", "DLA-X60*", _dla("60x"), 17.6, 3.6, 21.92),
    Row("2", "DLA-X60+Elastic", _dla("60x", "full"), 17.6, 3.2, 21.25),
    Row("2", "DLA-X102", _dla("102x"), 26.8, 6.0, 21.5),
    Row("2", "DLA-X102+Elastic", _dla("102x", "full"), 25.0, 6.0, 20.71),
    Row("6", "original, no Elastic", _dla("60x"), None, 3.6, 21.92),
    Row("6", "bilinear, w/ AP", _dla("60x", "full", method="bilinear"), None, 3.2, 21.25),
    Row("6", "nearest, w/ AP", _dla("60x", "full", method="nearest"), None, 3.2, 21.49),
    Row("6", "trained dilated, w/ AP", _dla("60x", "full", method="dilated"), None, 3.6, 21.20),
    Row("6", "trained dilated", _dla("60x", "full", method="dilated", pool=False), None, 3.6, 21.60),
    Row("6", "trained", _dla("60x", "full", method="trained", pool=False), None, 3.2, 21.52),
    Row("7", "high 100%, low 0%", _dla("60x", "full", shares=(1.0, 0.0)), None, 3.6, 21.92),
    Row("7", "high 50%, low 50%", _dla("60x", "full", shares=(0.5, 0.5)), None, 3.2, 21.25),
    Row("7", "high 75%, low 25%", _dla("60x", "full", shares=(0.75, 0.25)), None, 3.4, 21.35),
    Row("7", "high 25%, low 75%", _dla("60x", "full", shares=(0.25, 0.75)), None, 2.9, 21.44),
    Row("8", "ResNeXt50*", _resnext(50), 25.0, 4.2, 22.23),
    Row("8", "ResNeXt50+sElastic", _resnext(50, "simple"), 25.0, 3.4, 22.03),
    Row("8", "ResNeXt50+Elastic", _resnext(50, "full"), 25.2, 4.2, 21.56),
    Row("8", "DLA-X60*", _dla("60x"), 17.6, 3.6, 21.92),
    Row("8", "DLA-X60+sElastic", _dla("60x", "simple"), 17.6, 3.2, 21.25),
    Row("8", "DLA-X60+Elastic", _dla("60x", "full"), 17.6, 3.2, 21.25),
    Row("8", "DLA-X102", _dla("102x"), 26.8, 6.0, 21.5),
    Row("8", "DLA-X102+sElastic", _dla("102x", "simple"), 26.8, 5.0, 21.0),
    Row("8", "DLA-X102+Elastic", _dla("102x", "full"), 24.9, 6.0, 20.71),
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """A row and its measured cost; ``params`` and ``gmacs`` include unused layers, as the paper's figures do."""

    row: Row
    cost: Cost

    @property
    def params(self) -> float:
        return (self.cost.params + self.cost.unused_params) / 1e6

    @property
    def gmacs(self) -> float:
        return (self.cost.macs + self.cost.unused_macs) / 1e9

    @property
    def params_agree(self) -> bool:
        """Whether the measured figure rounds to the paper's; True if the paper has none."""
        return self.row.params is None or _rounds_to(self.row.params, self.params)

    @property
    def flops_agree(self) -> bool:
        """As ``params_agree``, with or without up-sampling: the paper does not say whether it is counted."""
        return any(_rounds_to(self.row.flops, self.gmacs + extra) for extra in (0, self.cost.upsampling / 1e9))

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the paper's figures in 1e6 and 1e9, the measured ones as counts."""
        row = self.row
        paper = dict(params_millions=row.params, gflops=row.flops, top1_error_percent=row.top1)
        return dict(table=row.table, model=row.name, config=dict(row.config), paper=paper, measured=asdict(self.cost))


def compare(progress: Callable[..., Any] = iter) -> list[Comparison]:
    """Measure every row, each config once.

    Args:
        progress: wraps the rows, to show progress.
    """
    costs: dict[str, Cost] = {}
    for row in progress(ROWS):
        key = repr(sorted(row.config.items()))
        if key not in costs:
            costs[key] = _layer_cost(row.config) if row.table == "1" else measure(row.config, SIZE, CLASSES)
    return [Comparison(row, costs[repr(sorted(row.config.items()))]) for row in ROWS]


def _rounds_to(paper: float, measured: float) -> bool:
    return abs(measured - paper) < 0.0505  # the paper has one digit, and truncates 17.65 to 17.6


def _layer_cost(config: Mapping[str, Any]) -> Cost:
    kind, channels = config["type"], LAYER_CHANNELS
    with torch.device("meta"):
        if kind in PYRAMIDS:
            layer: nn.Module = PYRAMIDS[kind]()
        else:
            layer_class = nn.Conv2d if kind == "Conv2d" else MODELS.get(kind)
            layer = layer_class(channels, channels, LAYER_KERNEL, padding=LAYER_KERNEL // 2, bias=False)
        return count(layer, torch.empty(1, channels, LAYER_SIDE, LAYER_SIDE))


def _conv(outputs: int, ratio: int = 1) -> nn.Module:
    side = LAYER_KERNEL * ratio
    padding = nn.ZeroPad2d(((side - 1) // 2, side // 2) * 2)  # keeps the size, of even kernels too
    return nn.Sequential(padding, nn.Conv2d(LAYER_CHANNELS, outputs, side, bias=False))


class _Concatenated(nn.ModuleList):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([layer(x) for layer in self], 1)


class _Added(nn.Module):
    """One convolution of the sum of two maps of the pyramid."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = _conv(LAYER_CHANNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x + x)


# What Table 1 compares with and the package has no layer for, by the type in ROWS.
PYRAMIDS: Mapping[str, Callable[[], nn.Module]] = {
    "feature pyramid, concat": lambda: _Concatenated([_conv(LAYER_CHANNELS) for _ in range(2)]),
    "feature pyramid, add": _Added,
    "filter pyramid": lambda: _Concatenated([_conv(LAYER_CHANNELS // 2, ratio) for ratio in (1, 2)]),
}
