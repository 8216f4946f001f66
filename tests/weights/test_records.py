"""Every golden record: saved as its authors publish it, converted by the command, loaded strictly, compared."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

from mmms_plugin.commands import main
from mmms_plugin.weights import load_model
from mmms_plugin.weights.loading import load_backbone
from mmms_plugin.weights.tables import load_table
from tests.families import members
from tests.golden.compare import assert_outputs
from tests.golden.records import load_record, make_input, published_file

SOURCES = ("psconv", "elastic", "dla", "torchvision", "timm", "openmmlab")
RECORDS = sorted(f.stem for f in (Path(__file__).parents[1] / "golden").glob("*.json") if f.stem.startswith(SOURCES))
CLASSIFIERS = [name for name in RECORDS if not name.endswith("_seg")]
# Of each source, network and deviation from it one; the others are deeper, or a plain twin of these.
OTHERS = {"dla_dla102", "dla_dla102x", "elastic_dla102x", "elastic_dla60x", "elastic_densenet201", "elastic_resnext50",
          "timm_seresnext50_32x4d", "torchvision_resnext50_32x4d", "elastic_resnext50_elastic_seg"}  # fmt: skip
EXITS = sorted(f.stem for f in (Path(__file__).parents[1] / "golden").glob("msdnet_*.json"))
SEGMENTORS = [name for name in RECORDS if name.endswith("_seg")]


def converted(name: str, folder: Path, *options: str) -> Path:
    record, source = load_record(name), name.partition("_")[0]
    published_file(record, folder / "in.pth.tar")
    arguments = ["convert", str(folder / "in.pth.tar"), str(folder / "out.pth"), "--source", source]
    assert main([*arguments, "--arch", record["arch"], *options]) == 0
    (folder / "in.pth.tar").unlink()
    return folder / "out.pth"


@pytest.mark.parametrize("name", members(CLASSIFIERS, lambda name: name not in OTHERS))
def test_classifiers_compute_what_their_authors_recorded(name, tmp_path):
    """Every recorded stage, and the logits with the classifier that is kept beside the backbone."""
    record, out = load_record(name), converted(name, tmp_path)
    table = load_table(name.partition("_")[0])
    stages = table.archs[record["arch"]].outputs or table.outputs
    backbone = load_backbone(out, out_indices=tuple(range(len(stages)))).eval()
    model = load_model(out)
    head = dict(model.head.fc.named_parameters()) if model.head else {}
    if name.startswith(("elastic", "dla")):  # whose DLA has layers without use
        left_out = sum(i * o + 2 * o for i, o, _ in getattr(backbone, "left_out", ()))
        assert sum(p.numel() for p in (*backbone.parameters(), *head.values())) + left_out == record["params"]
    for case in record["cases"]:
        with torch.no_grad():
            maps = backbone(make_input(case))
            outputs = dict(zip(stages, maps, strict=True))
            if head:
                outputs["output"] = model.head(maps)
            if case is record["cases"][0]:
                assert torch.equal(model(make_input(case)), outputs["output"]) if head else model(make_input(case))
        for stage in set(table.before_relu) & set(stages):  # recorded before the ReLU that ends the stage here
            case["outputs"][stage]["value"] = [max(0, value) for value in case["outputs"][stage]["value"]]
        assert set(case["outputs"]) <= set(outputs)
        assert_outputs(case, outputs)


@pytest.mark.parametrize("name", members(SEGMENTORS, lambda name: name not in OTHERS))
def test_segmentors_compute_what_their_authors_recorded(name, tmp_path):
    """The file is a whole mmseg model; ``meta.backbone`` and ``meta.model`` are all that is needed to build it."""
    record, out = load_record(name), converted(name, tmp_path)
    checkpoint, loaded = torch.load(out), load_model(out)
    meta = checkpoint["meta"]
    init_default_scope("mmseg")
    parts = dict(backbone=meta["backbone"], **meta["model"])
    model = MODELS.build(dict(type="EncoderDecoder", **parts, test_cfg=dict(mode="whole"))).eval()
    model.load_state_dict(checkpoint["state_dict"])
    for case in record["cases"]:
        x = make_input(case)
        with torch.no_grad():
            maps, features = model.backbone(x), model.extract_feat(x)
            logits = model.encode_decode(x, [dict(img_shape=tuple(x.shape[2:]))])
            if "dla" in name:
                outputs = {f"base.level{i}": y for i, y in zip(model.backbone.out_indices, maps, strict=True)}
                fc = model.decode_head.cls_seg(features[0])
                outputs |= dict(dla_up=features[0], fc=fc, output=logits.log_softmax(1))
            else:
                outputs = {f"layer{i + 1}": y for i, y in enumerate(maps)}
                outputs |= dict(aspp=model.decode_head(features), output=logits)
            if case is record["cases"][0]:
                assert torch.equal(loaded(x), outputs["output"])
        assert_outputs(case, outputs)


@pytest.mark.parametrize("name", EXITS)
def test_every_exit_computes_what_its_authors_recorded(name, tmp_path):
    """Maps of all scales after every block, and the logits of every exit, from the whole model that is written."""
    record, model = load_record(name), load_model(converted(name, tmp_path, "--verify"))
    backbone, exits = model.backbone, model.head.exits
    assert sum(p.numel() for p in model.parameters()) == record["params"]
    for case in record["cases"]:
        x, outputs = make_input(case), {}
        with torch.no_grad():
            maps = backbone.start(x)
            for i in range(len(exits)):
                maps = backbone.advance(maps, i)
                outputs[f"exit{i + 1}"] = exits[i](maps[-1])
                outputs |= {f"block{i + 1}_scale{s + 1}": y for s, y in enumerate(maps)}
            assert all(torch.equal(a, outputs[f"exit{i + 1}"]) for i, a in enumerate(model(x)))
        assert set(case["outputs"]) == set(outputs)
        assert_outputs(case, outputs)


@pytest.mark.parametrize(
    "name",
    ["msdnet_cifar100_anytime", "psconv_ps_resnext50_32x4d", "elastic_dla60x", "dla_dla34", "elastic_dla60x_seg"],
)
def test_auto_recognises_source_and_arch(name, tmp_path, capsys):
    source, _, arch = name.partition("_")
    published_file(load_record(name), tmp_path / "in.pth")
    assert main(["convert", str(tmp_path / "in.pth"), str(tmp_path / "out.safetensors")]) == 0
    assert f"{source} {arch}" in capsys.readouterr().out.splitlines()[0]
