"""For pages with thousands of small pictures: large pictures that hold them, and JSON inside of HTML."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUALITY = 75
Tile = NDArray[np.uint8]


def pack(tiles: Sequence[Tile | None], side: int, across: int, down: int) -> tuple[str, ...]:
    """Tiles ``[side, side, 3]``, row after row, on as many sheets as needed: JPEG in base64. None is left black."""
    return tuple(_sheet(tiles[i : i + across * down], side, across) for i in range(0, len(tiles), across * down))


def _sheet(tiles: Sequence[Tile | None], side: int, across: int) -> str:
    from PIL import Image

    sheet = np.zeros((-(-len(tiles) // across) * side, across * side, 3), np.uint8)
    for i, tile in enumerate(tiles):
        if tile is not None:
            y, x = (i // across) * side, (i % across) * side
            sheet[y : y + side, x : x + side] = tile
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "JPEG", quality=QUALITY)
    return base64.b64encode(file.getvalue()).decode()


def safe_json(data: Any) -> str:
    """JSON in which no text can end the script element that holds it."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
