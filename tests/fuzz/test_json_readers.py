"""Damaged JSON and YAML of other kinds: earlier results, configs. They are read, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmms_plugin.config.files import load_config
from mmms_plugin.errors import UserError
from mmms_plugin.size_ap import size_ap
from mmms_plugin.size_ap.gate import read_baseline
from tests.coco.coco_files import make_annotations, make_predictions
from tests.fuzz.json_mutants import damaged_text, mutate, pick
from tests.fuzz.label_mutants import YAML

CONFIG = dict(model=dict(type="A", depth=[1, 2], norm=dict(eps=1e-5)), train_cfg=dict(max_epochs=3), work_dir="x")
CASES = 150


@pytest.fixture
def results(tmp_path: Path) -> dict:
    """The content of a small ``results.json`` with a bootstrap."""
    annotations = make_annotations()
    for name, content in (("ann.json", annotations), ("pred.json", make_predictions(annotations))):
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    found = size_ap(tmp_path / "ann.json", tmp_path / "pred.json", bootstrap=3, errors=False, sweep=False)
    return found.to_json()


def complaint(read, path: Path) -> str | None:
    try:
        read(str(path))
    except UserError as error:
        return f"several lines: {error}" if "\n" in str(error) else None
    except Exception as error:
        return repr(error)
    return None


def test_earlier_results(tmp_path, results):
    assert read_baseline(str(write(tmp_path, json.dumps(results).encode()))).bins
    rng = np.random.default_rng(20)
    mutants = (mutate(results, rng) for _ in range(CASES))
    assert [c for data in mutants if (c := complaint(read_baseline, write(tmp_path, data)))] == []


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_configs(tmp_path, suffix):
    rng = np.random.default_rng(20)
    for _ in range(CASES // 3):
        text = json.dumps(CONFIG) if suffix == "json" else "".join(f"{key}: {pick(YAML, rng)}\n" for key in CONFIG)
        data = mutate(CONFIG, rng) if suffix == "json" else damaged_text(text.encode("utf-8", "surrogatepass"), rng)
        path = write(tmp_path, data, suffix)
        assert complaint(load_config, path) is None, data[:2000]


@pytest.mark.parametrize("key", ["model", "train_dataloader", "val_dataloader", "test_dataloader"])
def test_parts_of_a_config_that_are_not_dictionaries(tmp_path, key):
    path = write(tmp_path, json.dumps(CONFIG | {key: ["a"]}).encode())
    with pytest.raises(UserError, match=rf"x.json: {key}=\['a'\]: must be a dictionary"):
        load_config(str(path))


def write(folder: Path, data: bytes, suffix: str = "json") -> Path:
    path = folder / f"x.{suffix}"
    path.write_bytes(data)
    return path
