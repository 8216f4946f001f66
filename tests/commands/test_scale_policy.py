"""``mmms scale-policy``: numbers, figures and page of small networks with random weights."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

from mmms_plugin.commands import main
from mmms_plugin.commands.scale_policy_measure import PolicyRun
from mmms_plugin.config.files import load_config

CONFIG = """
_base_ = "{root}/demo/mask_rcnn_ps_r18_shapes.py"
model = dict(
    backbone=dict(_delete_=True, type="mmdet.ResNet", depth=18, base_channels=8, stem_channels=8, conv_cfg={conv}),
    neck=dict(in_channels=[8, 16, 32, 64]),
)
"""
HOSTILE = "<img src=x onerror=\"document.title='hacked'\">"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def save_random(config: str, path: Path) -> None:
    loaded = load_config(config)
    init_default_scope(loaded.default_scope)
    torch.manual_seed(0)
    torch.save(dict(state_dict=MODELS.build(loaded.model).state_dict(), meta={}), path)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """elastic.py and plain.py, detectors with and without ElasticConv, and their weights."""
    folder = tmp_path_factory.mktemp("models")
    for name, conv in (("elastic", 'dict(type="mmms_plugin.ElasticConv")'), ("plain", "None")):
        root = Path(__file__).parents[2] / "configs"
        (folder / f"{name}.py").write_text(CONFIG.format(root=root, conv=conv), encoding="utf-8")
        save_random(str(folder / f"{name}.py"), folder / f"{name}.pth")
    return folder


def command(models, name, *arguments):
    return ["scale-policy", str(models / f"{name}.py"), str(models / f"{name}.pth"), *map(str, arguments)]


@pytest.fixture
def pictures(shapes, tmp_path):
    """Pictures of two classes, one of them with a hostile name, and one that cannot be read."""
    files = sorted((shapes / "images").glob("*.png"))
    for i, file in enumerate(files):
        target = tmp_path / "in" / (HOSTILE if i % 2 else "plain") / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    (tmp_path / "in/plain/broken.png").write_bytes(files[0].read_bytes()[:200])
    return tmp_path / "in"


@pytest.mark.slow
def test_a_data_set(models, shapes, tmp_path, capsys):
    out = tmp_path / "out"
    options = ("--coco-dir", shapes, "--split", "train", "--out", out, "--fields", 1)
    assert main(command(models, "elastic", *options)) == 0
    content = json.loads((out / "policy.json").read_text(encoding="utf-8"))
    blocks, rows = content["columns"], content["pictures"]
    assert len(blocks) == 13  # of ResNet-18's 16 layers of 3x3, the first of three stages has a stride
    assert len(rows) == 4
    truth = json.loads((shapes / "annotations/instances_train.json").read_text(encoding="utf-8"))
    names = {image["file_name"]: image["id"] for image in truth["images"]}
    for row in rows:
        areas = [one["area"] for one in truth["annotations"] if one["image_id"] == names[row["name"]]]
        assert sorted(row["sides"]) == pytest.approx(sorted(area**0.5 for area in areas))
    scores = [group["score"] for group in content["classes"]]
    assert scores == sorted(scores, reverse=True)
    group = content["classes"][0]
    own = [row["values"] for row in rows if group["name"] in row["classes"]]
    assert group["pictures"] == len(own)
    assert group["score"] == pytest.approx(sum(map(sum, own)) / len(own) / len(blocks))
    assert [field["theoretical"] for field in content["receptive_fields"]] == sorted(
        field["theoretical"] for field in content["receptive_fields"]
    )
    with open(out / "pictures.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [float(line[blocks[3]]) for line in table] == [row["values"][3] for row in rows]
    parquet = pytest.importorskip("pyarrow.parquet").read_table(out / "pictures.parquet").to_pydict()
    assert parquet[blocks[3]] == [row["values"][3] for row in rows]
    assert parquet["picture"] == [row["name"] for row in rows]
    for name in ("blocks", "classes", "map", "sizes", "receptive_fields"):
        assert Image.open(out / f"{name}.png").width > 600
        assert (out / f"{name}.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert not (out / "progress.json").exists()
    assert "4 pictures, scale policy: 13 blocks" in capsys.readouterr().out


@pytest.mark.slow
def test_an_interrupted_run_continues(models, pictures, tmp_path, capsys, monkeypatch):
    arguments = command(models, "elastic", "--images", pictures, "--out", tmp_path / "out", "--fields", 0)
    measured, row = [], PolicyRun._row

    def stopping(self, source):
        measured.append(source.name)
        if len(measured) == 4:
            raise KeyboardInterrupt
        return row(self, source)

    monkeypatch.setattr(PolicyRun, "_row", stopping)
    assert main(arguments) == 130
    assert main(arguments) == 0
    assert (len(measured), len(set(measured))) == (7, 6)  # the fourth was begun twice
    captured = capsys.readouterr()
    assert "measuring: resuming after 3 of 7 pictures" in captured.err
    assert "1 skipped" in captured.out
    assert (tmp_path / "out/skipped.txt").read_text(encoding="utf-8").startswith("plain/broken.png: ")


@pytest.mark.slow
def test_links_keep_their_names_and_small_pictures_are_skipped(models, pictures, tmp_path, capsys):
    """A tree of links is a usual way to choose pictures; one picture that is too small does not stop the others."""
    files = sorted((pictures / "plain").glob("*.png"))[1:]
    for i, name in enumerate(("cat/a.png", "dog/b.png", "dog/c.png")):
        store = tmp_path / f"store/{i}/picture.png"
        store.parent.mkdir(parents=True)
        shutil.copy(files[0], store)
        (tmp_path / "links" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "links" / name).symlink_to(store)
    Image.new("RGB", (192, 12)).save(tmp_path / "links/a thin one.png")
    out = tmp_path / "out"
    out.mkdir()
    (out / "answers.png").touch()  # of an earlier run with --compare
    (out / "notes.txt").touch()
    assert main(command(models, "elastic", "--images", tmp_path / "links", "--out", out, "--fields", 0)) == 0
    rows = json.loads((out / "policy.json").read_text(encoding="utf-8"))["pictures"]
    assert [(row["name"], row["classes"]) for row in rows] == [
        ("cat/a.png", ["cat"]),
        ("dog/b.png", ["dog"]),
        ("dog/c.png", ["dog"]),
    ]
    assert rows[0]["values"] == rows[1]["values"] == rows[2]["values"]  # nothing is left of the thin one
    assert (out / "skipped.txt").read_text(encoding="utf-8").startswith("a thin one.png: map of ")
    assert (out / "notes.txt").exists()
    assert not (out / "answers.png").exists()


@pytest.mark.slow
def test_a_plain_network_has_receptive_fields_only(models, pictures, tmp_path, capsys):
    assert main(command(models, "plain", "--images", pictures, "--out", tmp_path / "out", "--fields", 9)) == 0
    output = capsys.readouterr().out
    assert "ResNet has no multi-scale part" in output
    assert "1 skipped" in output
    content = json.loads((tmp_path / "out/policy.json").read_text(encoding="utf-8"))
    assert [field["theoretical"] for field in content["receptive_fields"]] == [43, 99, 211, 435]
    assert content["pictures"] == []


@pytest.mark.slow
def test_two_detectors(models, shapes, tmp_path, capsys, monkeypatch):
    """Errors by object size are size-ap's own; an interruption while boxes are predicted loses no picture."""
    out = tmp_path / "out"
    options = ("--coco-dir", shapes, "--split", "train", "--out", out, "--fields", 0, "--compare", models / "plain.pth")
    arguments = command(models, "elastic", *options, "--compare-config", models / "plain.py")
    predicted, boxes = [], PolicyRun._boxes

    def stopping(self, source):
        predicted.append((self.title, source.name))
        if len(predicted) == 7:
            raise KeyboardInterrupt
        return boxes(self, source)

    monkeypatch.setattr(PolicyRun, "_boxes", stopping)
    assert main(arguments) == 130
    assert (out / "policy.html").is_file()
    assert main(arguments) == 0
    assert (len(predicted), len(set(predicted))) == (9, 8)  # four pictures each, the seventh of all was begun twice
    assert "predicting: resuming after 2 of 4 pictures" in capsys.readouterr().err
    assert json.loads((out / "policy.json").read_text(encoding="utf-8"))["compared"]["title"] == "plain, plain.pth"
    truth = json.loads((shapes / "annotations/instances_train.json").read_text(encoding="utf-8"))
    for number in (1, 2):
        found = json.loads((out / f"size_ap/run_{number}.json").read_text(encoding="utf-8"))
        assert found
        assert {one["image_id"] for one in found} <= {image["id"] for image in truth["images"]}
        assert {one["category_id"] for one in found} <= {one["id"] for one in truth["categories"]}
    assert [one["name"] for one in json.loads((out / "size_ap/results.json").read_text(encoding="utf-8"))["runs"]] == [
        "elastic",
        "plain",
    ]
    assert not list(out.glob("progress*"))
    assert 'href="size_ap/report.html"' in (out / "policy.html").read_text(encoding="utf-8")
    assert main(command(models, "elastic", *options[:-2])) == 0
    assert not (out / "size_ap").exists()  # of the run before


@pytest.mark.slow
def test_two_classifiers(shapes, tmp_path, capsys):
    pytest.importorskip("mmpretrain")
    pytest.importorskip("torchvision")
    for name in ("first", "second"):
        save_random("demo/msdnet_shapes", tmp_path / f"{name}.pth")
    pictures, out = shapes / "val", tmp_path / "out"
    arguments = ["scale-policy", "demo/msdnet_shapes", str(tmp_path / "first.pth"), "--images", str(pictures)]
    assert main([*arguments, "--out", str(out), "--fields", "0", "--compare", str(tmp_path / "second.pth")]) == 0
    content = json.loads((out / "policy.json").read_text(encoding="utf-8"))
    compared = content.pop("compared")
    title = content.pop("title")
    assert (title, compared.pop("title")) == ("msdnet_shapes, first.pth", "msdnet_shapes, second.pth")
    assert compared.pop("answers") == []  # the classes of the checkpoints are not known
    assert compared.pop("outcomes")[1] == "only first right"
    assert compared == content  # all that is known of the first is known of the second: they have the same weights
    assert {path.name for path in out.glob("exits*.png")} == {"exits.png", "exits_compared.png"}
    page = (out / "policy.html").read_text(encoding="utf-8")
    assert page.count('"columns":') == 2
    assert "lower strip" in page


@pytest.mark.slow
def test_exits_of_a_classifier(shapes, tmp_path, capsys):
    pytest.importorskip("mmpretrain")
    pytest.importorskip("torchvision")
    save_random("demo/msdnet_shapes", tmp_path / "exits.pth")

    def report(confidence):
        out = tmp_path / str(confidence)
        arguments = ["scale-policy", "demo/msdnet_shapes", str(tmp_path / "exits.pth"), "--images", str(shapes / "val")]
        assert main([*arguments, "--out", str(out), "--fields", "0", "--confidence", str(confidence)]) == 0
        return json.loads((out / "policy.json").read_text(encoding="utf-8"))

    content = report(0.11)
    rows, count = content["pictures"], len(content["columns"])
    leaves = [next((i for i, p in enumerate(row["values"]) if p >= 0.11), count - 1) for row in rows]
    assert content["left"] == [leaves.count(i) for i in range(count)]
    assert all(0 < p <= 1 for row in rows for p in row["values"])
    assert set(leaves) & {0, count - 1}
    assert "exits: " in capsys.readouterr().out
    assert Image.open(tmp_path / "0.11/exit_examples.png").width > 600
    firsts, lasts = ([row["predicted"] for row in report(confidence)["pictures"]] for confidence in (1e-9, 1))
    assert firsts != lasts  # the answer is that of the exit at which a picture leaves
    for row, leaving, first, last in zip(rows, leaves, firsts, lasts, strict=True):
        assert row["predicted"] == {0: first, count - 1: last}.get(leaving, row["predicted"])


@pytest.mark.slow
def test_shape_adaptors_and_how_training_moved_them(shapes, tmp_path):
    pytest.importorskip("mmpretrain")
    pytest.importorskip("torchvision")
    out, run = tmp_path / "out", tmp_path / "run"
    (run / "20260101_000000/vis_data").mkdir(parents=True)
    save_random("cifar10/sa_r50_small", run / "iter_2.pth")
    lines = [dict(step=step, **{"s_stem.0": 0.7 + step / 100}) for step in (1, 2)]
    scalars = run / "20260101_000000/vis_data/scalars.json"
    scalars.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    arguments = ["scale-policy", "cifar10/sa_r50_small", str(run / "iter_2.pth"), "--images", str(shapes / "val")]
    assert main([*arguments, "--out", str(out), "--fields", "0"]) == 0
    content = json.loads((out / "policy.json").read_text(encoding="utf-8"))
    assert content["trajectories"] == {"stem.0": [[1, 0.71], [2, 0.72]]}
    assert content["shape"]["scales"]
    assert (out / "trajectories.png").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give the pictures with --images DIR, --data DIR or --coco-dir DIR, one of them"),
        (["--images", "{tmp}/none"], "no such folder"),
        (["--images", "{tmp}/empty"], "no picture in it"),
        (["--images", "{tmp}/broken"], "the picture cannot be read; broken.png: "),
        (["--images", "{tmp}", "--fields", "-1"], "--fields -1: must be an integer of at least 0"),
        (["--images", "{tmp}", "--confidence", "0"], "--confidence 0.0: must be a number above 0 and at most 1"),
        (["--images", "{tmp}", "--compare-config", "x.py"], "--compare-config: give its checkpoint too"),
        (["--coco-dir", "{shapes}", "--split", "test"], "no COCO annotations for test there; "),
    ],
)
@pytest.mark.parametrize("name", ["elastic", "plain"])
def test_bad_input_is_one_line(options, message, name, models, shapes, tmp_path, capsys):
    (tmp_path / "broken").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken/broken.png").write_bytes(b"\x89PNG")
    given = [option.format(tmp=tmp_path, shapes=shapes) for option in options]
    assert main(command(models, name, *given, "--out", tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_another_function_is_refused(models, pictures, tmp_path, capsys):
    """Weights do not show the dilations: fields and scores would be those of a network that nobody trained."""
    content = torch.load(models / "plain.pth")
    content["meta"] = dict(backbone=dict(type="mmms_plugin.PSResNet", depth=18, dilation_pattern=[1, 2, 1, 4]))
    torch.save(content, tmp_path / "ps.pth")
    arguments = ["scale-policy", str(models / "plain.py"), str(tmp_path / "ps.pth"), "--images", str(pictures)]
    arguments += ["--out", str(tmp_path / "out"), "--fields", "0"]
    assert main(arguments) == 2
    assert "was trained with backbone.dilation_pattern=[1, 2, 1, 4], the config has [1]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--force"]) == 0
    assert "was trained with" in capsys.readouterr().err


def test_a_diverged_network_is_reported(models, pictures, tmp_path, capsys):
    content = torch.load(models / "elastic.pth")
    content["state_dict"]["backbone.conv1.weight"].fill_(float("nan"))
    torch.save(content, tmp_path / "nan.pth")
    arguments = ["scale-policy", str(models / "elastic.py"), str(tmp_path / "nan.pth"), "--images", str(pictures)]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--fields", "0"]) == 2
    assert "activations are not finite; did its training diverge?" in capsys.readouterr().err


STEPS = """
<pre id="outcome"></pre><script>addEventListener("load", async () => {
  const frame = () => new Promise((done) => setTimeout(done, 60));
  const until = async (done) => { for (let i = 0; i < 100 && !done(); i++) await frame(); };
  const by = (id) => document.getElementById(id), grid = by("grid"), out = {};
  const key = (element, name) => element.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
  const cards = () => [...document.querySelectorAll(".tile")].sort((a, b) => a.id.localeCompare(b.id));
  const pick = (text, value) => {
    const label = [...document.querySelectorAll("#filters label")].find((one) => one.textContent.startsWith(text));
    const field = label.querySelector("select, input");
    field.value = value;
    field.dispatchEvent(new Event(field.tagName === "INPUT" ? "input" : "change"));
  };
  await frame();
  out.count = by("count").textContent; out.strips = document.querySelectorAll(".tile .strip i").length;
  key(grid, "ArrowRight"); key(grid, "ArrowRight"); key(grid, "ArrowLeft");
  out.selected = grid.getAttribute("aria-activedescendant");
  key(grid, "Enter"); out.open = by("large").open; out.bars = document.querySelectorAll("#large-bars code").length;
  by("close").click(); await until(() => document.activeElement === grid);
  out.closed = [by("large").open, document.activeElement.id];
  key(document.body, "/"); out.search = document.activeElement.type;
  const orders = JSON.parse(by("pictures").textContent).orders;
  pick("order by", String(orders.findIndex((order) => order.column === 2)));
  out.rising = cards().map((one) => one.title);
  pick("search", "onerror"); out.found = by("count").textContent; out.label = cards()[0].children[2].textContent;
  pick("search", ""); pick("class", "1"); out.byClass = by("count").textContent;
  out.foreign = document.querySelectorAll("#gallery script, #gallery img").length; out.page = document.title;
  by("outcome").textContent = JSON.stringify(out);
});</script></body>"""


@pytest.mark.slow
@pytest.mark.needs(BROWSER, reason="Chromium")
def test_the_page_in_a_browser(models, pictures, tmp_path):
    out = tmp_path / "out"
    assert main(command(models, "elastic", "--images", pictures, "--out", out, "--fields", 0)) == 0
    page = out / "policy.html"
    text = page.read_text(encoding="utf-8")
    assert HOSTILE not in text
    page.write_text(text.replace("</body>", STEPS), encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking " \
        "--disable-component-update --disable-sync --virtual-time-budget=20000 --dump-dom"  # fmt: skip
    data = f"--user-data-dir={tmp_path / 'browser'}"
    done = subprocess.run([BROWSER, *flags.split(), data, "--window-size=1200,900", page.as_uri()],
                          capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
    found = re.search(r'<pre id="outcome">(\{.*?\})</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    outcome = json.loads(html.unescape(found[1]))
    rows = json.loads((out / "policy.json").read_text(encoding="utf-8"))["pictures"]
    assert outcome["page"] == "elastic, elastic.pth: scale policy"
    assert outcome["count"] == "6 of 6 pictures"
    assert (outcome["strips"], outcome["bars"], outcome["foreign"]) == (6 * 13, 13, 0)
    assert (outcome["selected"], outcome["open"], outcome["closed"]) == ("pictures-1", True, [False, "grid"])
    assert outcome["search"] == "search"
    assert outcome["rising"] == [row["name"] for row in sorted(rows, key=lambda row: row["values"][2])]
    assert outcome["found"] == outcome["byClass"] == "3 of 6 pictures"
    assert outcome["label"] == HOSTILE
