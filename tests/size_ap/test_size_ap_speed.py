"""The benchmark of AP by size: evaluators agree on its data, take turns, and absent ones are left out."""

from __future__ import annotations

import json
import math
import sys
from types import SimpleNamespace

import pytest

from mmms_plugin.commands.benchmark import of_checkout

speed = of_checkout("size_ap_speed")


def test_ours_and_pycocotools_agree_on_its_data(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "PAIRED_REPLICATES", 3)
    assert speed._write(5, str(tmp_path), other=0.5).startswith("5 images, ")
    ours, theirs = (speed.measure(name, str(tmp_path)) for name in (speed.OURS, "pycocotools"))
    assert ours.ap == pytest.approx(theirs.ap, abs=1e-12)
    assert 0 < ours.ap < 1
    assert min(ours.load, ours.evaluate, ours.wall, ours.mebibytes, theirs.load, theirs.evaluate, theirs.wall) > 0
    runs = [json.loads((tmp_path / f"{stem}.json").read_text(encoding="utf-8")) for stem in ("pred", "other")]
    assert runs[1] == runs[0][: len(runs[0]) // 2]
    assert all(map(math.isfinite, speed.paired_bootstrap(speed.OURS, str(tmp_path))))  # of 3 replicates, it is noise
    table = speed._table("made up", 1, {"mmms": [ours]})
    assert len(table.rows) == 1


@pytest.mark.parametrize("installed", [("vernier", "pycocotools"), ()])
def test_those_installed_take_turns_and_slow_ones_are_measured_once(monkeypatch, installed):
    monkeypatch.setattr(speed, "_version", lambda name: "1.0" if name in installed else None)
    jobs = [*speed._jobs(3)]
    order = [name for name, replicates in jobs if not replicates]
    if installed:
        assert order == ["mmms", "pycocotools", "vernier", "vernier", "mmms", "mmms", "vernier"]
    else:
        assert order == ["mmms"] * 3
    assert jobs[-1] == ("mmms", speed.REPLICATES)


def test_vernier_is_asked_for_one_thread_and_the_figures_of_pycocotools(tmp_path, monkeypatch):
    speed._write(2, str(tmp_path))
    asked = []

    class Evaluator:
        def __init__(self, **options):
            asked.append(options)

        def evaluate(self, truth, run, **options):
            asked.append((truth["images"], len(json.loads(run)), options))
            return SimpleNamespace(stats=[0.25])

    read = SimpleNamespace(from_json=json.loads)
    instance = SimpleNamespace(CocoDataset=read, Bbox=lambda: "boxes", Evaluator=Evaluator)
    monkeypatch.setitem(sys.modules, "vernier.instance", instance)
    assert speed.measure("vernier", str(tmp_path)).ap == 0.25
    images, run = (json.loads((tmp_path / f"{stem}.json").read_text(encoding="utf-8")) for stem in ("ann", "pred"))
    assert asked == [{"iou": "boxes", "parity_mode": "strict"}, (images["images"], len(run), {"num_threads": 1})]
