"""Parameters and multiply-adds of the rows of a table, counted, beside those of the source.

The authors' DLA has layers that it never uses; its figures include them, and so do the counted ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmms_plugin.config.files import load_config
from mmms_plugin.reproduction.items import MACS, PARAMS, Item, Row
from mmms_plugin.scale.flops import Cost, measure
from mmms_plugin.scale.pyramids import PLAIN, layer_cost

SIZE, CLASSES = (224, 224), 1000
UNITS: Mapping[str, float] = {PARAMS: 1e-6, MACS: 1e-9}


def backbone_of(row: Row) -> dict[str, Any]:
    """The backbone that a row trains, as a config."""
    config = load_config(row.config)
    config.merge_from_dict(dict(row.options))
    return dict(config.model.backbone.to_dict())


@dataclass(frozen=True)
class Counted:
    """A row of an item, and its cost."""

    item: Item
    row: Row
    cost: Cost

    @property
    def metrics(self) -> dict[str, float | None]:
        """With the layers that are never used; of a layer, in multiples of the plain one's."""
        whole = {PARAMS: self.cost.params + self.cost.unused_params, MACS: self.cost.macs + self.cost.unused_macs}
        return {metric: value / self.unit(metric) for metric, value in whole.items()}

    def unit(self, metric: str) -> float:
        """What 1 of a metric stands for: the plain layer's cost in a table of layers."""
        return {PARAMS: PLAIN.params, MACS: PLAIN.macs}[metric] if self.row.layer else 1

    def published(self, metric: str) -> float | None:
        """The source's figure, None if it has none."""
        for column, figure in zip(self.item.measures, self.row.published, strict=True):
            if column.metric == metric and not isinstance(figure, str):
                return figure
        return None

    def here(self, metric: str) -> float:
        """The counted figure, in the source's unit."""
        return (self.metrics[metric] or 0) * (1 if self.row.layer else UNITS[metric])

    def agrees(self, metric: str) -> bool:
        """Whether the counted figure rounds to the source's; True if the source has none.

        Multiply-adds may be with or without up-sampling: the paper does not say whether it is counted.
        """
        figure, here = self.published(metric), self.here(metric)
        extra = self.cost.upsampling * UNITS[MACS] if metric == MACS else 0
        tolerance = 1e-9 if self.row.layer else 0.0505  # one digit, and 17.65 is truncated to 17.6
        return figure is None or any(abs(value - figure) < tolerance for value in (here, here + extra))


def count_row(item: Item, row: Row) -> Counted:
    """Count a row with a config or a layer."""
    if row.layer:
        return Counted(item, row, layer_cost(row.layer))
    if row.folder not in _costs:
        _costs[row.folder] = measure(backbone_of(row), SIZE, CLASSES)
    return Counted(item, row, _costs[row.folder])


_costs: dict[str, Cost] = {}  # the same training has the same folder in every item
