"""A self-contained HTML page from facts, tables and figures, and files that are whole or absent."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from mmms_plugin.analysis.size_ap.tables import Table
from mmms_plugin.errors import UserError

PIXELS_AN_INCH = 110  # of figures on the page


@dataclass(frozen=True)
class Picture:
    """A figure on the page: its SVG as base64, what it shows, its width in px; ``wide`` scrolls rather than shrinks."""

    data: str
    caption: str
    width: int
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """A heading with its facts (what, value to copy), pictures and tables."""

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()


def picture(svg: Path, caption: str, inches: float, wide: bool = False) -> Picture:
    """A written SVG file of so many inches' width as a `Picture`."""
    data = base64.b64encode(svg.read_bytes()).decode()
    return Picture(data, caption, round(inches * PIXELS_AN_INCH), wide)


def render(
    title: str,
    lead: str,
    facts: Sequence[tuple[str, str]],
    notes: Sequence[str],
    sections: Sequence[Section],
) -> str:
    """The page. Every text is escaped; nothing on it is loaded from elsewhere."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("mmms_plugin.analysis.size_ap")
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    page = environment.get_template("report.html.jinja")
    return page.render(title=title, lead=lead, facts=facts, notes=notes, sections=sections)


def write_whole(path: Path, text: str) -> Path:
    """Write a text file under a temporary name, then rename it: readers never see half of it."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8")
    return temporary.replace(path)


def make_folder(folder: str | Path, argument: str = "--out") -> Path:
    """The folder, made if need be.

    Raises:
        UserError: it cannot be made or written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{argument} {folder}: this folder cannot be made ({error.strerror})") from None
    try:
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"{argument} {folder}: nothing can be written there ({error.strerror})") from None
    return folder


def check_folder(folder: str | Path) -> None:
    """As ``make_folder``, to tell a wrong one before minutes of work; what was not there is not left behind.

    Raises:
        UserError: it cannot be made or written to.
    """
    folder = Path(folder)
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder)
    for path in missing:
        path.rmdir()
