"""``mmms train`` and ``mmms test`` of classifiers: an ImageFolder, COCO instances as labels, and what does not fit."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.dataset import pseudo_collate
from PIL import Image

from mmms_plugin.commands import main
from mmms_plugin.config.edit import set_num_classes
from mmms_plugin.config.files import load_config
from mmms_plugin.train.predict import picture_pipeline
from mmms_plugin.weights.reader import read

pytest.importorskip("mmpretrain")
pytest.importorskip("torchvision")

QUICK = ["--cfg-options", "param_scheduler=None", "train_cfg.max_epochs=1", *(
    f"{split}_dataloader.{key}" for split in ("train", "val", "test")
    for key in ("batch_size=4", "num_workers=0", "persistent_workers=False")
)]  # fmt: skip


def run(command: str, config: str, *options: str) -> int:
    return main([command, config, *options, *QUICK])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """The checkpoint of one epoch of the small MSDNet."""
    folder = tmp_path_factory.mktemp("classifier")
    assert run("train", "cifar10/msdnet_small", "--image-dir", str(shapes), "--work-dir", str(folder)) == 0
    return next(folder.glob("epoch_*.pth"))


def test_an_image_folder_trains_a_network_with_several_exits(shapes, trained, tmp_path, capfd):
    data = ["--image-dir", str(shapes), "--work-dir", str(tmp_path / "out")]
    log = next(trained.parent.glob("*/*.log")).read_text(encoding="utf-8")
    assert "5 classes: circle, ring, square, star, triangle; train: 12 pictures, val: 5 pictures" in log
    assert all(f"accuracy/exit{i}_top1" in log for i in range(1, 5))
    checkpoint = str(trained)
    kept = ["--out", str(tmp_path / "predictions.json"), "--show-dir", str(tmp_path / "drawn")]
    assert run("test", "cifar10/msdnet_small", checkpoint, *data, *kept) == 0
    printed = capfd.readouterr().out
    records = json.loads((tmp_path / "predictions.json").read_text(encoding="utf-8"))
    top1 = sum(r["predicted"][0] == r["labels"][0] for r in records) / len(records)
    assert float(re.findall(r"accuracy/top1: ([\d.]+)", printed)[-1]) == pytest.approx(100 * top1, abs=1e-3)
    assert len(records) == len(list((tmp_path / "drawn").glob("*/*.png"))) == 5
    assert run("test", "cifar10/msdnet_small", checkpoint, *data, "--out", "predictions.csv") == 2
    assert "--out predictions.csv: predictions of a classifier are JSON" in capfd.readouterr().err
    stress = ["stress-test", "cifar10/msdnet_small"]
    options = ["--image-dir", str(shapes), "--sizes", "32", "--out", str(tmp_path / "sizes")]
    assert run(*stress, checkpoint, *options) == 0
    printed = capfd.readouterr().out
    assert printed.startswith("stress-test: 5 pictures at each of 32 px: about 1 min\n")
    assert json.loads((tmp_path / "sizes/stress_test.json").read_text(encoding="utf-8"))["32"]["accuracy/top1"] >= 0
    assert run(*stress, str(tmp_path / "no.pth"), *options) == 2
    assert capfd.readouterr() == ("", f"mmms stress-test: error: checkpoint {tmp_path / 'no.pth'}: no such file\n")


def test_a_config_of_mmpretrain_for_pictures_in_memory_reads_files(tmp_path):
    """Its normalisation stands beside the model, its pipelines expect RGB: predictions are those of the test."""
    name = "mmpretrain::resnet18_8xb16_cifar10"
    generator = np.random.default_rng(0)
    for split, label, i in itertools.product(("train", "val"), "ab", range(3)):
        path = tmp_path / f"data/{split}/{label}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    data = ["--image-dir", str(tmp_path / "data"), "--work-dir", str(tmp_path / "out")]
    assert run("train", name, *data) == 0
    checkpoint = str(tmp_path / "out/epoch_1.pth")
    kept = ["--out", str(tmp_path / "tested.json")]
    options = ["test_evaluator.type=mmms_plugin.ClassMetric", "test_dataloader.num_workers=0"]
    options.append("test_dataloader.persistent_workers=False")
    assert main(["test", name, checkpoint, *data, *kept, "--no-optimize", "--cfg-options", *options]) == 0
    pictures = [str(tmp_path / f"data/val/{label}/{i}.png") for label in "ab" for i in range(3)]
    assert main(["predict", name, checkpoint, *pictures, "--out", str(tmp_path / "predicted"), "--no-draw"]) == 0
    tested = json.loads((tmp_path / "tested.json").read_text(encoding="utf-8"))
    predicted = json.loads((tmp_path / "predicted/predictions.json").read_text(encoding="utf-8"))
    by_class = [[score for _, score in sorted(zip(r["predicted"], r["scores"], strict=True))] for r in tested]
    np.testing.assert_allclose(by_class, [record["scores"] for record in predicted["pictures"]], atol=1e-4)
    red = tmp_path / "red.png"
    Image.new("RGB", (32, 32), (255, 0, 0)).save(red)
    sample = picture_pipeline(load_config(name))({"img_path": str(red), "img_id": 0})
    assert sample["inputs"][:, 0, 0].tolist() == [255, 0, 0]


def test_coco_instances_are_labels(shapes, tmp_path, capfd):
    data = ["--coco-dir", str(shapes), "--work-dir", str(tmp_path / "out")]
    assert main(["train", "demo/labels_ps_r18_shapes", *data, *QUICK]) == 0
    printed = capfd.readouterr().out
    assert all(f"labels/{key}: " in printed for key in ("mAP", "F1_per_class", "F1_overall", "recall_small"))
    options = ["--out", str(tmp_path / "sizes")]
    checkpoint = str(next((tmp_path / "out").glob("epoch_*.pth")))
    more = ["test_dataloader.num_workers=0", "test_dataloader.persistent_workers=False"]
    arguments = ["stress-test", "demo/labels_ps_r18_shapes", checkpoint, *data[:2], *options]
    assert main([*arguments, "--cfg-options", *more]) == 0
    by_size = json.loads((tmp_path / "sizes/stress_test.json").read_text(encoding="utf-8"))
    assert list(by_size) == ["96", "192", "384"]
    pictures = len(json.loads((shapes / "annotations/instances_val.json").read_text(encoding="utf-8"))["images"])
    first = capfd.readouterr().out.partition("\n")[0]
    assert first == f"stress-test: {pictures} pictures at each of 96, 192, 384 px: about 1 min"
    assert set(by_size["96"]) == {"labels/mAP", "labels/F1_per_class", "labels/F1_overall"}
    assert (tmp_path / "sizes/stress_test.png").stat().st_size > 5000
    assert main([*arguments[:4], *data[:2], "--sizes", "8", "--out", "x"]) == 2
    labels = json.loads((tmp_path / "out/annotations/labels_val.json").read_text(encoding="utf-8"))
    coco = json.loads((shapes / "annotations/instances_val.json").read_text(encoding="utf-8"))
    names = {c["id"]: c["name"] for c in coco["categories"]}
    for image, entry in zip(coco["images"], labels["data_list"], strict=True):
        own = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        assert {labels["metainfo"]["classes"][i] for i in entry["gt_label"]} == {names[a["category_id"]] for a in own}
        small_ones = {names[a["category_id"]] for a in own if a["area"] < 32**2}
        pairs = zip(entry["gt_label"], entry["label_sizes"], strict=True)
        assert {labels["metainfo"]["classes"][i] for i, sizes in pairs if "S" in sizes} == small_ones


@pytest.mark.parametrize(("task", "entry"), [("classification", "train/ring"), ("multilabel", "annotations")])
def test_make_shapes_writes_what_a_task_needs(tmp_path, task, entry, capsys):
    out = str(tmp_path / "shapes")
    assert main(["make-shapes", out, "--train", "2", "--val", "1", "--size", "96", "--task", task]) == 0
    assert (tmp_path / "shapes" / entry).is_dir()
    assert (
        f"mmms train demo/{'msdnet' if task == 'classification' else 'labels_ps_r18'}_shapes --"
        in capsys.readouterr().out
    )
    assert main(["make-shapes", out, "--task", task, "--format", "voc"]) == 2
    assert "--task and --format: give one of them" in capsys.readouterr().err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            for i in range(2):
                path = tmp_path / "data" / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (32, 32)).save(path)
    return tmp_path / "data"


def no_val(folder: Path) -> None:
    shutil.rmtree(folder / "val")


def no_classes(folder: Path) -> None:
    for name in ("cat", "dog"):
        shutil.rmtree(folder / "train" / name)


def other_class(folder: Path) -> None:
    (folder / "val/dog").rename(folder / "val/wolf")


def unreadable(folder: Path) -> None:
    (folder / "train/cat/0.png").write_bytes(b"no picture")
    (folder / "val/dog/1.png").write_bytes(b"")


def empty_class(folder: Path) -> None:
    (folder / "train/cow").mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_val, "no class folders for val; expected are train/<class>/ and val/<class>/ with pictures"),
        (no_classes, "no class folders for train; expected are"),
        (other_class, "classes of train and val differ: 1 not in train (first: 'wolf')"),
        (
            unreadable,
            "train: pictures that cannot be read: 1 (cat/0.png: not a known picture format); also pictures of 0 b",
        ),
        (empty_class, "no pictures in train/cow"),
    ],
)
def test_folders_that_do_not_fit(folder, tmp_path, spoil, message, capsys):
    spoil(folder)
    assert run("train", "cifar10/msdnet_small", "--image-dir", str(folder), "--work-dir", str(tmp_path / "out")) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize(
    ("config", "flag", "message"),
    [
        ("cifar10/msdnet_small", "--coco-dir", "this config is a classifier, its data are given by --image-dir"),
        ("coco_multilabel/elastic_x50_coco", "--voc-dir", "a classifier for several labels, its data are given by"),
        (
            "coco_multilabel/elastic_x50_coco",
            "--image-dir",
            "no _classes.csv for train; expected are train/_classes.csv",
        ),
        ("mask_rcnn_ps_r50_fpn_1x", "--image-dir", "this config is a detector, its data are given by --coco-dir"),
    ],
)
def test_data_of_another_task(folder, tmp_path, config, flag, message, capsys):
    assert run("train", config, flag, str(folder), "--work-dir", str(tmp_path / "out")) == 2
    assert message in capsys.readouterr().err


def check_exits(points: list[dict], checkpoint: Path, folder: Path) -> None:
    """Recount accuracies and shares on the half of the pictures that chose no threshold, one by one."""
    from mmengine.registry import MODELS

    config = load_config("cifar10/msdnet_small")
    plans = json.loads(checkpoint.with_suffix(".exits.json").read_text(encoding="utf-8"))
    set_num_classes(config.model, 5)
    model = MODELS.build(config.model).eval()
    model.load_state_dict(read(checkpoint)["state_dict"])
    files = [file for name in sorted(folder.iterdir()) for file in sorted(name.iterdir())]
    chosen = np.random.default_rng(0).permutation(len(files)) < len(files) / 2
    classes, confidences, rights = sorted(name.name for name in folder.iterdir()), [], []
    for file, left_out in zip(files, chosen, strict=True):
        if not left_out:
            sample = {"img_path": str(file), "img_id": 0, "gt_label": classes.index(file.parent.name)}
            batch = pseudo_collate([picture_pipeline(config)(sample)])
            (found,) = model.test_step(batch)
            best, labels = found.exit_scores.double().max(1)
            confidences.append(best.tolist())
            rights.append((labels == classes.index(file.parent.name)).tolist())
    anytime, budgeted = ([p for p in points if p["kind"] == kind] for kind in ("anytime", "budgeted"))
    for i, point in enumerate(anytime):
        assert point["accuracy"] == pytest.approx(100 * sum(right[i] for right in rights) / len(rights))
    for point, plan in zip(budgeted, plans["rows"], strict=True):
        exits = [next((i for i, c in enumerate(row) if c >= plan["thresholds"][i]), 3) for row in confidences]
        shares = [exits.count(i) / len(exits) for i in range(4)]
        assert point["leaving"] == pytest.approx(shares)
        right = sum(row[i] for row, i in zip(rights, exits, strict=True))
        assert point["accuracy"] == pytest.approx(100 * right / len(exits))


def check_promises(checkpoint: Path, data: list[str], options: list[str], capfd) -> None:
    """``--risk``, with which ``mmms test`` measures what early exit costs: its own scores, exit by exit."""
    command = ["cifar10/msdnet_small", str(checkpoint), *data]
    asked = ["--risk", "0.9", "0.01", "--confidence", "0.6", "--choose-on", "all"]
    assert run("early-exit", *command, *options, *asked) == 0
    printed = " ".join(capfd.readouterr().out.split())
    assert "--risk 0.01: 12 pictures are not enough to promise any thresholds with confidence 0.6" in printed
    assert "promised: top-1 at most 90 below its, with confidence 0.6; measured:" in printed
    file = checkpoint.with_suffix(".exits.json")
    loose, strict = json.loads(file.read_text(encoding="utf-8"))["promises"]
    assert (loose["risk"], loose["confidence"], loose["pictures"]) == (0.9, 0.6, 12)
    assert loose["plan"]["shares"] == [1, 0, 0, 0]
    assert strict["plan"]["shares"] == [0, 0, 0, 1]
    test = [*command, "--split", "train"]
    for flag, value, plan in (("--risk", "0.9", loose["plan"]), ("--budget", "100", None)):
        assert run("test", *test, flag, value) == 0
        printed = capfd.readouterr().out
        found = {key: float(value) for key, value in re.findall(r"early_exit/(\w+): ([-\d.]+)", printed)}
        whole = float(re.search(r"accuracy/top1: ([\d.]+)", printed)[1])
        assert found["loss"] == pytest.approx(whole - found["top1"], abs=1e-3)
        assert sum(found[f"exit{number}"] for number in range(1, 5)) == pytest.approx(100)
        promised = "; promised: top-1 at most 90 points below the whole network's, with confidence 0.6"
        assert f"early exit: thresholds {file}, chosen on 12 pictures{promised if plan else ''}\n" in printed
        if plan:
            assert found["top1"] == pytest.approx(plan["accuracy"], abs=1e-3)
            assert found["MMAC"] == pytest.approx(plan["macs"] / 1e6, abs=1e-3)
    for wrong, message in (
        (["--risk", "0.005"], "risk of 0.005: the file has promises for 0.9, 0.01; test for it with mmms early-exit"),
        (["--risk", "0.9", "--budget", "4"], "--budget and --risk: give one of them"),
    ):
        assert run("test", *test, *wrong) == 2
        assert message in capfd.readouterr().err
    assert run("early-exit", *command, *options, "--risk", "0.9", "--split", "train") == 0
    printed = " ".join(capfd.readouterr().out.split())
    assert f"{file} held thresholds for --risk 0.01 (confidence 0.6) until now; these replace them" in printed
    assert "--split train: a promise holds for pictures like these" in printed
    file.unlink()
    assert run("early-exit", *command, *options, "--confidence", "0.9") == 2
    assert "--confidence: needs --risk" in capfd.readouterr().err
    assert run("test", *test, "--risk", "0.9") == 2
    assert f"--risk 0.9: no thresholds {file}; choose them with mmms early-exit --risk 0.9" in capfd.readouterr().err
    assert run("early-exit", *command, *options, "--thresholds", str(checkpoint), "--risk", "0.1") == 2
    assert "--risk: thresholds are tested when they are chosen; leave --thresholds out" in capfd.readouterr().err


def test_early_exit_chooses_thresholds_and_reports_what_they_save(shapes, trained, tmp_path, capfd):
    data = ["--image-dir", str(shapes), "--work-dir", str(tmp_path / "out")]
    checkpoint = tmp_path / "small.pth"
    shutil.copy(trained, checkpoint)
    options = ["--split", "train", "--out", str(tmp_path / "report"), "--batches", "1", "4"]
    more = ["--pictures", "4", "--rounds", "1"]
    assert run("early-exit", "cifar10/msdnet_small", str(checkpoint), *data, *options, *more) == 0
    printed = capfd.readouterr().out
    assert "exit 1: 2.7 MMAC" in printed
    assert "achieved" in printed
    content = json.loads((tmp_path / "report/early_exit.json").read_text(encoding="utf-8"))
    assert len([p for p in content["points"] if p["kind"] == "anytime"]) == 4
    leaving = [p["leaving"] for p in content["points"] if p["kind"] == "budgeted"]
    assert all(len(shares) == 4 and abs(sum(shares) - 1) < 1e-9 for shares in leaving)
    assert {row["batch"] for row in content["savings"]} == {1, 4}
    assert (tmp_path / "report/accuracy_and_cost.png").stat().st_size > 5000
    check_exits(content["points"], checkpoint, shapes / "train")
    plans = json.loads(checkpoint.with_suffix(".exits.json").read_text(encoding="utf-8"))
    assert (plans["size"], plans["pictures"]) == ([32, 32], 6)
    assert run("early-exit", "cifar10/msdnet_small", str(checkpoint), *data, *options, *more, "--choose-on", "all") == 0
    assert "the thresholds were chosen on these pictures" in " ".join(capfd.readouterr().out.split())
    assert json.loads(checkpoint.with_suffix(".exits.json").read_text(encoding="utf-8"))["pictures"] == 12
    checkpoint.with_suffix(".exits.json").write_text(json.dumps(plans), encoding="utf-8")
    again = ["--thresholds", str(checkpoint.with_suffix(".exits.json"))]
    both = [*data, *options, *more, *again, "--choose-on", "all"]
    assert run("early-exit", "cifar10/msdnet_small", str(checkpoint), *both) == 2
    assert "--choose-on all: --thresholds gives the thresholds" in capfd.readouterr().err
    budget = ["--budget", "9"]
    assert run("early-exit", "cifar10/msdnet_small", str(checkpoint), *data, *options, *more, *again, *budget) == 0
    printed = " ".join(capfd.readouterr().out.split())
    assert "--budget 9: the whole network takes 7.5 MMAC; timed is its most accurate plan" in printed
    assert "the thresholds were chosen on 6 pictures: if some of them are among these" in printed
    reported = json.loads((tmp_path / "report/early_exit.json").read_text(encoding="utf-8"))
    assert [row["batch"] for row in reported["savings"]] == [1, 4]  # one budget
    assert all(row["budget"] * reported["points"][3]["macs"] <= 9e6 for row in reported["savings"])
    assert json.loads(checkpoint.with_suffix(".exits.json").read_text(encoding="utf-8")) == plans
    check_promises(checkpoint, data, [*options, *more], capfd)
    checkpoint.with_suffix(".exits.json").write_text(json.dumps(plans), encoding="utf-8")
    for bad, message in (
        ("1", "budget of 1 million multiply-adds: below the cheapest plan, which needs 2.6"),
        ("0", "--budget 0.0: must be a number above 0"),
    ):
        assert run("early-exit", "cifar10/msdnet_small", str(checkpoint), *data, *options, *again, "--budget", bad) == 2
        assert message in capfd.readouterr().err
    other = json.dumps({**plans, "model": "0" * 64})
    (tmp_path / "other.json").write_text(other, encoding="utf-8")
    wrong = ["--thresholds", str(tmp_path / "other.json")]
    assert run("early-exit", "cifar10/msdnet_small", str(checkpoint), *data, *options, *wrong) == 2
    assert "other.json: for other weights; choose new ones" in capfd.readouterr().err
    assert run("early-exit", "cifar10/ps_resnext29_small", str(checkpoint), *data, *options, *more) == 2
    assert "is not of this config's model" in capfd.readouterr().err
    pixels = [*QUICK, "model.data_preprocessor.to_rgb=False"]
    assert main(["early-exit", "cifar10/msdnet_small", str(checkpoint), *data, *options, *more, *pixels]) == 2
    assert "was trained with data_preprocessor.bgr_to_rgb=True, the config has False" in capfd.readouterr().err
