"""`predict`, `test` and `scale-policy` in two processes write the files of one; a fault ends both with one line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from PIL import Image

from mmms_plugin.datasets import write_shapes
from mmms_plugin.datasets.shape_pictures import CLASSES
from tests.commands.test_predict import DETECTOR, SEGMENTER, save_random
from tests.commands.test_scale_policy import CONFIG as ELASTIC
from tests.several_processes import files_of, run_all

ONE_BY_ONE = ["test_dataloader.num_workers=0", "test_dataloader.persistent_workers=False"]
IN_PAIRS = [*ONE_BY_ONE, "test_dataloader.batch_size=2"]  # of 5 pictures


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five annotated pictures, the same and a broken one in pictures/, and checkpoints of random weights."""
    folder = tmp_path_factory.mktemp("data")
    write_shapes(folder / "shapes", train=1, val=5, size=64, formats=("coco", "voc"))
    shutil.copytree(folder / "shapes/images", folder / "pictures")
    _widen(folder / "shapes", "val_000000.png")
    (folder / "pictures/val_000001_broken.png").write_bytes(b"\x89PNG")
    root = Path(__file__).parents[2] / "configs"
    (folder / "segmenter.py").write_text(SEGMENTER.format(root=root), encoding="utf-8")
    save_random(DETECTOR, CLASSES, folder / "detector.pth")
    _let_padding_matter(folder / "detector.pth")
    save_random(str(folder / "segmenter.py"), ("background", *CLASSES), folder / "segmenter.pth")
    conv = 'dict(type="mmms_plugin.ElasticConv")'
    (folder / "elastic.py").write_text(ELASTIC.format(root=root, conv=conv), encoding="utf-8")
    save_random(str(folder / "elastic.py"), CLASSES, folder / "elastic.pth")
    return folder


def _let_padding_matter(checkpoint: Path) -> None:
    """Give norms a bias: without any, the border of zeros that pads a picture stays zero in every layer."""
    content = torch.load(checkpoint, weights_only=True)
    for key, value in content["state_dict"].items():
        if "bn" in key and key.endswith(".bias"):
            value += 0.5
    torch.save(content, checkpoint)


def _widen(shapes: Path, name: str) -> None:
    """Make a picture wider than the others: with one of them in a batch, it is padded to a square."""
    path, file = shapes / "images" / name, shapes / "annotations/instances_val.json"
    picture, content = Image.open(path), json.loads(file.read_text(encoding="utf-8"))
    wide = Image.new("RGB", (192, 64), (90, 120, 150))
    wide.paste(picture)
    wide.save(path)
    (image,) = (image for image in content["images"] if image["file_name"] == name)
    image["width"] = 192
    content["annotations"] = [mark for mark in content["annotations"] if mark["image_id"] != image["id"]]
    file.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(scope="module")
def ended(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Mapping[str, list[int]]]]:
    """A folder with what each command left there, by name and number of processes, and the exit statuses."""
    detector, pictures = [DETECTOR, str(data / "detector.pth")], [str(data / "pictures"), "--image-size", "64"]
    segmenter = [str(data / "segmenter.py"), str(data / "segmenter.pth")]
    kept = ["--work-dir", "work", "--show-dir", "drawn", "--out"]
    commands = {
        "predict": ["predict", *detector, *pictures, "--out", "out", "--score", "0"],
        "detector": ["test", *detector, "--coco-dir", str(data / "shapes"), *kept, "p.json", "--image-size", "64",
                     "--cfg-options", *IN_PAIRS, "model.test_cfg.rcnn.score_thr=0"],
        "segmenter": ["test", *segmenter, "--voc-dir", str(data / "shapes"), *kept, "masks", "--size-report", "sizes",
                      "--image-size", "64", "--cfg-options", *ONE_BY_ONE],
        "policy": ["scale-policy", str(data / "elastic.py"), str(data / "elastic.pth"), "--images", *pictures,
                   "--fields", "1", "--out", "out"],
    }  # fmt: skip
    both = {f"{name}{count}": (count, command) for name, command in commands.items() for count in (1, 2)}
    (data / "blocked/drawn/val_000000.png").mkdir(parents=True)  # where the second process draws
    (data / "scontrol").write_text("#!/bin/sh\necho 127.0.0.1\n", encoding="utf-8")  # the names of the nodes
    (data / "scontrol").chmod(0o755)
    training = {
        "srun": (2, ["train", DETECTOR, "--coco-dir", str(data / "shapes"), "--iters", "1", "--batch-size", "1",
                     "--image-size", "64", "--work-dir", "work", "--launcher", "slurm"]),
    }  # fmt: skip
    refused = {
        "missing": (2, ["predict", *detector, "no.png", "--out", "out"]),
        "blocked": (2, ["predict", *detector, *pictures, "--out", str(data / "blocked")]),
    }
    folder = tmp_path_factory.mktemp("ended") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{data}{os.pathsep}{os.environ['PATH']}")
        statuses = run_all(folder, both | training | refused)
    yield folder, statuses
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["predict", "detector", "segmenter", "policy"])
def test_the_files_of_two_processes_are_those_of_one(ended, name):
    folder, statuses = ended
    errors = "".join((folder / f"{name}2/{rank}.err").read_text(encoding="utf-8") for rank in "01")
    assert (statuses[f"{name}1"], statuses[f"{name}2"]) == ([0], [0, 0]), errors[-3000:]
    one, two = files_of(folder / f"{name}1"), files_of(folder / f"{name}2")
    assert two.pop("1.out") == b""
    for files in (one, two):
        for key in [key for key in files if key.endswith(".err") or key.startswith(("work/", "statuses"))]:
            del files[key]
        files["0.out"] = b"\n".join(line for line in files["0.out"].splitlines() if not line.startswith(b"log: "))
    assert sum(key.endswith(".png") for key in one) >= 3
    assert list(one) == list(two)
    assert [key for key in one if one[key] != two[key]] == []


def test_two_processes_of_srun_train_together(ended):
    folder, statuses = ended
    assert statuses["srun"] == [0, 0], (folder / "srun/0.err").read_text(encoding="utf-8")[-3000:]
    assert (folder / "srun/work/iter_1.pth").is_file()
    (log,) = folder.glob("srun/work/*/*.log")
    text = log.read_text(encoding="utf-8")
    assert "Distributed launcher: slurm" in text
    assert "GPU number: 2" in text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "mmms predict: error: no.png: no such picture or folder"),
        (
            "blocked",
            "mmms predict: error: output {data}/blocked/drawn/val_000000.png: cannot be written (Is a directory)",
        ),
    ],
)
def test_a_fault_ends_all_processes_with_one_line(ended, data, name, message):
    folder, statuses = ended
    lines = [line for rank in "01" for line in (folder / name / f"{rank}.err").read_text().splitlines()]
    (line,) = (line for line in lines if "error" in line or "interrupted" in line)
    assert line.startswith(message.format(data=data))
    assert 2 in statuses[name]
    assert 0 not in statuses[name]
    assert not list(folder.rglob("*.jsonl"))
    assert [path.name for path in (data / "blocked").iterdir()] == ["drawn"]
