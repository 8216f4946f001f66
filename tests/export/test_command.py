"""`mmms export`: small models of every task, run by the engine that reads the file; refusals leave nothing behind."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from PIL import Image

from mmms_plugin.commands import main
from mmms_plugin.config.edit import set_num_classes
from mmms_plugin.config.files import load_config
from mmms_plugin.errors import RunError
from mmms_plugin.export import endings, engines, write
from mmms_plugin.export.int8 import compare
from mmms_plugin.registry import use_scope
from mmms_plugin.train.launch import drop_initial_weights

ROOT = Path(__file__).parents[2] / "configs"
CONFIGS = {
    "classifier": """
_base_ = "{root}/imagenet/ps_resnet50.py"
model = dict(
    backbone=dict(depth=18, base_channels=8, stem_channels=8, num_stages=2, strides=(1, 2), dilations=(1, 1),
                  out_indices=(1,)),
    head=dict(in_channels=16),
)
""",
    "segmenter": """
_base_ = "{root}/deeplabv3_ps_r50_voc12aug.py"
model = dict(
    backbone=dict(depth=18, base_channels=4, stem_channels=4, multi_grid=(1, 1)),
    decode_head=dict(in_channels=32, channels=8),
    auxiliary_head=dict(in_channels=16, channels=8),
)
""",
    "detector": """
_base_ = "{root}/demo/mask_rcnn_ps_r18_shapes.py"
model = dict(backbone=dict(base_channels=4), neck=dict(in_channels=[4, 8, 16, 32]))
""",
    "exits": '_base_ = "{root}/demo/msdnet_shapes.py"\n',
    "adaptor": '_base_ = "{root}/cifar10/sa_r50_small.py"\n',
}


def saved(name: str, folder: Path) -> list[str]:
    """Config and checkpoint of a small model with random weights and drawn norms."""
    config_file, checkpoint = folder / f"{name}.py", folder / f"{name}.pth"
    config_file.write_text(CONFIGS[name].format(root=ROOT.as_posix()), encoding="utf-8")
    config = load_config(str(config_file))
    set_num_classes(config.model, 3)
    drop_initial_weights(config)
    use_scope(config.default_scope)
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(config.model))
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_(std=0.1)
            norm.running_var.uniform_(0.5, 1.5)
    meta = dict(dataset_meta=dict(classes=("a", "b", "c")))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), checkpoint)
    return [str(config_file), str(checkpoint)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ending", "options", "outputs", "limits"),
    [
        ("segmenter", ".pt2", [], "logits", "height and width of at least 17 px"),
        ("detector", ".onnx", [], "map1, map2, map3, map4, map5", "height and width of at least 65 px"),
        pytest.param(
            "exits",
            ".onnx",
            ["--exits", "3", "1"],
            "exit1, exit3",
            "height and width of at least 17 px",
            marks=pytest.mark.thorough,
        ),
        ("adaptor", ".pt2", [], "logits", "any number of pictures, 32 x 32 px"),
    ],
)
def test_every_task_agrees_with_torch(name, ending, options, outputs, limits, tmp_path, capsys):
    """The command compares outputs at two other sizes and numbers of pictures before the file gets its name."""
    if ending == ".onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    file = tmp_path / "out" / f"model{ending}"
    assert main(["export", *saved(name, tmp_path), str(file), *options]) == 0
    out = capsys.readouterr().out
    assert f"{file}: {outputs}; " in out
    assert limits in out
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.slow
def test_onnxruntime_and_torch_agree_on_a_classifier_and_the_file_says_what_it_takes(tmp_path, capsys):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, files = saved("classifier", tmp_path), [tmp_path / f"model{ending}" for ending in (".onnx", ".pt2")]
    for file in files:
        assert main(["export", *model, str(file)]) == 0
    assert "height and width of at least 9 px" in capsys.readouterr().out
    session = runtime.InferenceSession(files[0])
    info = json.loads(session.get_modelmeta().custom_metadata_map[engines.INFO])
    assert (info["outputs"], info["classes"], info["channel_order"]) == (["logits"], ["a", "b", "c"], "RGB")
    assert info["mean"] == [123.675, 116.28, 103.53]
    x = torch.randn(4, 3, 75, 50)
    (found,) = session.run(["logits"], {engines.PICTURE: x.numpy()})
    with torch.no_grad():
        (expected,) = torch.export.load(files[1]).module()(x)
    np.testing.assert_allclose(found, expected, atol=1e-4 * float(expected.std()))


@pytest.mark.slow
def test_integers_of_8_bits_with_ranges_from_pictures(tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for number in range(4):
        pixels = rng.integers(0, 256, (40 + 8 * number, 48, 3), np.uint8)
        Image.fromarray(pixels).resize((96, 80)).save(tmp_path / "pictures" / f"{number} a.png")
    file = tmp_path / "int8.onnx"
    assert main(["export", *saved("classifier", tmp_path), str(file), "--int8", str(tmp_path / "pictures")]) == 0
    found = re.search(
        r"8-bit integers: ranges from 2 pictures; on 2 others the outputs differ from float32's by (\S+) standard "
        r"deviations on average, (\S+)% of the decisions are the same\n",
        capsys.readouterr().out,
    )
    assert found
    assert 0 < float(found[1]) < 0.5
    graph = onnx.load(file)
    assert engines.INFO in {entry.key for entry in graph.metadata_props}
    weights = [tensor for tensor in graph.graph.initializer if len(tensor.dims) == 4]
    assert weights
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.INT8}


def test_what_the_step_to_integers_costs():
    whole = [np.array([[[0.0, 4.0], [3.0, 1.0]]]), np.array([[[1.0, 5.0], [0.0, 6.0]]])]
    small = [np.array([[[0.0, 4.0], [3.0, 1.0]]]), np.array([[[1.0, 5.0], [2.0, 6.0]]])]
    runs = [lambda x, of=of: [of[int(x)]] for of in (whole, small)]
    error, agreement = compare(*runs, [0, 1], ["logits"])
    assert error == pytest.approx(0.5 / whole[1].std() / 2)
    assert agreement == 0.75
    assert compare(*runs, [0, 1], ["map1"])[1] is None


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("model.pt2", ["--int8", "."], "--int8: OUT {} must end in .onnx"),
        (
            "model.onnx",
            ["--int8", "one"],
            "--int8: 1 picture; two are needed, one for ranges and one for the comparison",
        ),
        ("model.onnx", ["--int8", "two"], "two/b.png: "),
        ("model.tflite", [], "OUT {}: its ending must be one of .onnx, .pt2, .xml"),
        ("model.xml", [], "OUT {}: openvino is missing: pip install openvino, or give a name that ends in .pt2"),
        ("model.pt2", ["--exits", "1"], "--exits: the model has one classifier; leave the option out"),
        ("model.pt2", ["--exits", "0"], "--exits 0: must be an integer of at least 1"),
    ],
)
def test_refusals(out, options, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("one", "two"):
        Path(folder).mkdir()
        Image.new("RGB", (64, 64)).save(f"{folder}/a.png")
    Path("two/b.png").write_text("no picture", encoding="utf-8")
    monkeypatch.setattr(endings, "find_spec", lambda name: None if name == "openvino" else name)
    model, file = saved("classifier", tmp_path), tmp_path / "out" / out
    assert main(["export", *model, str(file), *options]) == 2
    assert message.format(file) in capsys.readouterr().err
    assert not file.parent.exists()


def test_a_wrong_name_is_refused_before_torch_is_imported(tmp_path):
    for name in ("x.py", "x.pth"):
        (tmp_path / name).write_bytes(b"not read")
    code = "import sys; from mmms_plugin.commands import main; status = main(); print(status, 'torch' in sys.modules)"
    arguments = [sys.executable, "-c", code, "export", "x.py", "x.pth", "x.tflite"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=True)
    assert done.stdout.split() == ["2", "False"]
    assert "OUT x.tflite: its ending must be one of" in done.stderr


def test_exits_that_the_network_has_not(tmp_path, capsys):
    assert main(["export", *saved("exits", tmp_path), str(tmp_path / "x.pt2"), "--exits", "2", "5"]) == 2
    assert "--exits 2 5: allowed are 1 to 4" in capsys.readouterr().err


def test_a_file_that_computes_something_else_is_not_written(tmp_path, capsys, monkeypatch):
    model, file = saved("classifier", tmp_path), tmp_path / "out.pt2"
    file.write_bytes(b"earlier")
    load = engines.Torch.load
    monkeypatch.setattr(engines.Torch, "load", lambda self, path: lambda x: [1.01 * y for y in load(self, path)(x)])
    assert main(["export", *model, str(file)]) == 1
    assert "outputs for pictures [1, 3, 9, 9] differ from torch's" in capsys.readouterr().err
    assert file.read_bytes() == b"earlier"
    assert write.TOLERANCE == 1e-4


def test_a_size_that_torchs_graph_refuses_is_one_line(monkeypatch):
    """torch.export keeps a guard where a network crops its maps at some sizes only, as DLA's segmentation does."""

    def refuse(x: torch.Tensor) -> None:
        raise AssertionError("Guard failed")

    program = type("Program", (), {"module": lambda self: refuse})
    monkeypatch.setattr(torch.export, "load", lambda path: program())
    run = engines.engine_for(Path("a.pt2")).load(Path("a.pt2"))
    with pytest.raises(RunError, match="refuses pictures of 1 x 3 x 8 x 9"):
        run(np.zeros((1, 3, 8, 9), np.float32))
