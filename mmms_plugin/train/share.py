"""A random share of a data set, for ``--fraction``."""

from __future__ import annotations

import random
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS as ROOT

from mmms_plugin.errors import UserError
from mmms_plugin.registry import DATASETS


@DATASETS.register_module()  # type: ignore[type-var]  # mmengine registers functions too
def share_of(dataset: dict[str, Any], share: float) -> BaseDataset:
    """Build a data set and keep a random share of its pictures, at least one, in their order.

    They depend on the number of pictures alone, and those of a smaller share are among them.

    Args:
        dataset: config of the data set.
        share: above 0, at most 1.

    Raises:
        UserError: it is not a BaseDataset of mmengine.
    """
    built = ROOT.build(dataset)
    if not isinstance(built, BaseDataset):
        raise UserError(f"--fraction: {type(built).__name__} is not a BaseDataset, whose pictures can be chosen")
    built.full_init()
    order = list(range(len(built)))
    random.Random(0).shuffle(order)
    built.get_subset_(sorted(order[: max(1, round(share * len(order)))]) if order else [])
    return built
