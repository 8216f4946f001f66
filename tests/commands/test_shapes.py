"""``mmms shapes``: sides, scales and costs of a network and its human design, from every kind of source."""

from __future__ import annotations

import json
from shutil import copytree

import pytest
import torch
from mmengine.registry import MODELS
from PIL import Image

from mmms_plugin.commands import main
from mmms_plugin.commands.shapes import _few, design_side
from mmms_plugin.scale.shapes import NetworkShape, draw_accuracies, draw_compared_trajectories, logged_accuracy

BACKBONE = dict(
    type="mmms_plugin.ShapeAdaptorMobileNetV2", width_multiplier=0.25, stem="cifar", design_size=32, out_indices=[6]
)


@pytest.fixture
def work_dir(tmp_path):
    """What a training leaves: config, checkpoint, scalars; the first adaptor has learned a scale of 0.9."""
    folder = tmp_path / "run"
    (folder / "20260101/vis_data").mkdir(parents=True)
    (folder / "config.py").write_text(f"model = dict(backbone={BACKBONE!r})\n", encoding="utf-8")
    model = MODELS.build(dict(BACKBONE))
    model.plan.adaptors[0].alpha.data.fill_(torch.logit(torch.tensor(0.8)))
    state = {f"backbone.{key}": value for key, value in model.state_dict().items()}
    needed = dict(optimizer={}, message_hub={}, meta=dict(iter=2, epoch=0))
    torch.save(dict(state_dict=state, **needed), folder / "iter_2.pth")
    lines = [json.dumps({"s_stem_adaptor": 0.70 + 0.1 * i, "step": i + 1}) for i in range(3)]
    (folder / "20260101/vis_data/scalars.json").write_text("\n".join([*lines, '{"s_st']), encoding="utf-8")
    return folder


def test_a_work_folder_beside_its_config_and_human_design(work_dir, tmp_path, capsys):
    sources = [str(work_dir / "config.py"), str(work_dir)]
    assert main(["shapes", *sources, "--size", "32", "48", "--out", str(tmp_path / "out")]) == 0
    content = json.loads((tmp_path / "out/shapes.json").read_text(encoding="utf-8"))
    human, initial, learned = content["networks"]
    assert [network["name"] for network in content["networks"]] == ["human design", "config", "run"]
    assert human["scales"] == {}
    assert human["sides"][-1] == ["output", 4, 6]
    assert learned["scales"]["features.0"] == pytest.approx(0.9)
    assert initial["scales"]["features.0"] == pytest.approx(0.5**0.5)
    assert learned["sides"][1][1:] == [int(32 * 0.9), int(48 * 0.9)]
    assert initial["macs"] < learned["macs"]
    for name in ("shapes.png", "trajectory_run.png"):
        assert Image.open(tmp_path / "out" / name).width > 600
    assert not (tmp_path / "out/trajectories.png").exists()
    assert "0.900" in capsys.readouterr().out
    assert learned["memory"] > initial["memory"] > human["memory"] > 0


def test_trajectories_of_several_trainings_are_in_one_figure(work_dir, tmp_path):
    copytree(work_dir, tmp_path / "again")
    for name, accuracy in (("run", 40.0), ("again", 60.0)):
        log = tmp_path / name / "20260102/vis_data/scalars.json"
        log.parent.mkdir(parents=True)
        lines = [json.dumps({"accuracy/top1": figure, "step": 3}) for figure in (1.0, accuracy)]
        log.write_text("\n".join(lines), encoding="utf-8")
    assert main(["shapes", str(work_dir), str(tmp_path / "again"), "--out", str(tmp_path / "out")]) == 0
    assert Image.open(tmp_path / "out/trajectories.png").width > 600
    assert Image.open(tmp_path / "out/accuracy_and_cost.png").width > 600
    assert [logged_accuracy(tmp_path / name) for name in ("run", "again", "out")] == [40, 60, None]
    trainings = dict(
        one=dict(a=[(0, 0.5)], b=[(0, 0.9), (2, 0.8)]), other=dict(b=[(0, 0.6)], c=[(0, 0.7)], d=[(1, 0.7)])
    )
    figure = draw_compared_trajectories(trainings)
    shown = [(axis.get_title(), [list(line.get_ydata()) for line in axis.lines]) for axis in figure.axes if axis.axison]
    assert shown == [("a", [[0.5]]), ("b", [[0.9, 0.8], [0.6]]), ("c", [[0.7]]), ("d", [[0.7]])]
    colours = [line.get_color() for line in figure.axes[1].lines]
    assert colours == [handle.get_color() for handle in figure.legends[0].legend_handles]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "other"]


def test_of_many_networks_the_best_and_the_worst_are_drawn():
    shapes = [NetworkShape(str(n), (), {}, 0, 10**9 * (n + 1), 2**20) for n in range(12)]
    ranked = [(shape, float(number % 7)) for number, shape in enumerate(shapes)]
    assert [shape.name for shape in _few(shapes, ranked)] == ["6", "5", "4", "11", "1", "8", "0", "7"]
    assert _few(shapes, ranked[:3]) == shapes[:8]
    assert _few(shapes[:8], []) == shapes[:8]
    points = [axis.collections[0].get_offsets().tolist() for axis in draw_accuracies(ranked[:2]).axes]
    assert points == [[[1, 0], [2, 1]], [[1, 0], [1, 1]]]


def test_pictures_have_the_size_of_each_source(work_dir, tmp_path, capsys, monkeypatch):
    """Of a config's pipeline, else of the backbone's design; --size is for all."""
    monkeypatch.setattr("mmms_plugin.report.figure_style.save", lambda *_: [])
    monkeypatch.setattr("mmms_plugin.scale.shapes.draw_shapes", lambda _: None)
    monkeypatch.setattr("mmms_plugin.scale.shapes.draw_trajectories", lambda _: None)
    steps = [dict(type="Resize", scale=(48, 40)), dict(type="PackInputs")]
    text = f"model = dict(backbone={BACKBONE!r})\ntest_dataloader = dict(dataset=dict(pipeline={steps!r}))\n"
    (tmp_path / "wide.py").write_text(text, encoding="utf-8")
    sources = [str(work_dir), str(tmp_path / "wide.py")]
    expected = {"human design": [32, 32], "run": [32, 32], "wide": [40, 48]}
    for options in ([], ["--size", "64", "64"]):
        assert main(["shapes", *sources, *options, "--out", str(tmp_path / "out")]) == 0
        networks = json.loads((tmp_path / "out/shapes.json").read_text(encoding="utf-8"))["networks"]
        sizes = {network["name"]: network["size"] for network in networks[::-1]}
        assert sizes == ({name: [64, 64] for name in expected} if options else expected)
        assert [network["sides"][0][1:] for network in networks] == [network["size"] for network in networks]
        assert len(networks) == 3 if options else 4
        assert ("40 x 48" in capsys.readouterr().out) is not bool(options)
    assert [design_side(config) for config in ({}, dict(stem="cifar"), dict(stem="cifar", design_size=64))] == [
        224,
        32,
        64,
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mask_rcnn_ps_r50_fpn_1x"], "backbone PSResNet has no learned shape; give a ShapeAdaptor network"),
        (["{tmp}"], ": 0 configs in it; must be the one that training writes"),
        (["{tmp}/none.pth"], "none.pth"),
        (["mask_rcnn_sa_r50_autotl_fpn_1x", "--size", "0", "5"], "--size 0 5: must be integers of at least 1"),
    ],
)
def test_a_bad_source_is_one_line(arguments, message, tmp_path, capsys):
    arguments = [text.format(tmp=tmp_path) for text in arguments]
    assert main(["shapes", *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("backbone", "size", "line"),
    [
        (BACKBONE, "1", "config: ValueError: picture of 1 x 1 is too small: height and width must be at least "),
        (dict(BACKBONE, stem="no"), "32", "config.py: ValueError: stem='no'"),
    ],
)
def test_a_network_that_does_not_build_or_run_is_one_line(backbone, size, line, tmp_path, capsys):
    (tmp_path / "config.py").write_text(f"model = dict(backbone={backbone!r})\n", encoding="utf-8")
    assert main(["shapes", str(tmp_path / "config.py"), "--size", size, size, "--out", str(tmp_path / "out")]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert line in error
    assert not (tmp_path / "out").exists()
