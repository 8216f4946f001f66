"""``mmms reproduce``: the index of tables and figures, its page, and smoke runs."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
import torch
from mmengine.registry import MODELS

from mmms_plugin.backbones.shape_plan import ShapedNetwork
from mmms_plugin.backbones.shape_resnet import ShapeAdaptorResNet
from mmms_plugin.commands import main
from mmms_plugin.commands.reproduce_figures import FIGURES
from mmms_plugin.config.edit import apply_cfg_options
from mmms_plugin.config.facts import read_facts
from mmms_plugin.config.files import load_config
from mmms_plugin.reproduction import index
from mmms_plugin.reproduction.items import CIFAR10, IMAGENET, Item, Measure, Row, Trained
from mmms_plugin.reproduction.page import PAGE, page
from mmms_plugin.train.options import parse_cfg_options

TOP_1 = Measure("top-1 error %", "accuracy/top1", error=True)
VARIANT = Row("variant", ("5.0 ± 0.1",), "cifar10/ps_resnext29_small", {"model.backbone.dilation_pattern": (2, 1)})
ITEM = Item(
    "test-table", "PSConv", "Table 0", "errors", IMAGENET, 1, (TOP_1,), (Row("rival", (7.25,)), VARIANT), "A remark."
)
ROWS = {row.folder: (item, row) for item in index.INDEX.values() for row in (*item.trainings, *item.rows) if row.config}
F1 = Measure("F1 %", "{}/accuracy/top1")
SMALL = tuple(Row(name, (), f"cifar10/{name}_small") for name in ("resnext29", "ps_resnext29"))
GAIN = Item(
    "test-figure", "PSConv", "Figure 0", "gain by size", IMAGENET, 1, (F1,),
    (Row("32 px", (0.8,), part="32"), Row("64 px", (None,), part="64")),
    compared=SMALL, figure="bars", smoke=("--image-dir", "{pictures}", "--sizes", "48", "40"),
    after=tuple(
        ("stress-test", f"{{{i}.config}}", f"{{{i}.checkpoint}}", "--sizes", "32", "64",
         "--out", f"{{out}}/{{{i}.folder}}")
        for i in (0, 1)
    ),
)  # fmt: skip
STARTS = tuple(Row(str(scale), (None,), "cifar10/sa_r50_small", {"model.backbone.initial_scale": scale})
               for scale in (0.6, 0.8, 0.9))  # fmt: skip
DRAWN = Item(
    "test-shapes", "PSConv", "Figure 0", "shapes", CIFAR10, 1, (TOP_1,), STARTS, smoke_rows=2,
    after=(("shapes", "{work_dirs}", "--out", "{out}"),),
)  # fmt: skip
# of rows that differ in numbers alone, such as random shapes, some
OPTIONS = [folder for item in index.INDEX.values() for folder in [row.folder for row in item.rows if row.options][:5]]


def test_the_page_is_made_from_the_index():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m mmms_plugin.reproduction.page"


def test_rows_have_a_figure_for_each_measure_and_a_work_folder_for_each_training():
    for item in index.INDEX.values():
        assert all(len(row.published) == len(item.measures) for row in item.rows), item.name
        assert item.gpu_hours({}) == (None if item.data else 0), item.name
        assert bool(item.command or item.counted) == (item.data is None), item.name
        assert bool(item.trainings) == (item.data is not None), item.name
        for row in (*item.trainings, *item.rows):
            if row.config:
                same = ROWS[row.folder][1]
                assert (same.config, same.options) == (row.config, row.options), row.folder


@pytest.mark.parametrize("folder", sorted({*OPTIONS} & {*ROWS}))
def test_the_options_of_a_row_build_another_network(folder):
    row = ROWS[folder][1]
    config, plain = load_config(row.config), load_config(row.config)
    apply_cfg_options(config, parse_cfg_options(row.cfg_options))  # as the command that is shown reads them
    with torch.device("meta"):
        network, same = MODELS.build(config.model.backbone), MODELS.build(plain.model.backbone)
        maps = network.eval()(torch.empty(1, 3, 64, 64))
    widths = config.model.head.in_channels
    assert (widths if isinstance(widths, list | tuple) else [widths]) == [y.shape[1] for y in maps]
    if not isinstance(network, ShapedNetwork):
        assert maps[-1].shape[-1] == 64 // network.out_strides[-1]
    assert (str(network), network.out_indices, config.model.head) != (str(same), same.out_indices, plain.model.head)


def test_an_item_shows_needs_commands_and_the_figures_of_trainings_that_exist(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(index.INDEX, ITEM.name, ITEM)
    arguments = ["reproduce", "test-table", "--work-dirs", str(tmp_path)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "needs ImageNet (ILSVRC 2012), 1 epochs each" in printed
    options = "--cfg-options 'model.backbone.dilation_pattern=(2,1)'"
    folder = tmp_path / "cifar10-ps_resnext29_small-dilation_pattern_2_1"
    assert f"mmms train cifar10/ps_resnext29_small --work-dir {folder} {options}\n" in printed
    assert [line.split() for line in printed.splitlines() if line][-3:-1] == [
        ["rival", "7.25", "–"], ["variant", "5.0", "±", "0.1", "n/a"]
    ]  # fmt: skip
    log(folder, 93.5)
    assert main(arguments) == 0
    assert ["variant", "5.0", "±", "0.1", "6.50"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    assert main(["reproduce"]) == 0
    assert set(index.INDEX) <= set(capsys.readouterr().out.split())


def log(work_dir, *accuracies):
    """What a training logs that evaluates after every iteration."""
    lines = [dict(loss=1.0, time=0.1, step=1)]
    lines += [{"accuracy/top1": accuracy, "step": step} for step, accuracy in enumerate(accuracies, 1)]
    file = work_dir / "1/vis_data/scalars.json"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_rows_of_one_training_are_trained_once():
    twice = replace(ITEM, rows=(VARIANT, replace(VARIANT, name="the same")))
    assert [line.split()[1] for line in twice.commands()] == ["train"]
    facts = {VARIANT.config: next(iter(read_facts().values()))}
    assert twice.gpu_hours(facts) == replace(ITEM, rows=(VARIANT,)).gpu_hours(facts)


def test_a_config_for_several_data_sets_has_a_work_folder_for_each(tmp_path, monkeypatch, capsys):
    sets = [replace(CIFAR10, folder=f"data/{name}", apart=True) for name in ("birds", "cars")]
    folders = [tmp_path / replace(ITEM, data=data).folders(VARIANT)[0] for data in sets]
    log(folders[0], 93.5)
    for data, folder, expected in zip(sets, folders, ("6.50", "n/a"), strict=True):
        monkeypatch.setitem(index.INDEX, ITEM.name, replace(ITEM, data=data))
        assert main(["reproduce", "test-table", "--work-dirs", str(tmp_path)]) == 0
        out = capsys.readouterr().out
        assert f"--image-dir {data.folder} --work-dir {folder} " in out
        assert ["variant", "5.0", "±", "0.1", expected] in [line.split() for line in out.splitlines()]


def test_a_column_without_published_figures_has_those_measured_here_alone(tmp_path, monkeypatch, capsys):
    other = Measure("top-5 error %", "accuracy/top5", error=True)
    item = replace(ITEM, measures=(TOP_1, other), rows=(replace(VARIANT, published=(5.0, None)),))
    monkeypatch.setitem(index.INDEX, ITEM.name, item)
    log(tmp_path / VARIANT.folder, 93.5)
    arguments = ["reproduce", "test-table", "--work-dirs", str(tmp_path), "--out", str(tmp_path / "kept")]
    assert main(arguments) == 0
    lines = (tmp_path / "kept/test-table.csv").read_text(encoding="utf-8").splitlines()
    assert lines == [",top-1 error % published,here,top-5 error % here", "variant,5.0,6.5,"]


def test_the_best_epoch_and_repeated_trainings_as_the_source_counts_them(tmp_path, monkeypatch, capsys):
    item = replace(ITEM, best=True, seeds=3)
    monkeypatch.setitem(index.INDEX, ITEM.name, item)
    folders = [tmp_path / name for name in item.folders(VARIANT)]
    arguments = ["reproduce", "test-table", "--work-dirs", str(tmp_path)]
    log(folders[0], 90, 94, 92)
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert out.count("mmms train") == 3
    assert folders[0].name == VARIANT.folder  # that of an item with one training, which it shares
    assert f"--work-dir {folders[2]} --seed 2 --cfg-options" in out
    assert "1 epochs each, 3 trainings of each network" in out
    assert ["variant", "5.0", "±", "0.1", "6.00"] in [line.split() for line in out.splitlines()]
    log(folders[1], 96, 80)
    assert main([*arguments, "--out", str(tmp_path / "kept")]) == 0
    out = capsys.readouterr().out
    assert ["variant", "5.0", "±", "0.1", "5.00", "±", "1.41"] in [line.split() for line in out.splitlines()]
    lines = (tmp_path / "kept/test-table.csv").read_text(encoding="utf-8").splitlines()
    assert lines[-1] == "variant,5.0 ± 0.1,5.00 ± 1.41"


def test_an_improvement_of_one_training_over_another_by_picture_size(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(index.INDEX, GAIN.name, GAIN)
    for row, accuracy in zip(SMALL, (80.0, 84.0), strict=True):
        log(tmp_path / row.folder, 50)
        file = tmp_path / GAIN.name / row.folder / "stress_test.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"32": {"accuracy/top1": accuracy}, "64": {"accuracy/top1": 0.0}}), encoding="utf-8")
    assert main(["reproduce", GAIN.name, "--work-dirs", str(tmp_path), "--out", str(tmp_path / "kept")]) == 0
    out = capsys.readouterr().out
    checkpoint = tmp_path / SMALL[1].folder / "epoch_1.pth"
    assert f"mmms stress-test {SMALL[1].config} {checkpoint} --sizes 32 64 --out {file.parent}\n" in out
    assert [line.split() for line in out.splitlines() if " px " in line] == [
        ["32", "px", "0.80", "5.00"], ["64", "px", "–", "n/a"]  # 0 / 0 is undefined
    ]  # fmt: skip
    assert {file.name for file in (tmp_path / "kept").iterdir()} == {
        "test-figure.csv", "test-figure.png", "test-figure.pdf", "test-figure.svg"
    }  # fmt: skip


@pytest.mark.slow
def test_a_smoke_run_ends_with_the_commands_of_the_item(tmp_path, monkeypatch, capsys):
    pytest.importorskip("mmpretrain")
    pytest.importorskip("torchvision")
    monkeypatch.setitem(index.INDEX, GAIN.name, GAIN)
    assert main(["reproduce", GAIN.name, "--smoke", "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "\n32 px" in out
    assert "written to" in out
    for row in SMALL:
        by_size = json.loads((tmp_path / "out" / GAIN.name / row.folder / "stress_test.json").read_text("utf-8"))
        assert list(by_size) == ["48", "40"]  # which stand for the item's sizes
    assert (tmp_path / "out/test-figure.png").is_file()


def test_errors_over_costs_are_drawn_for_networks_that_are_trained_or_not():
    item = index.INDEX["elastic-figure4"]
    plain, elastic = (row for row in item.rows if row.name in ("ResNeXt50*", "ResNeXt50+Elastic"))
    measured = {plain.folder: [{"cost/params": 25e6, "cost/macs": 4e9, "accuracy/top1": 78.0}], elastic.folder: [{}]}
    figure = FIGURES[item.figure](item, measured)
    published, _, here, _ = figure.axes
    assert len(published.lines) == sum(bool(row.config) for row in item.rows) + 9  # of the legend
    assert [tuple(line.get_xydata()[0]) for line in here.lines] == [(25.0, 22.0)]
    assert len(published.texts) == 6  # arrows


def test_an_unknown_item_is_one_line(capsys):
    assert main(["reproduce", "--out", "x"]) == 2
    assert capsys.readouterr().err == "mmms reproduce: error: --out: give an ITEM, or --smoke\n"
    listed = "mmms reproduce lists all\n"
    for name, nearest in (("elastic_table11", "elastic-table1, "), ("sa-autotl", "sa-autotl-"), ("x", "")):
        assert main(["reproduce", name]) == 2
        line = capsys.readouterr().err
        assert line.startswith(f"mmms reproduce: error: item {name}: there is none; {nearest and 'the nearest are '}")
        assert nearest in line
        assert line.endswith(listed)


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


def test_commands_of_rows_that_a_smoke_run_leaves_out_are_not_run():
    item = replace(DRAWN, after=(("a", "{0.folder}"), ("b", "{0.folder}", "x/{2.folder}"), ("c", "{1.work_dir}")))
    trained = [Trained("config", f"folder{number}", "checkpoint", f"w/{number}") for number in (0, 1)]
    assert item.filled(item.after, trained, "out") == [["a", "folder0"], ["c", "w/1"]]


@pytest.mark.slow
def test_a_command_draws_several_trainings_and_a_smoke_run_some_of_them(monkeypatch, capsys, tmp_path):
    pytest.importorskip("mmpretrain")
    pytest.importorskip("torchvision")
    monkeypatch.setitem(index.INDEX, DRAWN.name, DRAWN)
    monkeypatch.setattr(time, "strftime", lambda *_: "20260101_000000")  # both trainings start in one second
    monkeypatch.setitem(ShapeAdaptorResNet.arch_settings, 50, (1, 1, 1, 1))
    assert main(["reproduce", "test-shapes", "--smoke", "--out", str(tmp_path)]) == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("0.")]
    assert rows == ["0.6", "0.8"]
    names = {file.name for file in (tmp_path / DRAWN.name).glob("*.png")}
    assert {"shapes.png", "trajectories.png", "accuracy_and_cost.png"} <= names
    command = DRAWN.commands("w")[-1].split()
    assert command == ["mmms", "shapes", *[f"w/{row.folder}" for row in STARTS], "--out", "w/test-shapes"]
