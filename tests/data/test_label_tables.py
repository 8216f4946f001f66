"""Tables of labels as Roboflow writes them: read for training, checked, and refused where they do not fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mmms_plugin.commands import main
from mmms_plugin.data.label_table import read_tables
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.errors import UserError
from tests.data.small_sets import picture

TRAIN = "filename, cat, dog\na.jpg, 1, 0\nb.jpg, 1, 1\nc.jpg, 0, 0\n"
VALID = 'filename,dog,cat\n"d,d.jpg",1,0\n\ne.jpg,0,1\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, (split, text, names) in enumerate((("train", TRAIN, "abc"), ("valid", VALID, ("d,d", "e")))):
        (tmp_path / split).mkdir()
        (tmp_path / split / "_classes.csv").write_text(text, encoding="utf-8")
        for k, name in enumerate(names):
            picture(10 * i + k).save(tmp_path / split / f"{name}.jpg")
    return tmp_path


def own(folder: Path, **options: object) -> OwnData:
    return OwnData("--image-dir", folder, folder / "work", **options)


def test_labels_are_numbered_as_in_training(folder):
    splits = read_tables(own(folder))
    assert {name: (split.classes, split.pictures) for name, split in splits.items()} == {
        "train": (("cat", "dog"), [("a.jpg", [0]), ("b.jpg", [0, 1]), ("c.jpg", [])]),
        "val": (("cat", "dog"), [("d,d.jpg", [1]), ("e.jpg", [0])]),
    }
    assert [list(split.findings) for split in splits.values()] == [[], []]
    assert splits["val"].labels()["data_list"][0] == dict(img_path="d,d.jpg", gt_label=[1])


def test_a_share_is_held_back_of_one_table(folder):
    with pytest.raises(UserError, match=r"^--val-split: .* has pictures for validation already"):
        read_tables(own(folder, val_split=0.4))
    with pytest.raises(UserError, match=r"no _classes.csv for val; .* --val-split 0.2; found: "):
        read_tables(own(folder / "train"))
    splits = read_tables(own(folder / "train", val_split=0.4))
    assert [len(split.pictures) for split in splits.values()] == [2, 1]
    assert splits["val"].findings.file.endswith("_classes.csv (held back)")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("filename, cat, cat\n", "the names of the classes, each once"),
        ("filename, cat\n", "no pictures"),
        ("filename, cat, dog\na.jpg, 1\n", r"_classes.csv, line 2: must be a file name and 2 times 0 or 1"),
        ("filename, cat, dog\na.jpg, 1, yes\n", "line 2: must be"),
        ("filename, cat, dog\na.jpg, 1, 0\na.jpg, 1, 0", "line 3: file name 'a.jpg': must be stated, and in one line"),
        ("filename, cat, cow\na.jpg, 1, 0", r"the classes of valid are not those of training \(first: 'cow'\)"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(text, words, folder, capsys):
    (folder / "valid/_classes.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=words):
        read_tables(own(folder))
    assert main(["check-data", str(folder)]) == 2
    shutil.copytree(folder / "valid", folder / "test")
    (folder / "valid/_classes.csv").write_text(VALID, encoding="utf-8")
    assert main(["check-data", str(folder)]) == 0, "training does not need the test split"
    assert "test splits that mmms test --split test cannot use: 1" in capsys.readouterr().out


def test_check_data_and_training_find_the_same(folder, capsys):
    (folder / "train/a.jpg").write_bytes(b"x")
    (folder / "train/_classes.csv").write_text(TRAIN.replace("0, 0", "1, 0"), encoding="utf-8")
    assert main(["check-data", str(folder)]) == 2
    printed = capsys.readouterr().out
    assert "\ntrain: 3 images, classes: 2\nval: 2 images, classes: 2\n" in printed
    findings = list(read_tables(own(folder))["train"].findings)
    assert [finding.code for finding in findings] == ["picture-unreadable", "class-everywhere"]
    assert all(finding.title in printed for finding in findings)
