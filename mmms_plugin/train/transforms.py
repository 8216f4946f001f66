"""Transforms of recipes that no host has.

A file of its own, because importing it imports mmcv.
"""

from __future__ import annotations

from typing import Any

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform

from mmms_plugin.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomScale(BaseTransform):
    """Resize picture and mask by a random factor, whose logarithm is uniform: halving is as likely as doubling.

    Pillow resizes the picture with a Lanczos filter, and the mask by its nearest label (ELASTIC, github.com/allenai/
    elastic, utils.py).

    Args:
        scale_range: smallest and largest factor of both sides.

    Raises: ValueError unless the factors are above 0 and ascend.
    """

    def __init__(self, scale_range: tuple[float, float] = (0.5, 2.0)) -> None:
        low, high = scale_range
        if not 0 < low <= high:
            raise ValueError(f"scale_range={scale_range!r}: must be two ascending factors above 0")
        self.scale_range = low, high

    def random_factor(self) -> float:
        """A factor from the range."""
        return float(np.exp(np.random.uniform(*np.log(self.scale_range))))  # noqa: NPY002 - the generator that mmcv seeds

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize ``img`` and, if there is one, ``gt_seg_map``; sets the fields that ``Resize`` sets."""
        factor = self.random_factor()
        height, width = results["img"].shape[:2]
        size = max(1, round(width * factor)), max(1, round(height * factor))
        results["img"] = mmcv.imresize(results["img"], size, interpolation="lanczos", backend="pillow")
        for key in results.get("seg_fields", []):
            results[key] = mmcv.imresize(results[key], size, interpolation="nearest", backend="pillow")
        results.update(scale=size, img_shape=size[::-1], scale_factor=(size[0] / width, size[1] / height))
        results["keep_ratio"] = True
        return results
