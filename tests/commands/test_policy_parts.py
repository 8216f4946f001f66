"""Parts of ``mmms scale-policy`` and ``mmms predict`` that need no network: pictures, progress, boxes, class names."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from PIL import Image

import mmms_plugin.commands.scale_policy_measure as measure_module
from mmms_plugin.commands.scale_policy import compare_sizes, remove_sizes
from mmms_plugin.commands.scale_policy_measure import PolicyRun, Progress, Source, check_readable, find_sources
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.errors import UserError
from mmms_plugin.train.options import ModelOptions
from mmms_plugin.train.predict import classes_of, config_of, with_progress


def own(data: Path, split: str = "val") -> OwnData:
    return OwnData("--coco-dir", data, split=split, training=False)


def pictures(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(folder / name)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set whose second picture shows a crowd and two objects, one of them without an area."""
    pictures(tmp_path, "images/a.png", "images/b.png")
    images = [dict(id=5, file_name="a.png", width=9, height=9), dict(id=6, file_name="b.png", width=9, height=9)]
    boxes = [(3, 3, 4, None), (1, 2, 3, 0), (9, 9, 81, 1)]
    records = [
        dict(id=i, image_id=6, category_id=9 - i, bbox=[0, 0, w, h], area=area, iscrowd=int(crowd or 0))
        for i, (w, h, area, crowd) in enumerate(boxes)
    ]
    names = [dict(id=9, name="z"), dict(id=8, name="a"), dict(id=7, name="crowd")]
    (tmp_path / "annotations").mkdir()
    content = dict(images=images, annotations=records, categories=names)
    (tmp_path / "annotations/instances_val.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def test_pictures_of_a_data_set_with_their_objects(data, tmp_path):
    first, second = find_sources(None, own(data), tmp_path / "out")
    assert first == Source(data / "images/a.png", "a.png", (), (), "a.png")
    assert (second.classes, second.sides) == (("a", "z"), (2.0, 3**0.5))
    with pytest.raises(
        UserError,
        match=r"for train there; .* \(annotations for val\); name the annotation files after their split",
    ):
        find_sources(None, own(data, "train"), tmp_path / "out")
    file = data / "annotations/instances_val.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content | dict(images=[], annotations=[])), encoding="utf-8")
    with pytest.raises(UserError, match=r"instances_val\.json"):
        find_sources(None, own(data), tmp_path / "out")


def test_pictures_of_a_folder_with_the_classes_of_its_folders(tmp_path):
    pictures(tmp_path, "in/x.png", "in/cat/y.png", "in/cat/deep/z.png", "in/out/drawn.png")
    found = find_sources(str(tmp_path / "in"), None, tmp_path / "in/out")
    assert [(source.name, source.classes) for source in found] == [
        ("cat/deep/z.png", ("cat",)), ("cat/y.png", ("cat",)), ("x.png", ()),
    ]  # fmt: skip


def test_an_interrupted_run_measures_what_is_left(tmp_path, capsys, monkeypatch):
    pictures(tmp_path, *(f"{i}.png" for i in range(4)))
    (tmp_path / "2.png").write_bytes(b"")
    sources = [Source(tmp_path / f"{i}.png", f"{i}.png") for i in range(4)]
    file, calls = tmp_path / "progress.json", []

    def one(source: Source) -> int:
        calls.append(source.name)
        if source.name == "1.png":
            raise ValueError("map of 1 x 1\nis too small")
        if source.name == "3.png" and calls.count("3.png") == 1:
            raise KeyboardInterrupt
        return len(calls)

    with pytest.raises(KeyboardInterrupt):
        Progress(file, "key").measure(sources, one, "measuring")
    assert json.loads(file.read_text(encoding="utf-8")) == dict(
        key="key", skipped={"1.png": r"map of 1 x 1\nis too small", "2.png": "empty"}, results={"0.png": 1}
    )
    assert "resuming" not in capsys.readouterr().err
    done = Progress(file, "key")
    done.measure(sources, one, "measuring")
    assert (calls, done.results) == (["0.png", "1.png", "3.png", "3.png"], {"0.png": 1, "3.png": 4})
    assert "measuring: resuming after 1 of 4 pictures\n" in capsys.readouterr().err
    for content in (None, "{", "[]", json.dumps(dict(key="key", results=[], skipped={})), json.dumps(dict(results={}))):
        if content is not None:
            file.write_text(content, encoding="utf-8")
        other = Progress(file, "other" if content is None else "key")  # other weights; a damaged file
        assert (other.results, other.skipped) == ({}, {})
    with pytest.raises(UserError, match=r"the picture cannot be read; 2\.png: empty"):
        Progress(tmp_path / "new.json", "key").measure(sources[2:3], one, "measuring")
    with pytest.raises(UserError, match="refused"):
        Progress(tmp_path / "new.json", "key").measure(sources[:1], raise_user_error, "measuring")


def raise_user_error(source: Source) -> None:
    raise UserError("refused")


def test_progress_is_saved_now_and_then(tmp_path, monkeypatch):
    pictures(tmp_path, *(f"{i}.png" for i in range(4)))
    now, saves = [0.0], []
    monkeypatch.setattr(measure_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(measure_module, "write_text", lambda path, text: saves.append(len(json.loads(text)["results"])))

    def one(source: Source) -> int:
        now[0] += 6
        return 0

    sources = [Source(tmp_path / f"{i}.png", f"{i}.png") for i in range(4)]
    Progress(tmp_path / "x.json", "key").measure(sources, one, "measuring")
    assert saves == [2, 4, 4]  # after 12 s and 24 s, and at the end


def test_one_readable_picture_is_enough(tmp_path):
    pictures(tmp_path, "good.png")
    (tmp_path / "bad.png").write_bytes(b"")
    bad, good = (Source(tmp_path / f"{name}.png", name) for name in ("bad", "good"))
    check_readable([bad, good])
    with pytest.raises(UserError, match="the picture cannot be read; bad: empty"):
        check_readable([bad])


def run_of(classes: tuple[str, ...], boxes: dict, stem: str = "x") -> SimpleNamespace:
    options = SimpleNamespace(checkpoint=f"runs/{stem}.pth")
    return SimpleNamespace(classes=classes, boxes=lambda sources, skipped: boxes, options=options)


def test_boxes_get_the_numbers_of_the_data_set(data, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "mmms_plugin.commands.size_ap.run_size_ap", lambda *given, **options: calls.append((given, options))
    )
    sources = find_sources(None, own(data), tmp_path / "out")
    boxes = {"b.png": [[0, 0.5, 1, 2, 3, 4], [2, 0.25, 5, 6, 7, 8]]}
    out = tmp_path / "report"
    known = run_of(("a", "unknown", "z"), boxes)
    unnamed = run_of(tuple(f"class {i}" for i in range(3)), boxes, "y")
    for runs, names in (((known, unnamed), ["x", "y"]), ((unnamed, unnamed), ["1 y", "2 y"])):
        out.mkdir(exist_ok=True)
        compare_sizes(runs, out, own(data), sources, {})
        (given, options) = calls.pop()
        assert options["names"] == names
        assert given[:3] == (str(data / "annotations/instances_val.json"), [str(out / f"run_{n}.json") for n in (1, 2)],
                             str(out))  # fmt: skip
        assert (given[3].replicates, options["source"].pictures) == (200, data / "images")
    records = json.loads((out / "run_2.json").read_text(encoding="utf-8"))
    assert records == [
        dict(image_id=6, category_id=9, bbox=[1, 2, 3, 4], score=0.5),
        dict(image_id=6, category_id=7, bbox=[5, 6, 7, 8], score=0.25),
    ]
    compare_sizes((known, known), out, own(data), sources, {})
    records = json.loads((out / "run_1.json").read_text(encoding="utf-8"))
    assert [record["category_id"] for record in records] == [8, 9]
    with pytest.raises(UserError, match=r"--compare: the model's classes \(p, q, r\) are not the data set's"):
        compare_sizes((run_of(("p", "q", "r", "s"), boxes), known), out, own(data), sources, {})
    (out / "run_2.json").rename(out / "other.json")
    remove_sizes(out)
    assert out.is_dir()  # it may be somebody else's
    (out / "other.json").rename(out / "run_2.json")
    remove_sizes(out)
    assert not out.exists()


def test_boxes_are_kept_from_the_least_score_on(tmp_path):
    run: Any = object.__new__(PolicyRun)
    boxes = torch.tensor([[1.0, 2, 4, 6], [0, 0, 1, 1], [0, 0, 2, 1]])
    objects = InstanceData(bboxes=boxes, scores=torch.tensor([0.001, 0.00099, 0.5]), labels=torch.tensor([3, 0, 1]))
    run._batch, run.title = (lambda source: None), "net"
    run.model = SimpleNamespace(test_step=lambda batch: [dict(pred_instances=objects)])
    assert run._boxes(Source(tmp_path, "x")) == [[3, pytest.approx(0.001), 1, 2, 3, 4], [1, 0.5, 0, 0, 2, 1]]
    run.model = SimpleNamespace(test_step=lambda batch: [{}])
    with pytest.raises(UserError, match="--compare: net predicts no boxes"):
        run._boxes(Source(tmp_path, "x"))


def test_a_bar_of_lines_where_there_is_no_terminal(capsys):
    assert list(with_progress(range(10))) == list(range(10))
    assert capsys.readouterr().err == ""
    assert list(with_progress(range(11))) == list(range(11))
    assert capsys.readouterr().err.splitlines() == [f"{i} of 11 pictures" for i in (2, 4, 6, 8, 10)]


def predictor(classes: object = None, heads: int = 2, **more: object) -> Config:
    data = dict(type="NoDataSet", ann_file="", metainfo={} if classes is None else dict(classes=classes))
    model = dict(type="X", head=dict(num_classes=heads))
    return Config(dict(default_scope="mmengine", model=model, test_dataloader=dict(dataset=data), **more))


@pytest.mark.parametrize(
    ("classes", "meta", "names", "heads"),
    [
        (None, {}, ("class 0", "class 1"), 2),
        (("a", "b"), {}, ("a", "b"), 2),
        ("a", {}, ("a",), 1),
        (("a", "b"), {}, ("class 0", "class 1", "class 2"), 3),  # COCO's names, say, and a head for other classes
        (("a", "b"), dict(dataset_meta=dict(classes=("x", "y", "z"))), ("x", "y", "z"), 3),
        (None, dict(dataset_meta=dict(CLASSES=("x", "y"))), ("x", "y"), 2),
    ],
)
def test_the_classes_of_a_checkpoint_go_before_those_of_the_config(classes, meta, names, heads):
    config = predictor(classes, 2 if meta else heads)
    assert classes_of(config, meta)[0] == names
    assert config.model.head.num_classes == heads


def test_the_config_of_a_checkpoint_is_run_only_when_it_is_trusted():
    options = ModelOptions(checkpoint="x.pth")
    with pytest.raises(UserError, match=r"^CONFIG is missing: give a config before the checkpoint"):
        config_of(options, {"cfg": predictor().pretty_text})
    options.trust_checkpoint_config = True
    options.cfg_options = {"model.type": "Y"}
    assert config_of(options, {"cfg": predictor().pretty_text}).model.type == "Y"
    for meta, message in (
        ({}, r"checkpoint x\.pth: it contains no config \(meta\.cfg\), give CONFIG"),
        ({"cfg": "model = 1 /"}, r"checkpoint x\.pth: its config: "),
        ({"cfg": "model = dict()"}, r"config x\.pth: it has no model, or no test_dataloader"),
        (
            {"cfg": "test_dataloader = dict(dataset=dict(type='A', ann_file=''))"},
            r"config x\.pth: it has no model, or no",
        ),
    ):
        with pytest.raises(UserError, match=message):
            config_of(options, meta)
