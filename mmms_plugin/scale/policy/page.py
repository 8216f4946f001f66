"""The page on which the pictures of a scale policy are browsed, as in Appendix C of the ELASTIC paper."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmms_plugin.report.sheets import Tile, pack, safe_json
from mmms_plugin.scale.policy.table import Row, Table, class_names

TILE, ACROSS, DOWN = 96, 20, 10  # px of a thumbnail, and thumbnails of a sheet
THREADS = 2
OUTSIDE = (128, 128, 128)


@dataclass(frozen=True)
class Shown:
    """A written PNG on the page, what it shows, and its width in px."""

    data: str
    caption: str
    width: int


def shown(path: Path, caption: str, width: int = 700) -> Shown:
    """A written PNG file as a figure of the page."""
    return Shown(base64.b64encode(path.read_bytes()).decode(), caption, width)


def render(
    title: str,
    facts: Sequence[tuple[str, str]],
    figures: Sequence[Shown],
    table: Table,
    paths: Mapping[str, Path],
    other: Table | None = None,
    links: Sequence[tuple[str, str]] = (),
) -> str:
    """The page. Every text is escaped, and nothing on it is loaded from elsewhere.

    Args:
        facts: what, value. figures: from top to bottom. table: its pictures are browsed; none without rows.
        paths: of the pictures, by their names in the table. other: of a second network on the same pictures.
        links: text and address.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("mmms_plugin.scale.policy")
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    tiles = thumbnails([paths[row.name] for row in table.rows])
    gallery = (
        dict(data=safe_json(_data(table, tiles, other)), sheets=pack(tiles, TILE, ACROSS, DOWN)) if table.rows else None
    )
    page = environment.get_template("policy.html.jinja")
    strips = sum(bool(one.columns) for one in (table, other) if one is not None)
    return page.render(
        title=title, facts=facts, figures=figures, gallery=gallery, exits=table.kind == "exits",
        two=other is not None, links=links, strips=strips,
    )  # fmt: skip


def thumbnails(paths: Sequence[Path]) -> list[Tile | None]:
    """Every picture, whole, in the middle of a square; None for those that cannot be read any more."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(_thumbnail, paths))


def _thumbnail(path: Path) -> Tile | None:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            picture.draft("RGB", (TILE, TILE))  # JPEG is decoded at a fraction of its size
            whole = ImageOps.exif_transpose(picture).convert("RGB")
            scale = TILE / max(whole.size)  # CIFAR's pictures grow
            size = max(1, round(whole.width * scale)), max(1, round(whole.height * scale))
            turned = whole.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    tile = Image.new("RGB", (TILE, TILE), OUTSIDE)
    tile.paste(turned, ((TILE - turned.width) // 2, (TILE - turned.height) // 2))
    return np.asarray(tile)


def _data(table: Table, tiles: Sequence[Tile | None], other: Table | None) -> dict[str, Any]:
    places = {name: i for i, name in enumerate(class_names(table.rows))}
    second = {row.name: row for row in other.rows} if other else {}
    rows = zip(table.rows, tiles, strict=True)
    return {
        "runs": [_run(one) for one in (table, other) if one is not None],
        "classes": list(places),
        "items": [_item(row, second.get(row.name), tile is not None, places) for row, tile in rows],
        "sheet": {"tile": TILE, "across": ACROSS, "down": DOWN},
    }


def _run(table: Table) -> dict[str, Any]:
    values = table.values
    return {
        "kind": table.kind,
        "columns": table.columns,
        "threshold": table.threshold,
        "means": [_short(value) for value in values.mean(0)],
        "spreads": [_short(value) for value in values.std(0)],
    }


def _item(row: Row, other: Row | None, has_tile: bool, places: Mapping[str, int]) -> dict[str, Any]:
    return {
        "name": row.name,
        "classes": [places[name] for name in row.classes],
        "objects": len(row.sides),
        "side": _short(float(np.median(row.sides))) if row.sides else None,
        "runs": [_answer(one) for one in (row, other) if one is not None],
        "tile": has_tile,
    }


def _answer(row: Row) -> dict[str, Any]:
    return {"values": [_short(value) for value in row.values], "predicted": row.predicted, "right": row.right}


def _short(value: float) -> float:
    return float(f"{value:.4g}")
