"""A self-contained HTML page from facts, tables and figures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmms_plugin.report.tables import Table
from mmms_plugin.size_ap.report.gallery import Gallery

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
    gallery: Gallery | None = None,
) -> str:
    """The page. Every text is escaped; nothing on it is loaded from elsewhere. The gallery's JSON is safe in HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("mmms_plugin.size_ap.report")
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    page = environment.get_template("report.html.jinja")
    return page.render(title=title, lead=lead, facts=facts, notes=notes, sections=sections, gallery=gallery)
