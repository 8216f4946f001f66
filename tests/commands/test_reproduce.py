"""``mmms reproduce``: the index of tables and figures, its page, and smoke runs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from mmengine.registry import MODELS

from mmms_plugin.commands import main
from mmms_plugin.config.edit import apply_cfg_options
from mmms_plugin.config.files import load_config
from mmms_plugin.reproduction import index
from mmms_plugin.reproduction.items import IMAGENET, Item, Measure, Row
from mmms_plugin.reproduction.page import PAGE, page
from mmms_plugin.train.options import parse_cfg_options

TOP_1 = Measure("top-1 error %", "accuracy/top1", error=True)
VARIANT = Row("variant", ("5.0 ± 0.1",), "cifar10/ps_resnext29_small", {"model.backbone.dilation_pattern": (2, 1)})
ITEM = Item(
    "test-table", "PSConv", "Table 0", "errors", IMAGENET, 1, (TOP_1,), (Row("rival", (7.25,)), VARIANT), "A remark."
)
ROWS = {row.folder: (item, row) for item in index.INDEX.values() for row in item.rows if row.config}


def test_the_page_is_made_from_the_index():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m mmms_plugin.reproduction.page"


def test_rows_have_a_figure_for_each_measure_and_a_work_folder_for_each_training():
    for item in index.INDEX.values():
        assert all(len(row.published) == len(item.measures) for row in item.rows), item.name
        assert item.gpu_hours({}) == (None if item.data else 0), item.name
        assert bool(item.command) == (item.data is None), item.name
        for row in item.rows:
            if row.config:
                same = ROWS[row.folder][1]
                assert (same.config, same.options) == (row.config, row.options), row.folder


@pytest.mark.parametrize("folder", [folder for folder, (_, row) in ROWS.items() if row.options])
def test_the_options_of_a_row_build_another_network(folder):
    row = ROWS[folder][1]
    config, plain = load_config(row.config), load_config(row.config)
    apply_cfg_options(config, parse_cfg_options(row.cfg_options))  # as the command that is shown reads them
    with torch.device("meta"):
        network, same = MODELS.build(config.model.backbone), MODELS.build(plain.model.backbone)
        assert network.eval()(torch.empty(1, 3, 64, 64))[-1].shape[-1] == 2
    assert str(network) != str(same)


def test_an_item_shows_needs_commands_and_the_figures_of_trainings_that_exist(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(index.INDEX, ITEM.name, ITEM)
    arguments = ["reproduce", "test-table", "--work-dirs", str(tmp_path)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "needs ImageNet (ILSVRC 2012), 1 epochs each" in printed
    options = "--cfg-options 'model.backbone.dilation_pattern=(2,1)'"
    folder = tmp_path / "ps_resnext29_small-dilation_pattern_2_1"
    assert f"mmms train cifar10/ps_resnext29_small --work-dir {folder} {options}\n" in printed
    assert [line.split() for line in printed.splitlines() if line][-3:-1] == [
        ["rival", "7.25", "–"], ["variant", "5.0", "±", "0.1", "n/a"]
    ]  # fmt: skip
    log = folder / "1/vis_data/scalars.json"
    log.parent.mkdir(parents=True)
    lines = [dict(loss=1.0, time=0.1, step=1), {"accuracy/top1": 93.5, "step": 1}]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert main(arguments) == 0
    assert ["variant", "5.0", "±", "0.1", "6.50"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    assert main(["reproduce"]) == 0
    assert set(index.INDEX) <= set(capsys.readouterr().out.split())


def test_an_unknown_item_is_one_line(capsys):
    assert main(["reproduce", "psconv-table9"]) == 2
    assert capsys.readouterr().err.startswith("mmms reproduce: error: item psconv-table9: allowed are psconv-table1, ")


def test_a_smoke_run_trains_and_shows_the_table(monkeypatch, capsys, tmp_path):
    pytest.importorskip("mmpretrain")
    pytest.importorskip("torchvision")
    monkeypatch.setitem(index.INDEX, ITEM.name, ITEM)
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "test-table", "--smoke"]) == 0
    out, err = capsys.readouterr()
    lines = [line for line in out.splitlines() if line]
    assert lines[0] == "PSConv, Table 0: errors"
    assert lines[-2].split()[:4] == ["variant", "5.0", "±", "0.1"]
    assert 0 <= float(lines[-2].split()[4]) <= 100
    assert lines[-1] == "A remark; here: one iteration on generated pictures, which says nothing about accuracy"
    assert (err, list(tmp_path.iterdir())) == ("", [])


def test_an_item_without_training_is_made_by_its_command(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["reproduce", "psconv-speed"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("needs neither data nor training\nmmms benchmark layers --batch 200\n")
    assert ["dilated", "by", "2", "2.99"] in [line.split() for line in out.splitlines()]
    assert main(["reproduce", "psconv-speed", "--smoke"]) == 0
    out = capsys.readouterr().out
    assert out.index("2.99") < out.index("64 ch, 56 px")
    failing = replace(index.INDEX["psconv-speed"], smoke=("--batch", "0"))
    monkeypatch.setitem(index.INDEX, failing.name, failing)
    assert main(["reproduce", failing.name, "--smoke"]) == 1
    assert "psconv-speed: its command ended with status 2" in capsys.readouterr().err
