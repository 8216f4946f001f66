"""The catalog and ``mmms publish``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import get_args
from urllib.parse import urlparse

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmms_plugin.cli import main
from mmms_plugin.weights.catalog import CATALOG, Metric
from mmms_plugin.weights.loading import load_backbone
from mmms_plugin.weights.tables import load_table
from tests.golden.records import load_record
from tests.weights.small import convert, state_dict


def test_every_entry_of_the_catalog_can_be_asked_for_and_none_claims_to_be_verified():
    assert len({(entry.name, entry.address) for entry in CATALOG}) == len(CATALOG)
    for entry in CATALOG:
        assert entry.status.startswith("unverified")
        assert not entry.source or entry.arch in load_table(entry.source).archs
        assert not entry.address or urlparse(entry.address).scheme in ("http", "https")
        if entry.record:
            assert load_record(entry.record)["arch"] == entry.arch
        assert (entry.source is None) == (entry.arch is None) == (entry.parameters is None)
        assert (entry.task is None) == (entry.dataset is None)
        assert all(0 < figure.value < 100 and figure.metric in get_args(Metric) for figure in entry.figures)


def test_the_catalog_counts_the_parameters_of_the_backbones():
    counted = {(entry.source, entry.arch): entry.parameters for entry in CATALOG if entry.source and entry.arch}
    for (source, arch), parameters in counted.items():
        with torch.device("meta"):
            backbone = MODELS.build(dict(load_table(source).archs[arch].backbone))
        assert sum(parameter.numel() for parameter in backbone.parameters()) == parameters, arch


def test_figures_are_numbers_and_read_as_one_text():
    entry = next(entry for entry in CATALOG if entry.name == "dla34")
    assert [(figure.metric, figure.value) for figure in entry.figures] == [
        ("top-1 accuracy", 74.62),
        ("top-5 accuracy", 92.06),
    ]
    assert entry.accuracy == "74.62 % top-1 accuracy, 92.06 % top-5 accuracy (timm)"
    addresses = [entry.address for entry in CATALOG if entry.address]
    assert len(set(addresses)) == len(addresses)


def test_the_list_prints_addresses_whole(capsys):
    assert main(["weights", "list", "--method", "dla"]) == 0
    printed = capsys.readouterr().out
    assert "http://dl.yf.io/dla/models/imagenet/dla46_c-2bfd52c3.pth" in printed
    assert "psconv" not in printed
    assert main(["weights", "list", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(CATALOG)


@pytest.mark.parametrize("suffix", ["", ".pth", ".safetensors"])
def test_publish_strips_and_names_with_the_hash(suffix, tmp_path, capsys):
    torch.save(state_dict(), tmp_path / "in.pth")
    assert convert(tmp_path / "in.pth", tmp_path / "converted.pth") == 0
    run = torch.load(tmp_path / "converted.pth")
    run |= {"optimizer": {"state": {0: torch.zeros(1000)}}, "message_hub": {}, "param_schedulers": []}
    run["meta"] |= {"hook_msgs": {"last_ckpt": "/home/me/run"}, "dataset_meta": {"classes": ("a", "b")}}
    torch.save(run, tmp_path / "epoch_12.pth")
    assert main(["publish", str(tmp_path / "epoch_12.pth"), str(tmp_path / "out" / f"dla46{suffix}")]) == 0
    (file,) = (tmp_path / "out").iterdir()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert file.name == f"dla46-{digest[:8]}{suffix or '.pth'}"
    assert b"/home/me" not in file.read_bytes()
    assert all(word in capsys.readouterr().out for word in ("optimizer",))
    load_backbone(file)
    assert file.stat().st_mode & 0o777 == (tmp_path / "in.pth").stat().st_mode & 0o777
    if file.suffix == ".pth":
        released = torch.load(file)
        assert set(released) == {"meta", "state_dict", "head"}
        assert released["meta"]["dataset_meta"] == {"classes": ("a", "b")}


def adapted_run(folder: Path) -> tuple[Path, torch.nn.Module]:
    """A training checkpoint of a shape-adapted backbone, as mmengine writes it with the config as text."""
    options = dict(type="mmms_plugin.ShapeAdaptorMobileNetV2", width_multiplier=0.125, stem="cifar", design_size=32)
    backbone = MODELS.build(options).eval()
    for number, adaptor in enumerate(backbone.plan.adaptors.values()):
        torch.nn.init.constant_(adaptor.alpha, number / 2 - 1)
    config = Config(dict(model=dict(type="ImageClassifier", backbone=options)))
    state = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
    meta = dict(cfg=config.pretty_text, backbone=options, prefix="backbone.")
    torch.save(dict(meta=meta, state_dict=state, optimizer={}), folder / "epoch_1.pth")
    return folder / "epoch_1.pth", backbone


def test_publish_freezes_shapes_and_outputs_stay_the_same(tmp_path):
    run, trained = adapted_run(tmp_path)
    assert main(["publish", str(run), str(tmp_path / "out" / "sa"), "--freeze-shapes"]) == 0
    (file,) = (tmp_path / "out").iterdir()
    fixed, x = load_backbone(file).eval(), torch.rand(2, 3, 32, 40)
    assert all(adaptor.frozen for adaptor in fixed.plan.adaptors.values())
    assert all(torch.equal(a, b) for a, b in zip(fixed(x), trained(x), strict=True))
    model = Config.fromstring(torch.load(file)["meta"]["cfg"], ".py").model
    assert model.backbone.fixed_shape is True
    again = tmp_path / "again"  # freezing what is frozen changes nothing
    assert main(["publish", str(file), str(again / "sa"), "--freeze-shapes"]) == 0
    assert torch.load(next(again.iterdir()))["meta"] == torch.load(file)["meta"]


def test_publish_freezes_nothing_where_no_shape_was_learned(tmp_path, capsys):
    torch.save(state_dict(), tmp_path / "plain.pth")
    run, _ = adapted_run(tmp_path)
    torch.save(dict(state_dict=torch.load(run)["state_dict"]), tmp_path / "bare.pth")
    for name, message in (("plain", "has no shape adaptor"), ("bare", "set fixed_shape=True in the config")):
        assert main(["publish", str(tmp_path / f"{name}.pth"), str(tmp_path / "out" / "x"), "--freeze-shapes"]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_publish_refuses_what_is_no_name(tmp_path, capsys):
    torch.save(state_dict(), tmp_path / "in.pth")
    assert main(["publish", str(tmp_path / "in.pth"), str(tmp_path)]) == 2
    assert "give a file name" in capsys.readouterr().err
