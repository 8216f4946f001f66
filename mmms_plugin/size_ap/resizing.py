"""Object sizes as a network sees them: after resizing, inside tiles, or as shares of the picture.

An object's area counts as its area on disk times width factor times height factor. The factors are those of the
picture's size in whole pixels before and after resizing, as the hosts' transforms round it and put it into
``scale_factor``. A network that sees tiles sees objects as they are, or resized as the tile is. A relative size is the
square root of the object's area over that of the picture or tile, whatever they are resized to.

Transforms are those of mmcv 2.1 (``Resize``), mmdet 3.3 (``FixScaleResize``), mmseg 1.2 (``ResizeShortestEdge``,
``ResizeToMultiple``) and mmpretrain 1.2 (``ResizeEdge``). Padding and crops change no object's size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco.objects import GroundTruth, positions
from mmms_plugin.errors import UserError
from mmms_plugin.size_ap import RELATIVE

KINDS = ("fit", "fit-floor", "stretch", "scale", "scale-fit", "shorter", "edge-short", "edge-long", "edge-width",
         "edge-height", "multiple")  # fmt: skip
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """One transform of a picture's size.

    Attributes:
        kind: 'fit' (keeps the ratio; within ``width`` x ``height`` or turned by 90 degrees), 'fit-floor' (the same,
            rounded down), 'stretch' to them, 'scale' by them, 'scale-fit' (the same, ratio kept), 'shorter' (the
            shorter side becomes ``width``, the longer at most ``height``), 'edge-short', 'edge-long', 'edge-width' or
            'edge-height' (that side becomes ``width``), 'multiple' (both sides become the next multiples of ``width``).
        width, height: px, or factors.
    """

    kind: str
    width: float
    height: float

    def sizes(self, sizes: Ints) -> Ints:
        """``(n, 2)`` width and height in px after the step, of ``(n, 2)`` before it."""
        given = np.array([self.width, self.height], np.float64)
        if self.kind in ("fit", "fit-floor"):
            return _fitted(sizes, np.broadcast_to(given, sizes.shape), 0.0 if self.kind == "fit-floor" else 0.5)
        if self.kind == "stretch":
            return np.tile(given.astype(np.int64), (len(sizes), 1))
        if self.kind in ("scale", "scale-fit"):
            target = _rounded(sizes * given)
            return target if self.kind == "scale" else _fitted(sizes, target)
        if self.kind == "multiple":
            divisor = int(self.width)
            return -(-sizes // divisor) * divisor
        if self.kind == "shorter":
            return _fitted(sizes, _shorter(sizes, self.width, self.height))
        width, height = sizes.T
        short, long = self.kind == "edge-short", self.kind == "edge-long"
        across = (short & (width < height)) | (long & (width > height)) | (self.kind == "edge-width")
        side = int(self.width)
        other = np.where(across, (side * height / width).astype(np.int64), (side * width / height).astype(np.int64))
        return np.where(across[:, None], np.stack((np.full_like(other, side), other), 1),
                        np.stack((other, np.full_like(other, side)), 1))  # fmt: skip


@dataclass(frozen=True)
class Resizing:
    """What becomes of a picture's size on its way into a network.

    Attributes:
        steps: transforms, in their order; none leaves pictures as they are.
        text: where they come from, such as ``1333x800`` or the name of a config.
    """

    steps: tuple[Step, ...]
    text: str

    @classmethod
    def fit(cls, width: int, height: int) -> Resizing:
        """``Resize(scale=(width, height), keep_ratio=True)``."""
        return cls((Step("fit", width, height),), f"{width}x{height}")

    def sizes(self, sizes: Ints) -> Ints:
        """``(n, 2)`` width and height in px as the network gets them, of ``(n, 2)`` on disk."""
        for step in self.steps:
            sizes = step.sizes(sizes)
        return sizes


@dataclass(frozen=True, eq=False)
class Measured:
    """The sizes that a pipeline really made of a data set's pictures.

    Attributes:
        scales: ``(images, 2)`` by how much pictures grew across and down, in the order of the data set's images.
        text: where they come from.
    """

    scales: Floats
    text: str

    def sizes(self, sizes: Ints) -> Floats:
        """``(images, 2)`` width and height after resizing, of those on disk."""
        return sizes * self.scales


AnyResizing: TypeAlias = Resizing | Measured


def scale_of(sample: Mapping[str, Any]) -> tuple[float, float]:
    """By how much a host's data sample says its picture grew across and down.

    Raises:
        UserError: it does not say.
    """
    if "scale_factor" in sample:
        across, down = np.broadcast_to(sample["scale_factor"], 2).tolist()
        return across, down
    if "img_shape" in sample and tuple(sample["img_shape"][:2]) == tuple(sample["ori_shape"][:2]):
        return 1.0, 1.0
    raise UserError(
        "resize='pipeline': samples have no scale_factor; add it to the meta_keys of the pipeline's last transform"
    )


def seen_scales(sizes: Ints, resize: AnyResizing | None, tiles: tuple[int, int] | None = None) -> Floats:
    """``(n, 2)`` by how much objects grow across and down in pictures of ``(n, 2)`` px, larger than 0."""
    shown = np.minimum(sizes, tiles) if tiles else sizes
    return (resize.sizes(shown) if resize else shown) / shown


def area_factors(
    truth: GroundTruth, unit: str = "side", resize: AnyResizing | None = None, tiles: tuple[int, int] | None = None
) -> Floats | None:
    """``(images,)`` by which the areas of objects are multiplied in each of ``truth.image_ids``; None for 1 everywhere.

    Args:
        truth: whose pictures' sizes count.
        unit: of the bins; 'relative' makes areas shares of the picture's, or of the tile's.
        resize: what is done to pictures, or to tiles.
        tiles: (width, height) in px of the tiles that the network sees; smaller pictures are their own tile.

    Raises:
        UserError: the sizes of pictures are needed and missing.
    """
    if unit != RELATIVE and resize is None:
        return None
    return factors_of(
        known_sizes(truth, "--bin-unit relative" if unit == RELATIVE else "--resize"), unit, resize, tiles
    )


def factors_of(
    sizes: Ints, unit: str, resize: AnyResizing | None = None, tiles: tuple[int, int] | None = None
) -> Floats | None:
    """As `area_factors`, of pictures of ``(n, 2)`` width and height in px."""
    if unit != RELATIVE and resize is None:
        return None
    if unit == RELATIVE:
        shown = np.minimum(sizes, tiles) if tiles else sizes
        return 1 / shown.prod(1).astype(np.float64)
    return seen_scales(sizes, resize, tiles).prod(1)


def known_sizes(truth: GroundTruth, option: str) -> Ints:
    """``(images, 2)`` width and height in px; raises UserError if any is unknown, which ``option`` needs."""
    lacking = int((truth.image_sizes <= 0).any(1).sum())
    if lacking:
        raise UserError(
            f"{option}: {lacking} of {len(truth.image_sizes)} images have no width and height; add them to the "
            "annotation file"
        )
    return truth.image_sizes


def with_factors(areas: Floats, image_id: Ints, image_ids: Ints, factors: Floats | None) -> Floats:
    """``(n,)`` areas times the factor of the image that each is in; those of unknown images are any number."""
    return areas if factors is None else areas * factors[positions(image_id, image_ids)]


def describe_seen(unit: str, resize: AnyResizing | None, tiles: tuple[int, int] | None = None) -> str:
    """How sizes differ from those on disk, for the reader; empty if they do not."""
    tile = f"{tiles[0]}x{tiles[1]} px" if tiles else ""
    if unit == RELATIVE:
        of = f"tile ({tile}, or the picture where that is smaller)" if tiles else "picture"
        return f"side of the object = √area, as a share of the √area of the {of}"
    if resize is None:
        return f"px inside tiles of {tile}, which are not resized" if tiles else ""
    return f"px after resizing {f'tiles of {tile}' if tiles else 'pictures'} ({resize.text})"


def _rounded(sizes: Floats, up_from: float = 0.5) -> Ints:
    return (sizes + up_from).astype(np.int64)


def _fitted(sizes: Ints, targets: NDArray, up_from: float = 0.5) -> Ints:
    factor = np.minimum(targets.max(1) / sizes.max(1), targets.min(1) / sizes.min(1))
    return _rounded(sizes * factor[:, None], up_from)


def _shorter(sizes: Ints, side: float, longest: float) -> Ints:
    scaled = np.where(sizes == sizes.min(1)[:, None], side, side / sizes.min(1)[:, None] * sizes)
    most = scaled.max(1)
    return _rounded(scaled * np.where(most > longest, longest / most, 1.0)[:, None])
