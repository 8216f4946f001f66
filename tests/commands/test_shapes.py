"""``mmms shapes``: sides, scales and costs of a network and its human design, from every kind of source."""

from __future__ import annotations

import json

import pytest
import torch
from mmengine.registry import MODELS
from PIL import Image

from mmms_plugin.commands import main
from mmms_plugin.commands.shapes import design_side

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
    assert "0.900" in capsys.readouterr().out


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
