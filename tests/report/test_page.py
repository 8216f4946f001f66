"""The page: figures for both colour schemes, and a gallery whose data cannot end the script that holds it."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
from matplotlib import colors
from PIL import Image

from mmms_plugin.report import figure_style
from mmms_plugin.report.page import Gallery, Output, Section, in_threads, open_picture, render

HOSTILE = "</script><script>alert(1)</script><!-- & \u2028"


def test_figures_follow_the_readers_scheme_on_the_page_alone(tmp_path):
    with figure_style.canvas() as (figure, (axis,)):
        axis.plot([0, 1], [0, 1], color=figure_style.NEUTRAL, label="a line")
        axis.set_title("a title")
    output = Output(tmp_path, ("png", "svg"))
    picture = output.figure("name", figure, "caption", wide=True)
    assert [path.name for path in output.written] == ["name.png", "name.svg"]
    assert (picture.caption, picture.width, picture.wide) == ("caption", round(figure_style.WIDTH * 110), True)
    file, svg = (tmp_path / "name.svg").read_text(encoding="utf-8"), base64.b64decode(picture.data).decode()
    assert "prefers-color-scheme" not in file
    rules = re.search(r"<style>@media \(prefers-color-scheme: dark\) \{ (.*) \}</style></svg>", svg)
    assert rules
    drawn = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", file))
    assert {figure_style.INK.lower(), figure_style.NEUTRAL.lower(), "#ffffff"} <= drawn
    for colour in drawn:
        assert f": {colour}" in rules[1]
    assert "<text" not in file  # glyphs, so that no font is needed


def test_what_is_dark_on_white_is_light_on_dark():
    assert {figure_style.INK.lower(), figure_style.NEUTRAL.lower()} <= set(figure_style.DARK)
    for light, dark in figure_style.DARK.items():
        page, paper = (np.mean(colors.to_rgb(colour)) for colour in ("#1f2226", "#ffffff"))
        before, after = (np.mean(colors.to_rgb(colour)) for colour in (light, dark))
        assert abs(after - page) > 0.4 * abs(before - paper)


def test_the_gallerys_data_are_data():
    item, order = dict(title=HOSTILE, lines=[HOSTILE], facts=[], tile=-1), dict(key="title", name=HOSTILE)
    shown = Gallery("things", [HOSTILE], [("there", HOSTILE, "sign")], [item], [], [order], [None], 2, 2, 2, 64)
    page = render("t", [], [Section(HOSTILE, gallery=shown)], notes=[HOSTILE], lead=HOSTILE)
    assert page.count("<script") == page.count("</script>") == 2
    (data,) = re.findall(r'<script type="application/json" id="things">(.*?)</script>', page)
    assert json.loads(data)["items"] == [item]
    assert shown.sheets == ()


def test_tiles_are_packed_row_after_row_on_sheets_of_four():
    colours = [(200, 0, 0), (0, 200, 0), None, (0, 0, 200), (200, 200, 200)]
    tiles = [None if c is None else np.full((16, 16, 3), c, np.uint8) for c in colours]
    large = Gallery("things", [], [], [], [], [], tiles, 16, 2, 2, 64)
    first, second = (np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet)))) for sheet in large.sheets)
    assert (first.shape, second.shape) == ((32, 32, 3), (16, 32, 3))
    for place, colour in enumerate(colours):
        sheet, k = (first, place) if place < 4 else (second, 0)
        y, x = 16 * (k // 2) + 8, 16 * (k % 2) + 8
        assert np.abs(sheet[y, x].astype(int) - (colour or (0, 0, 0))).max() < 30


def test_pictures_that_cannot_be_read_are_none(tmp_path):
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    sizes = in_threads(lambda path: getattr(open_picture(path), "size", None),
                       [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "absent.png", None])  # fmt: skip
    assert sizes == [(40, 20), None, None, None]
