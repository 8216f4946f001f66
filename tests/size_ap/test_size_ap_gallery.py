"""The report's gallery: the right failures with the right crops, and a page that behaves in a real browser."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_plugin.coco.formats import Source
from mmms_plugin.coco.read import read_detections, read_ground_truth
from mmms_plugin.commands.size_ap import run_size_ap
from mmms_plugin.size_ap.bins import resolve_bins
from mmms_plugin.size_ap.evaluate import evaluate
from mmms_plugin.size_ap.options import Options
from mmms_plugin.size_ap.report.gallery import ACROSS, TILE, make_gallery, picture_path, window
from mmms_plugin.size_ap.results import ERROR_TYPES, Failures
from tests.size_ap.size_ap_data import random_coco

HOSTILE = "</script><script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\">"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def written(folder: Path, coco: dict, results: list[dict]) -> tuple[Path, Path]:
    paths = folder / "ann.json", folder / "pred.json"
    for path, content in zip(paths, (coco, results), strict=True):
        path.write_text(json.dumps(content), encoding="utf-8")
    return paths


def iou(a: np.ndarray, b: np.ndarray) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[:2] + a[2:], b[:2] + b[2:])
    common = float(np.prod(np.maximum(high - low, 0)))
    return common / (a[2] * a[3] + b[2] * b[3] - common)


@pytest.mark.parametrize("seed", [0, 1])
def test_failures_are_those_that_the_table_counts(seed, tmp_path):
    ann, pred = written(tmp_path, *random_coco(seed, images=6))
    truth, _ = read_ground_truth(ann, masks=False)
    run, _ = read_detections(pred, truth, masks=False)
    options = Options(bins="tiny=0:8,small=8:32,large=32:inf", sweep=False)
    evaluated = evaluate(truth, [run], options)
    (failures,), results = evaluated.inputs.failures, evaluated.runs[0].bins
    found = failures.first(len(failures))
    for i, row in enumerate(results):
        counts = np.bincount(found.kind[found.in_bin[i]], minlength=len(ERROR_TYPES))
        assert counts.tolist() == [row.errors[name].count for name in ERROR_TYPES]
    assert found.total == len(found) == found.in_bin.any(0).sum()
    for i in range(len(found)):
        there, guess = not np.isnan(found.object_box[i, 0]), not np.isnan(found.box[i, 0])
        assert guess == (ERROR_TYPES[found.kind[i]] != "missed")
        image = truth.image_ids[found.image[i]]
        if there:
            assert image in truth.image_id[(truth.boxes == found.object_box[i]).all(1)]
        if guess:
            assert image in run.image_id[(run.boxes == found.box[i]).all(1) & (run.scores == found.score[i])]
            expected = iou(found.box[i], found.object_box[i]) if there else 0.0
            assert found.iou[i] == pytest.approx(expected)
    few = failures.first(30)
    assert (len(few), few.total) == (30, found.total)
    assert set(few.kind.tolist()) == set(found.kind.tolist())


def test_crops_show_the_place_and_nothing_outside_the_folder(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[40:60, 150:170] = (255, 0, 0)
    Image.fromarray(picture).save(folder / "a.png")
    Image.fromarray(picture).save(tmp_path / "secret.png")
    assert picture_path(folder, "../secret.png") is None
    assert picture_path(folder, "train/../../images/a.png") == folder / "a.png"
    coco, _ = random_coco(0, images=2, crowd=0)
    for image, name in zip(sorted(coco["images"], key=lambda one: one["id"]), ("a.png", "../secret.png"), strict=True):
        image |= dict(file_name=name, width=200, height=100)
    truth, _ = read_ground_truth(written(tmp_path, coco, [])[0], masks=False)
    boxes = np.array([[150.0, 40, 20, 20]] * 2)
    nothing = np.full((2, 4), np.nan)
    at = np.argsort(truth.image_ids)
    two = Failures(np.array([5, 5]), np.ones((1, 2), bool), at, np.array([-1, -1]), np.array([0, 0]), nothing[:, 0],
                   nothing[:, 0], nothing, boxes, 2)  # fmt: skip
    gallery = make_gallery(truth, [("run", two)], resolve_bins().bins[:1], folder)
    first, second = json.loads(gallery.json)["items"]
    assert (first["tile"], second["tile"]) == (0, -1)
    assert "1 have no picture" in gallery.remarks[0]
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(gallery.sheets[0]))))
    assert sheet.shape == (TILE, ACROSS * TILE, 3)
    left, top, side = first["window"]
    x, y = (round((place - start) / side * TILE) for place, start in ((160, left), (50, top)))
    assert sheet[y, x, 0] > 200
    assert sheet[y, round((145 - left) / side * TILE), 0] < 60


def test_a_window_stays_in_its_picture_where_it_can():
    assert window([[0, 0, 10, 10]], (100, 100)) == (0, 0, 32)
    assert window([[90, 90, 10, 10]], (100, 100)) == (68, 68, 32)
    assert window([[0, 0, 100, 20]], (100, 50))[0] == -35


STEPS = """
<pre id="outcome"></pre><script>addEventListener("load", async () => {
  const frame = () => new Promise((done) => setTimeout(done, 60));
  const until = async (done) => { for (let i = 0; i < 100 && !done(); i++) await frame(); };
  const by = (id) => document.getElementById(id), grid = by("grid"), out = {};
  const key = (element, name) => element.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
  const tiles = () => [...document.querySelectorAll(".tile")];
  const chosen = () => document.querySelector(".tile[aria-selected=true]");
  await frame();
  out.count = by("count").textContent;
  out.atTop = tiles().length;
  grid.scrollTop = grid.scrollHeight; grid.dispatchEvent(new Event("scroll")); await frame();
  out.atEnd = tiles().length; out.last = Math.max(...tiles().map((one) => Number(one.id.split("-")[1])));
  key(grid, "Home"); key(grid, "ArrowRight"); key(grid, "ArrowRight"); key(grid, "ArrowLeft");
  out.selected = [chosen().id, grid.getAttribute("aria-activedescendant")];
  key(grid, "End"); out.end = chosen().id; key(grid, "Home");
  key(grid, "Enter"); out.open = by("large").open; out.title = by("large-title").textContent;
  key(by("large"), "ArrowRight"); out.next = chosen().id; by("close").click();
  await until(() => document.activeElement === grid);
  out.closed = [by("large").open, document.activeElement.id];
  const errors = document.querySelector('table[data-name="errors-1"]');
  const kinds = [...errors.tHead.rows[0].cells].map((cell) => cell.textContent);
  errors.tBodies[0].rows[1].cells[kinds.indexOf("missed")].click();
  out.picked = [by("count").textContent, ...new Set(tiles().map((one) => one.children[1].textContent))];
  out.facts = [...document.querySelectorAll("#filters select")].map((one) => one.selectedOptions[0].textContent);
  const row = document.querySelector('table[data-name="classes-1"] tbody tr').cells[0];
  key(row, "Enter"); out.byClass = [...document.querySelectorAll("#filters select")][2].selectedOptions[0].textContent;
  out.name = row.textContent; out.foreign = document.querySelectorAll("#gallery script, #gallery img").length;
  out.page = document.title;
  const style = (element) => getComputedStyle(element);
  out.colours = [style(tiles()[0]).color, style(grid).backgroundColor];
  by("outcome").textContent = JSON.stringify(out);
});</script></body>"""


@pytest.mark.slow
@pytest.mark.needs(BROWSER, reason="Chromium")
def test_the_page_in_a_browser(tmp_path):
    coco, results = random_coco(3, images=40, detections=60)
    for i, category in enumerate(coco["categories"]):
        category["name"] = f"{HOSTILE}{i}"
    coco["images"][0]["file_name"] = HOSTILE
    ann, pred = written(tmp_path, coco, results)
    options = Options(sweep=False)
    run_size_ap(str(ann), [str(pred)], str(tmp_path / "out"), options, source=Source(pictures=tmp_path), examples=1500)
    page = tmp_path / "out/report.html"
    text = page.read_text(encoding="utf-8")
    assert HOSTILE not in text
    page.write_text(text.replace("</body>", STEPS), encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking " \
        "--disable-component-update --disable-sync --virtual-time-budget=20000 --dump-dom " \
        "--blink-settings=preferredColorScheme=0"  # dark  # fmt: skip
    data = f"--user-data-dir={tmp_path / 'browser'}"
    done = subprocess.run([BROWSER, *flags.split(), data, "--window-size=1200,900", page.as_uri()],
                          capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
    found = re.search(r'<pre id="outcome">(\{.*?\})</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    outcome = json.loads(html.unescape(found[1]))
    assert outcome["page"] == "AP by object size"
    assert outcome["foreign"] == 0
    assert outcome["count"] == "1500 of 1500 failures"
    assert 0 < outcome["atTop"] < 120
    assert 0 < outcome["atEnd"] < 120
    assert outcome["last"] == 1499
    assert outcome["selected"] == ["failures-1", "failures-1"]
    assert (outcome["end"], outcome["next"]) == ("failures-1499", "failures-1")
    assert outcome["open"]
    assert HOSTILE in outcome["title"]
    assert outcome["closed"] == [False, "grid"]
    assert outcome["picked"][1:] == ["missed"]
    assert outcome["facts"][0].startswith("small (< 32 px)")
    assert outcome["facts"][1].startswith("missed")
    assert outcome["byClass"].startswith(outcome["name"])
    text_colour, background = (sum(map(int, re.findall(r"\d+", colour)[:3])) / 765 for colour in outcome["colours"])
    assert text_colour > 0.8
    assert background < 0.2
