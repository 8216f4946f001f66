"""Square tiles that cover a picture."""

from __future__ import annotations

from typing import NamedTuple


class Tile(NamedTuple):
    """Edges of a tile in px of the picture; the last two are exclusive."""

    left: int
    top: int
    right: int
    bottom: int


def tiles_in(width: int, height: int, size: int, overlap: float) -> list[Tile]:
    """The tiles of a picture, row by row.

    Neighbours share ``int(overlap * size)`` px; the last tile of a row or column is moved inward, so that it overlaps
    more. A picture that is smaller than a tile in a direction has tiles of its own width or height.

    Args:
        width, height: of the picture, px.
        size: side of a tile, px.
        overlap: share of a tile, from 0 to below 1.
    """
    step = size - int(overlap * size)
    return [
        Tile(left, top, min(left + size, width), min(top + size, height))
        for top in _starts(height, size, step)
        for left in _starts(width, size, step)
    ]


def _starts(length: int, size: int, step: int) -> list[int]:
    return [*range(0, length - size, step), max(0, length - size)]
