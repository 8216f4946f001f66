"""A self-contained HTML page: facts, tables, figures, and a gallery of many small pictures.

Everything is in one file. Colours, including those of the figures, follow the reader's light or dark scheme.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.errors import UserError
from mmms_plugin.files import write_text
from mmms_plugin.processes import compiled_code_silenced
from mmms_plugin.report import FIGURES
from mmms_plugin.report.tables import Table, to_latex, to_markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

PIXELS_PER_INCH = 110  # of figures on the page
QUALITY = 75  # of the gallery's JPEGs
OUTSIDE = (128, 128, 128)  # colour of a tile outside the picture
THREADS = 2
Tile = NDArray[np.uint8]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Picture:
    """A figure on the page: SVG in base64, caption, and width in px; a ``wide`` one scrolls rather than shrinks."""

    data: str
    caption: str
    width: int
    wide: bool = False


@dataclass(frozen=True)
class Gallery:
    """Many small pictures to browse, with filters and orders.

    Attributes:
        noun: plural noun for the items.
        remarks: paragraphs above them.
        legend: of the marks: class in the page's style sheet ('there', 'found', 'scale'), sign and text.
        items: dicts of ``title``; ``lines`` of text below the picture; ``facts`` beside the enlarged picture, pairs of
            name and value; ``tile``, the number among ``tiles`` or -1; and a value for every filter (an index into its
            values, or several) and order. Optional: ``hover``; ``window``, ``box`` and ``object``, frames in px of the
            whole picture; ``marks``, right and wrong answers; ``runs``, values for the strips.
        filters: dicts of ``key`` in the items, ``name``, ``values``, and ``notes`` on the values.
        orders: dicts of ``key`` (or ``column`` of the first strip) and ``name``; optional: ``sign``, -1 for descending;
            ``line``, key of the text shown with it, or ``prefix`` of its number.
        tiles: pictures ``[side, side, 3]``, None for those that cannot be shown.
        side: of a tile, px.
        across, down: size of a sheet, in tiles.
        large: side of the enlarged picture, px.
        search: whether there is a search field.
        directions: whether the order can be reversed.
        runs: dicts of ``columns``, and of ``means`` and ``spreads`` if values are scores rather than confidences.
        tables: for tables ``KEY-1`` (of the first run), ``KEY-2``, ...: filters that a click on a row or column sets.
    """

    noun: str
    remarks: Sequence[str]
    legend: Sequence[tuple[str, str, str]]
    items: Sequence[dict[str, Any]]
    filters: Sequence[dict[str, Any]]
    orders: Sequence[dict[str, Any]]
    tiles: Sequence[Tile | None]
    side: int
    across: int
    down: int
    large: int
    search: bool = False
    directions: bool = False
    runs: Sequence[dict[str, Any]] = ()
    tables: dict[str, dict[str, str]] | None = None

    @property
    def json(self) -> str:
        """The data for the script; no text in it can end the script element."""
        names = ("noun", "items", "filters", "orders", "large", "search", "directions", "runs", "tables")
        data = {name: getattr(self, name) for name in names}
        data["sheet"] = {"tile": self.side, "across": self.across, "down": self.down}
        text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
        for sign in "<>&":
            text = text.replace(sign, f"\\u{ord(sign):04x}")
        return text

    @property
    def sheets(self) -> tuple[str, ...]:
        """The tiles in rows on as many pictures as needed, JPEG in base64."""
        if all(tile is None for tile in self.tiles):
            return ()
        step = self.across * self.down
        return tuple(self._sheet(self.tiles[i : i + step]) for i in range(0, len(self.tiles), step))

    def _sheet(self, tiles: Sequence[Tile | None]) -> str:
        from PIL import Image

        side = self.side
        sheet = np.zeros((-(-len(tiles) // self.across) * side, self.across * side, 3), np.uint8)
        for i, tile in enumerate(tiles):
            if tile is not None:
                y, x = (i // self.across) * side, (i % self.across) * side
                sheet[y : y + side, x : x + side] = tile
        file = io.BytesIO()
        Image.fromarray(sheet).save(file, "JPEG", quality=QUALITY)
        return base64.b64encode(file.getvalue()).decode()


@dataclass(frozen=True)
class Section:
    """A heading with facts (name, value to copy), pictures, tables and a gallery; a page has at most one gallery."""

    title: str
    facts: Sequence[tuple[str, str]] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    gallery: Gallery | None = None


class Output:
    """The folder of a report, and the files written so far.

    Args:
        folder: the folder.
        formats: of the figures, besides SVG: ``png``, ``pdf``.

    Raises:
        UserError: another format.
    """

    def __init__(self, folder: Path, formats: Sequence[str] = ()) -> None:
        if unknown := [kind for kind in formats if kind not in FIGURES]:
            raise UserError(f"figures={unknown[0]}: allowed are {', '.join(FIGURES)}")
        self.folder = folder
        self.formats = tuple(dict.fromkeys((*formats, "svg")))  # which the page is made of
        self.written: list[Path] = []

    def figure(self, name: str, figure: Figure, caption: str, wide: bool = False) -> Picture:
        """Write a figure in every format, and return it for the page."""
        from mmms_plugin.report.figure_style import for_a_page, save  # matplotlib takes a while to import

        width = round(figure.get_figwidth() * PIXELS_PER_INCH)
        self.written += save(figure, self.folder, name, self.formats)
        svg = for_a_page((self.folder / f"{name}.svg").read_text(encoding="utf-8"))
        return Picture(base64.b64encode(svg.encode()).decode(), caption, width, wide)

    def texts(self, files: Mapping[str, str]) -> None:
        """Write text files, by name."""
        self.written += [write_text(self.folder / name, text) for name, text in files.items()]

    def tables(self, sections: Sequence[Section], prefix: str = "", note: str = "") -> None:
        """Write the tables of all sections, with a note, in Markdown and LaTeX: ``tables.md`` and ``tables.tex``."""
        tables = [replace(table, note=note or table.note) for section in sections for table in section.tables]
        self.texts({
            f"{prefix}tables.md": "\n".join(map(to_markdown, tables)),
            f"{prefix}tables.tex": "\n".join(map(to_latex, tables)),
        })  # fmt: skip


def render(
    title: str,
    facts: Iterable[tuple[str, str]],
    sections: Sequence[Section],
    *,
    heading: str = "",
    lead: str = "",
    notes: Sequence[str] = (),
    links: Sequence[tuple[str, str]] = (),
) -> str:
    """The page as HTML. All text is escaped, and nothing is loaded from elsewhere.

    Args:
        title: of the window.
        facts: pairs of name and value.
        sections: from top to bottom.
        heading: first line of the page; by default the title.
        lead: a sentence below the heading.
        notes: what the reader should know.
        links: pairs of text and address.
    """
    return _filled(
        "page.html.jinja", title=title, heading=heading or title, lead=lead, facts=facts, notes=notes, links=links,
        sections=sections, galleries=[section.gallery for section in sections if section.gallery],
    )  # fmt: skip


def tables_html(tables: Sequence[Table], notes: Sequence[str] = (), remarks: Sequence[str] = ()) -> str:
    """Notes, tables and remarks on them for a notebook, in its own colours, light or dark."""
    return _filled("tables.html.jinja", tables=tables, notes=notes, remarks=remarks)


def _filled(template: str, **content: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mmms_plugin.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    return environment.get_template(template).render(**content)


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """The ``function`` of every item, for example to decode pictures in parallel."""
    with compiled_code_silenced(), ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, items))


def open_picture(path: Path | None, size: tuple[int, ...] | None = None, side: int = 0) -> Image.Image | None:
    """A picture as RGB, upright; None if it cannot be read.

    Args:
        path: of the file, or None.
        size: known (width, height); the picture is then rotated only if that makes it fit.
        side: px of the square in which it will be shown; a JPEG is then decoded at a fraction of its size.
    """
    from PIL import ImageOps

    from mmms_plugin.coco.picture_files import MAX_PIXELS, PictureError, opened_picture, picture_file

    if path is None:
        return None
    try:
        with picture_file(path) as file, opened_picture(file, MAX_PIXELS, decode=True) as picture:
            if side:
                picture.draft("RGB", (side, side))
            if size is None or (picture.size != size and picture.size[::-1] == size):
                ImageOps.exif_transpose(picture, in_place=True)
            picture.load()
            return picture if picture.mode == "RGB" else picture.convert("RGB")
    except PictureError:
        return None
