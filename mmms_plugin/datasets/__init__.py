"""The generated multi-scale data set, in the layouts that the hosts read. No host is imported here.

What draws and writes it is imported on first use, so that ``mmms make-shapes --help`` needs no NumPy.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmms_plugin.datasets.shape_pictures import CLASSES, Picture, draw_picture
    from mmms_plugin.datasets.shapes import ShapesWritten, write_shapes

__all__ = ["CLASSES", "Picture", "ShapeSettings", "ShapesWritten", "draw_picture", "write_shapes"]
FORMATS = ("coco", "voc", "imagefolder")
_MODULES = dict.fromkeys(("CLASSES", "Picture", "draw_picture"), "shape_pictures")
_MODULES |= dict.fromkeys(("ShapesWritten", "write_shapes"), "shapes")


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


@dataclass(frozen=True)
class ShapeSettings:
    """What decides every byte of a generated data set.

    Attributes:
        train: number of training pictures.
        val: number of validation pictures.
        size: width and height of the pictures in px.
        seed: of everything random.
        formats: views to write.
        crowds: mark some regions of the COCO view as ``iscrowd``.
        large: draw large objects only, one or two per picture.
        small: draw small objects only, of 10 to 24 px, many per picture.
        colours: give each class colours of its own.

    Raises:
        ValueError: a number out of range, an unknown format, or objects that are large and small.
    """

    train: int = 600
    val: int = 100
    size: int = 192
    seed: int = 0
    formats: tuple[str, ...] = FORMATS
    crowds: bool = False
    large: bool = False
    small: bool = False
    colours: bool = False

    def __post_init__(self) -> None:
        ranges = {"train": (0, 100_000), "val": (0, 100_000), "size": (32, 2048), "seed": (0, 2**32 - 1)}
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ValueError(f"{name}={value!r}: must be an integer from {low} to {high}")
        if self.train + self.val == 0:
            raise ValueError("train=0, val=0: one of them must be 1 or more")
        if self.large and self.small:
            raise ValueError("large and small: give one of them")
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown or not self.formats:
            raise ValueError(f"formats={self.formats!r}: allowed are {', '.join(FORMATS)} or 'all'")
        object.__setattr__(self, "formats", tuple(name for name in FORMATS if name in self.formats))
