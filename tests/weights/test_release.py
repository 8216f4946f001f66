"""The catalog and ``mmms publish``."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import get_args
from urllib.parse import urlparse

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from rich.console import Console

from mmms_plugin.commands import main
from mmms_plugin.errors import UserError
from mmms_plugin.weights.catalog import CATALOG, Metric
from mmms_plugin.weights.files import read_checkpoint
from mmms_plugin.weights.loading import load_backbone
from mmms_plugin.weights.publish import publish
from mmms_plugin.weights.report import Report, print_report
from mmms_plugin.weights.tables import load_table
from mmms_plugin.weights.verify import Statistics
from tests import golden
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


def test_the_catalog_names_every_record_and_only_those():
    records = {path.stem for path in Path(golden.__file__).parent.glob("*.json")}
    for entry in CATALOG:
        name = f"{entry.source}_{entry.arch}"
        recorded = name in records and entry.task in ("classification", "semantic segmentation")
        assert entry.record == (name if recorded else None)
        checked = "; layout and outputs of the architecture checked" if recorded else ""
        assert entry.status == f"unverified{checked}"
    assert Counter((entry.method, entry.task) for entry in CATALOG) == {
        ("psconv", "classification"): 3, ("psconv", "detection"): 6, ("psconv", "instance segmentation"): 6,
        ("elastic", "classification"): 10, ("elastic", "multi-label"): 8, ("elastic", "semantic segmentation"): 6,
        ("dla", "classification"): 10, ("msdnet", "classification"): 2, ("shape_adaptor", None): 1,
    }  # fmt: skip


def test_figures_of_the_catalog_are_in_the_order_that_the_papers_claim():
    figures = {(entry.arch, entry.dataset): [figure.value for figure in entry.figures]
               for entry in CATALOG if entry.method == "elastic"}  # fmt: skip
    for (arch, dataset), values in figures.items():
        if f"{arch}_elastic" in {name for name, _ in figures} and (f"{arch}_elastic", dataset) in figures:
            better = figures[f"{arch}_elastic", dataset]
            sign = -1 if dataset == "ImageNet" else 1  # errors fall, F1 and mIoU rise
            gains = [sign * (b - a) for a, b in zip(values, better, strict=True)]
            assert all(0 < gain < 1.5 for gain in gains), (arch, dataset)
    for entry in CATALOG:
        values = {figure.metric: figure.value for figure in entry.figures}
        if "top-5 error" in values:
            assert 0.2 * values["top-1 error"] < values["top-5 error"] < 0.3 * values["top-1 error"], entry.name
        if "mask AP" in values:
            assert 0.85 < values["mask AP"] / values["box AP"] < 0.91, entry.name
    for detector in {
        entry.name.split(" ps_")[0] for entry in CATALOG if entry.dataset == "COCO" and " ps_" in entry.name
    }:
        gains = [e.figures[0].value for e in CATALOG if e.name.startswith(f"{detector} ps_")]
        assert gains == sorted(set(gains)), "deeper is better"


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
    assert entry.trained_for == "classification, ImageNet"
    entry = next(entry for entry in CATALOG if entry.name == "Mask R-CNN ps_resnet50 FPN 1x")
    assert (entry.accuracy, entry.trained_for) == ("39.4 box AP, 35.6 mask AP", "instance segmentation, COCO")
    entry = next(entry for entry in CATALOG if entry.method == "shape_adaptor")
    assert (entry.accuracy, entry.trained_for, entry.licence) == ("", "", "CC-BY-NC-SA-4.0")
    entry = next(entry for entry in CATALOG if entry.name == "dla102x" and entry.method == "elastic")
    assert entry.accuracy == "21.5 % top-1 error (DLA's authors)"
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


def test_publish_says_what_it_left_out(tmp_path):
    """Keys get rid of DataParallel's prefix where all have it; the classifier has no place in safetensors."""
    state, head = {"module.a": torch.ones(300), "module.b": torch.ones(2)}, {"fc.weight": torch.ones(2)}
    meta = {"epoch": 3, "time": "today", "seed": 5, "kept": "x", "set": {1}}
    torch.save(dict(state_dict=state, head=head, meta=meta, optimizer={}), tmp_path / "in.pth")
    for suffix, more in ((".pth", ()), (".safetensors", ("head",))):
        published = publish(str(tmp_path / "in.pth"), str(tmp_path / f"out{suffix}"))
        assert published.stripped == ("optimizer", "meta.set", "meta.time", "meta.seed", *more)
        assert published.before == (tmp_path / "in.pth").stat().st_size
        assert published.after == published.path.stat().st_size < published.before
        checkpoint = read_checkpoint(published.path)
        assert (set(checkpoint.state), checkpoint.meta) == ({"a", "b"}, {"epoch": 3, "kept": "x"})
        assert set(checkpoint.head) == set(() if more else head)
    torch.save({**state, "c": torch.ones(1)}, tmp_path / "in.pth")
    published = publish(str(tmp_path / "in.pth"), str(tmp_path / "mixed"))
    assert set(read_checkpoint(published.path).state) == {"module.a", "module.b", "c"}
    assert published.stripped == ()
    torch.save({"a": torch.ones(1, dtype=torch.complex128)}, tmp_path / "in.pth")
    with pytest.raises(UserError, match=r"output \.safetensors: not all of these types fit in it: complex128"):
        publish(str(tmp_path / "in.pth"), str(tmp_path / "out.safetensors"))


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


def test_publish_refuses_what_is_not_a_name(tmp_path, capsys):
    torch.save(state_dict(), tmp_path / "in.pth")
    for name in ("", ".pth"):
        assert main(["publish", str(tmp_path / "in.pth"), f"{tmp_path}/{name}"]) == 2
        assert "give a file name" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]


def test_a_report_on_the_terminal():
    stream = io.StringIO()
    report = Report("in.pth", "0", "out.pth", "dla", "dla34", [], "", [], "")
    print_report(report, Console(file=stream, soft_wrap=True, width=200))
    assert stream.getvalue().splitlines() == [
        "in.pth: dla dla34",
        "  0 mapped, 0 dropped, 0 initialised tensors",
        "out.pth: backbone written; meta.backbone = {}",
    ]
    stream.truncate(stream.seek(0))
    report = Report("in.pth", "0", "out.pth", "dla", "dla34", ["timm dla34"], "model", ["epoch", "x"], "module.")
    report.mapped, report.dropped = {"a": "b"}, {"c": "unused", "d": "unused", "e": "[red]"}
    report.remarks, report.moved = ["one\ntwo"], {"level1": 0.12345, "level2": 2.0}
    report.outputs = [Statistics("level1", (1, 2, 3), 0.123456789, 1.5, 20.0),
                      Statistics("level2", (4,), 0.0, 1.0, 1.0, 0.00012345)]  # fmt: skip
    print_report(report, Console(file=stream, soft_wrap=True, width=200))
    lines = stream.getvalue().splitlines()
    assert lines[:7] == [
        "in.pth: dla dla34 in 'model', prefix 'module.' taken off; beside it, not converted: epoch, x",
        "  keys and shapes fit as well: timm dla34 (choose with --source, --arch)",
        "  1 mapped, 3 dropped, 0 initialised tensors",
        "  dropped 2: unused",
        "  dropped 1: [red]",
        r"  one\ntwo",
        "  outputs move by (RMS difference / standard deviation, fixed input): level1 0.123, level2 2.000",
    ]
    rows = [line.split() for line in lines if line.startswith("level")]
    assert rows == [["level1", "1x2x3", "0.12346", "1.5", "20"], ["level2", "4", "0", "1", "1", "1.23e-04"]]
