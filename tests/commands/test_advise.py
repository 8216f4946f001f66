"""``mmms advise``: from a data set and a config to a config that trains."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config
from mmengine.registry import MODELS, TASK_UTILS, init_default_scope
from PIL import Image

from mmms_plugin.commands import advise, main
from mmms_plugin.config.detector_facts import anchors_of, options_of, strides_of, with_changes
from mmms_plugin.config.files import load_config
from mmms_plugin.scale.advice import Advice
from mmms_plugin.scale.receptive_field import ReceptiveField
from mmms_plugin.size_ap.object_sizes import off_anchors

CONFIG = """
_base_ = "{root}/demo/mask_rcnn_ps_r18_shapes.py"
model = dict(
    backbone=dict(
        _delete_=True, type="mmdet.ResNet", depth=18, base_channels=8, stem_channels=8, num_stages=2, strides=(1, 2),
        dilations=(1, 1), out_indices=(0, 1), {layers}
    ),
    neck=dict(in_channels=[8, 16], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16), bbox_head=dict(in_channels=16, fc_out_channels=16),
        mask_roi_extractor=dict(out_channels=16), mask_head=dict(in_channels=16, conv_out_channels=16),
    ),
)
"""
SMALL, LARGE = 14.0, 35.0  # px, limits of the objects of the two data sets below


def write_config(path: Path, layers: str = "") -> Path:
    path.write_text(CONFIG.format(root=Path(__file__).parents[2] / "configs", layers=layers), encoding="utf-8")
    return path


def part_of(shapes: Path, folder: Path, keep) -> Path:
    """The generated data set, with the objects whose side is to be kept."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").symlink_to(shapes / "images")
    for file in (shapes / "annotations").glob("*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        content["annotations"] = [one for one in content["annotations"] if keep(one["area"] ** 0.5)]
        (folder / "annotations" / file.name).write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_large_objects_get_psconv_and_the_config_trains(shapes, tmp_path, capsys):
    data = part_of(shapes, tmp_path / "data", lambda side: side > LARGE)
    config, written = write_config(tmp_path / "plain.py"), tmp_path / "written/advised.py"
    arguments = ["advise", "--coco-dir", str(data), "--config", str(config)]
    assert main([*arguments, "--write", str(written), "--json", str(tmp_path / "advice.json")]) == 0
    content = json.loads((tmp_path / "advice.json").read_text(encoding="utf-8"))
    assert content["shares"][0]["beyond_field"] == 1
    assert content["geometry"]["theoretical"] == 99  # of ResNet-18's second stage
    output = capsys.readouterr().out
    assert "PSConv in the backbone" in output
    assert f"mmms train {written}" in output
    assert written.read_text(encoding="utf-8").startswith("# Written by mmms advise for ")
    advised = load_config(str(written))
    assert advised.model.backbone.type == "mmms_plugin.PSResNet"
    assert advised.model.roi_head.bbox_head.num_classes == len(advised.train_dataloader.dataset.metainfo.classes)
    assert main(["train", str(written), "--work-dir", str(tmp_path / "work"), "--iters", "1", "--batch-size", "2"]) == 0
    assert list((tmp_path / "work").glob("*.pth"))


FIELDS = [ReceptiveField("stage 2", 8, 99, 9.0, 9, 20.0, False, np.zeros((2, 2), np.float32))]


def test_what_is_printed_and_written_as_json(tmp_path, capsys, monkeypatch):
    """Without measuring a network: objects of known sizes in pictures of 200 x 100 px, which are enlarged twice."""
    measured = []
    monkeypatch.setattr(
        "mmms_plugin.commands.advise_measure.measure",
        lambda backbone, pictures, *more, **options: measured.append((backbone, pictures, options)) or FIELDS,
    )
    data = tmp_path / "data"
    (data / "annotations").mkdir(parents=True)
    (data / "images").mkdir()
    sizes = [(3, 4, 12, 0), (10, 10, 100, 0), (50, 40, None, 0), (0, 5, 9, 0), (90, 90, 8100, 1)]
    records = [
        dict(id=i, image_id=1 + i % 2, category_id=1, bbox=[1, 2, w, h], area=area, iscrowd=crowd,
             segmentation=[[1, 2, 1, 2 + h, 1 + w, 2 + h, 1 + w, 2]])
        for i, (w, h, area, crowd) in enumerate(sizes)
    ]  # fmt: skip
    images = [dict(id=i, file_name=f"{i}.png", width=200, height=100) for i in range(1, 8)]
    images.insert(0, dict(id=8, file_name="narrow.png", width=400, height=100))
    Image.new("RGB", (400, 100)).save(data / "images/narrow.png")
    content = dict(images=images, annotations=records, categories=[dict(id=1, name="x")])
    for split in ("train", "val"):
        (data / f"annotations/instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")
    for i in range(2, 8):  # the first is missing
        Image.new("RGB", (200, 100)).save(data / f"images/{i}.png")
    config = write_config(tmp_path / "plain.py")
    monkeypatch.setenv("COLUMNS", "160")
    arguments = ["advise", "--coco-dir", str(data), "--config", str(config), "--image-size", "400x200"]
    assert main([*arguments, "--json", str(tmp_path / "advice.json")]) == 0
    (plain, pictures, options), (adapted, again, more) = measured
    assert (type(plain).__name__, type(adapted).__name__) == ("ResNet", "PSResNet")
    assert [picture.shape for picture in pictures] == [picture.shape for picture in again] == [(3, 224, 416)]
    assert (options.get("theory", True), more["theory"]) == (True, False)
    assert options["deepest"]
    assert more["deepest"]
    found = json.loads((tmp_path / "advice.json").read_text(encoding="utf-8"))
    geometry = found["geometry"]
    assert (geometry["field"], geometry["theoretical"], geometry["size"]) == (40.0, 99, [400, 200])
    assert geometry["strides"] == [4, 8, 16, 32, 64]
    assert len(geometry["anchors"]) == 15
    assert geometry["anchors"][0][2:] == [4, 4]
    assert (found["config"], found["weights"]) == (str(config), "random weights")
    everything, small, medium = found["shares"]
    assert [row["objects"] for row in found["shares"]] == [3, 2, 1]
    assert [row["name"] for row in found["shares"]] == ["all", "small", "medium"]
    assert everything["beyond_field"] == pytest.approx(1 / 3)  # 50 x 40 px, twice enlarged
    assert small["beyond_field"] == small["below_cell"] == 0
    assert (medium["beyond_field"], medium["off_anchors"]) == (1, pytest.approx(medium["off_anchors"]))
    printed = capsys.readouterr().out
    assert f"{config} at 400 x 200 px" in printed
    assert "below one cell (4 px)" in printed
    assert "beyond the field (40 px)" in printed
    rows = [line.split() for line in printed.splitlines() if line.startswith("all ")]
    assert rows[0] == ["all", "3", "0.0%", f"{everything['off_anchors']:.1%}", "33.3%"]
    assert "measured with random weights;" in printed
    for advice in found["advice"]:
        why, support = f"  why: {advice['why']}", f"  support: {advice['evidence']}"
        assert f"- {advice['topic']}: {advice['what']}\n{why}\n{support}\n" in printed
    for sizes, header, counts in (
        (["--resized"], "sizes of COCO, after resizing", [3, 2, 1]),
        (["--resized", "--bins", "0,7,inf"], "own sizes, after resizing", [3, 1, 2]),  # 3.5 px become 6.9
        (["--bins", "a=0:3.5,b=3.6:7"], "own sizes", [3, 1]),
        (["--bin-unit", "relative"], "shares of the picture's side", [3, 1, 1, 1]),  # of 141 px: 0.02, 0.07, 0.32
    ):
        assert main([*arguments, *sizes, "--json", str(tmp_path / "sizes.json")]) == 0
        assert f"objects ({header})" in capsys.readouterr().out
        shares = json.loads((tmp_path / "sizes.json").read_text(encoding="utf-8"))["shares"]
        assert [row["objects"] for row in shares] == counts
    assert main([*arguments, "--bin-unit", "relative", "--bins", "tiny"]) == 2
    assert "its limits are in px, not relative" in capsys.readouterr().err


def test_a_written_config_says_that_weights_of_the_old_one_do_not_fit(shapes, tmp_path, capsys):
    config, written = load_config(str(write_config(tmp_path / "plain.py"))), tmp_path / "advised.py"
    told = "rpn_head.anchor_generator.scales=[4], the config has [2.83]"
    for changes in ({"model.rpn_head.anchor_generator.scales": [2.83]}, {}):
        advice = [Advice("anchors", "other scales", "objects are small", "an experiment", changes)]
        finding = SimpleNamespace(config="plain.py", advice=advice)
        advise._write(config, finding, advise.Options(coco_dir=str(shapes), write=str(written)))
        for text in (" ".join(capsys.readouterr().out.split()), written.read_text(encoding="utf-8")):
            assert (f"were made for another function ({told}" in text) is bool(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"][0].update(width=0), "1 of 2 images have no width and height"),
        (lambda c: [a.update(bbox=[1, 2, 0, 5]) for a in c["annotations"]], "has no usable object; mmms check-data"),
        (lambda c: [a.update(iscrowd=1) for a in c["annotations"]], "has no usable object; mmms check-data lists"),
        (lambda c: [a.update(bbox=[0.1, 0.1, 0.5, 0.5]) for a in c["annotations"]], "has no usable object; mmms check"),
        (lambda c: None, "none of its 2 pictures can be read"),
    ],
)
def test_data_that_cannot_be_measured_are_named(change, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mmms_plugin.commands.advise_measure.measure", lambda *given, **options: FIELDS)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").mkdir()
    images = [dict(id=i, file_name=f"{i}.png", width=9, height=9) for i in (1, 2)]
    record = dict(id=1, image_id=2, category_id=1, bbox=[1, 2, 5, 5], area=25, iscrowd=0)
    record["segmentation"] = [[1, 2, 3, 2, 3, 6]]
    content = dict(images=images, annotations=[record], categories=[dict(id=1, name="x")])
    change(content)
    if "can be read" not in message:
        for i in (1, 2):
            Image.new("RGB", (9, 9)).save(tmp_path / f"images/{i}.png")
    (tmp_path / "annotations/instances_train.json").write_text(json.dumps(content), encoding="utf-8")
    config = write_config(tmp_path / "plain.py")
    assert main(["advise", "--coco-dir", str(tmp_path), "--config", str(config)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_fields_of_a_checkpoint(shapes, tmp_path, capsys):
    """A network that looks at single pixels sees less than one with random weights; that of another function is not
    taken."""
    config = write_config(tmp_path / "plain.py")
    init_default_scope("mmdet")
    state = MODELS.build(load_config(str(config)).model).state_dict()
    for key, value in state.items():
        if key.startswith("backbone") and value.dim() == 4 and value.shape[-1] > 1:
            middle = value[:, :, value.shape[2] // 2, value.shape[3] // 2].clone()
            value.zero_()[:, :, value.shape[2] // 2, value.shape[3] // 2] = middle
    torch.save(dict(state_dict=state, meta={}), tmp_path / "pixels.pth")
    meta = dict(backbone=dict(type="mmms_plugin.PSResNet", depth=18, dilation_pattern=[1, 2, 1, 4]))
    torch.save(dict(state_dict=state, meta=meta), tmp_path / "ps.pth")

    def advise(*checkpoint):
        file = tmp_path / "advice.json"
        assert (
            main(["advise", "--coco-dir", str(shapes), "--config", str(config), *checkpoint, "--json", str(file)]) == 0
        )
        return json.loads(file.read_text(encoding="utf-8"))

    blind, random = advise("--checkpoint", str(tmp_path / "pixels.pth")), advise()
    assert 0 < blind["geometry"]["field"] < random["geometry"]["field"] / 2
    assert (blind["weights"], random["weights"]) == ("the checkpoint's weights", "random weights")
    capsys.readouterr()
    given = ["--checkpoint", str(tmp_path / "ps.pth")]
    assert main(["advise", "--coco-dir", str(shapes), "--config", str(config), *given]) == 2
    assert "was trained with backbone.dilation_pattern=[1, 2, 1, 4], the config has [1]" in capsys.readouterr().err


@pytest.mark.slow
def test_small_objects_get_plain_layers(shapes, tmp_path, capsys):
    data = part_of(shapes, tmp_path / "data", lambda side: side < SMALL)
    config = write_config(tmp_path / "ps.py", 'conv_cfg=dict(type="mmms_plugin.PSConv")')
    arguments = ["advise", "--coco-dir", str(data), "--config", str(config), "--json", str(tmp_path / "advice.json")]
    assert main(arguments) == 0
    assert "plain layers in place of the multi-scale ones, which are not expected to help" in capsys.readouterr().out
    advice = {one["topic"]: one for one in json.loads((tmp_path / "advice.json").read_text(encoding="utf-8"))["advice"]}
    assert advice["layers"]["changes"] == {"model.backbone.conv_cfg": None}
    assert "conv_cfg" not in with_changes(load_config(str(config)), advice["layers"]["changes"]).model.backbone


def test_a_finer_level_of_a_pyramid():
    base = load_config("mmdet::retinanet_r50_fpn_1x_coco")
    init_default_scope("mmdet")
    config = Config(base.to_dict())
    config.model.backbone.update(depth=18, base_channels=8, stem_channels=8, init_cfg=None)
    config.model.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    config.model.bbox_head.update(in_channels=8, feat_channels=8)
    options = options_of(config)
    finer = with_changes(config, options.finer)
    assert strides_of(config, 32) == (8, 16, 32, 64, 128)
    assert strides_of(finer, 32) == (4, 8, 16, 32, 64, 128)
    assert anchors_of(finer).shape == (6 * 9, 4)
    assert float(anchors_of(config)[:, :2].prod(1).min() ** 0.5) == pytest.approx(32)
    model = MODELS.build(finer.model).eval()
    maps = model.extract_feat(torch.zeros(1, 3, 128, 128))
    assert [128 // y.shape[-1] for y in maps] == [4, 8, 16, 32, 64, 128]
    assert options.scales == ("model.bbox_head.anchor_generator.octave_base_scale", (4.0,))
    assert config.model.neck.num_outs == 5  # the config itself stays


def test_objects_off_the_anchors_against_all_anchors_of_a_picture():
    """mmdet's own anchors of a picture of 256 px, and objects at 500 random places in it."""
    init_default_scope("mmdet")
    generator = dict(type="AnchorGenerator", strides=[8, 16, 32], ratios=[0.5, 1.0], scales=[1.5])
    config = Config(dict(model=dict(rpn_head=dict(anchor_generator=generator))))
    grid = TASK_UTILS.build(generator).grid_priors([(32, 32), (16, 16), (8, 8)], device="cpu")
    every = torch.cat(grid).double()
    middles = torch.rand(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 128 + 64
    for width, height in ((9, 9), (14, 20), (30, 22), (60, 20)):
        size = torch.tensor([width, height], dtype=torch.float64)
        objects = torch.cat([middles - size / 2, middles + size / 2], 1)
        oracle = float((bbox_overlaps(objects, every).amax(1) < 0.5).double().mean())
        assert off_anchors(size[None].numpy(), anchors_of(config)) == pytest.approx(oracle, abs=0.07)


@pytest.mark.parametrize(
    "backbone",
    [
        dict(type="ResNet", depth=18, base_channels=8),
        dict(type="ResNet", depth=50, base_channels=8, norm_eval=False, frozen_stages=1, style="caffe"),
        dict(type="mmdet.ResNet", depth=50, base_channels=8, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)),
        dict(type="ResNetV1d", depth=50, base_channels=8, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1),
             out_indices=(2,)),
        dict(type="ResNeXt", depth=50, groups=2, base_width=4, base_channels=64),
        dict(type="ResNeXt", depth=50, base_channels=8),
    ],
    ids=lambda backbone: backbone["type"] + str(len(backbone)),
)  # fmt: skip
def test_psconv_is_all_that_a_resnet_gets(backbone):
    """With a pattern of ones, the advised network is the host's, value for value and in training mode too."""
    init_default_scope("mmdet")
    config = Config(dict(model=dict(backbone=backbone)))
    changes = dict(options_of(config).multi_scale)
    assert changes.pop("model.backbone.dilation_pattern") == (1, 2, 1, 4)
    advised = with_changes(config, changes | {"model.backbone.dilation_pattern": (1, 1, 1, 1)})
    plain, multi_scale = (MODELS.build(one.model.backbone) for one in (config, advised))
    multi_scale.load_state_dict(plain.state_dict())
    picture = torch.randn(2, 3, 64, 64)
    for model in (plain, multi_scale):
        model.train()
    for one, other in zip(plain(picture), multi_scale(picture), strict=True):
        assert torch.equal(one, other)


def test_psconv_where_psresnet_cannot_take_a_backbone_s_place():
    backbone = dict(type="ResNet", depth=50, dcn=dict(type="DCN"), init_cfg=dict(type="Pretrained", checkpoint="x"))
    changes = options_of(Config(dict(model=dict(backbone=backbone)))).multi_scale
    assert changes["model.backbone.conv_cfg"] == dict(type="mmms_plugin.PSConv")
    assert changes["model.backbone.frozen_stages"] == -1  # layers that start from plain weights have to adapt
    assert changes["model.backbone.norm_eval"] is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--checkpoint", "x.pth"], "--checkpoint: give its config too, with --config"),
        (["--write", "{tmp}/new.txt"], "must end in .py"),
        (["--write", "{tmp}/boxes/edited.py"], "edited.py: it exists already; give --force to overwrite it"),
        (
            ["--config", "deeplabv3_ps_r50_voc12aug"],
            "deeplabv3_ps_r50_voc12aug: a segmentation model; must be a detector",
        ),
        (["--coco-dir", "{tmp}/none"], "no such folder"),
        (["--coco-dir", "{shapes}/images"], "no COCO annotations for training there; found: "),
        (["--coco-dir", "{tmp}/empty"], "has no usable object; mmms check-data lists"),
        (
            [
                "--coco-dir",
                "{tmp}/boxes",
                "--config",
                "demo/mask_rcnn_r18_large_shapes",
                "--json",
                "{tmp}/a.json",
                "--write",
                "{tmp}/a.py",
            ],
            "mask",
        ),
    ],
)
def test_bad_input_is_one_line(options, message, shapes, tmp_path, capsys):
    part_of(shapes, tmp_path / "empty", lambda side: False)
    part_of(shapes, tmp_path / "boxes", lambda side: True)
    (tmp_path / "boxes/edited.py").touch()
    for file in (tmp_path / "boxes/annotations").glob("*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        for one in content["annotations"]:
            del one["segmentation"]
        file.write_text(json.dumps(content), encoding="utf-8")
    given = [option.format(tmp=tmp_path, shapes=shapes) for option in options]
    assert main(["advise", "--coco-dir", str(shapes), *given]) == 2
    output, error = capsys.readouterr()
    assert message in error
    assert (error.count("\n"), output) == (1, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["boxes", "empty"]
