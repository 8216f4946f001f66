"""Folders of classes as ``--image-dir`` reads them: what is listed, held back, and refused."""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path

import pytest

from mmms_plugin.data.image_folder import read_folders
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.errors import UserError
from tests.data.small_sets import picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures of each class in each split, those of ``dog`` a folder deeper."""
    for i, split in enumerate(("train", "val", "test")):
        for k, place in enumerate(("cat", "dog/deep")):
            (tmp_path / "set" / split / place).mkdir(parents=True)
            for number in range(2):
                kind = ".PNG" if number else ".jpg"
                picture(4 * i + 2 * k + number).save(tmp_path / "set" / split / place / f"{number}{kind}")
        (tmp_path / "set" / split / ".cache").mkdir()
        (tmp_path / "set" / split / "notes.txt").touch()
        (tmp_path / "set" / split / "cat/notes.txt").touch()
    return tmp_path / "set"


def own(folder: Path, **options: object) -> OwnData:
    return OwnData("--image-dir", folder, folder.parent / "work", **options)


LINES = "cat/0.jpg 0\ncat/1.PNG 0\ndog/deep/0.jpg 1\ndog/deep/1.PNG 1\n"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["train", "val"]),
        ({"split": "test"}, ["test", "train", "val"]),
        ({"training": False}, ["train", "val"]),
        ({"training": False, "split": "test"}, ["test", "train"]),
        ({"training": False, "split": "train"}, ["train"]),
    ],
)
def test_the_splits_that_are_used_are_listed(options, expected, folder):
    splits = read_folders(own(folder, **options))
    assert list(splits) == expected
    for name, split in splits.items():
        assert (split.root, split.classes, split.lines()) == (folder / name, ("cat", "dog"), LINES)


def test_a_test_needs_no_training_pictures(folder):
    """Without their folder the classes are those of the test; where it is there, it is not looked into."""
    (folder / "train/cat/0.jpg").write_bytes(b"no picture")
    assert not any(list(split.findings) for split in read_folders(own(folder, training=False)).values())
    assert list(read_folders(own(folder))["train"].findings)
    assert list(read_folders(own(folder, training=False, split="train"))["train"].findings)
    shutil.rmtree(folder / "train")
    assert list(read_folders(own(folder, training=False))) == ["val"]
    shutil.rmtree(folder / "val")
    for options in ({}, {"training": False, "split": "train"}, {"training": False, "val_split": 0.5}):
        with pytest.raises(
            UserError, match=r"no class folders for train; expected are train/<class>/ and val/<class>/ with"
        ):
            read_folders(own(folder, **options))


def test_a_share_is_held_back(folder):
    shutil.rmtree(folder / "val")
    splits = read_folders(own(folder, val_split=0.25))
    assert list(splits) == ["train", "val"]
    assert [len(split.pictures) for split in splits.values()] == [3, 1]
    assert sorted(splits["train"].pictures + splits["val"].pictures) == [
        ("cat/0.jpg", 0), ("cat/1.PNG", 0), ("dog/deep/0.jpg", 1), ("dog/deep/1.PNG", 1),
    ]  # fmt: skip
    assert all(split.root == folder / "train" and split.classes == ("cat", "dog") for split in splits.values())
    others = [read_folders(own(folder, val_split=0.25, split_seed=seed))["val"].pictures for seed in range(12)]
    assert others[0] == splits["val"].pictures
    assert any(pictures != others[0] for pictures in others)
    (tested,) = {tuple(read_folders(own(folder, val_split=0.25, training=False))["val"].pictures)}
    assert list(tested) == others[0]


def test_each_message_says_what_and_where(folder):
    for name in ("owl", "wolf"):
        shutil.copytree(folder / "val/cat", folder / "val" / name)
    with pytest.raises(UserError, match=r"classes of train and val differ: 2 not in train \(first: 'owl'\)$"):
        read_folders(own(folder))
    for name in ("owl", "wolf", "cat"):
        shutil.rmtree(folder / "val" / name)
    with pytest.raises(UserError, match=r"classes of train and val differ: 1 not in val \(first: 'cat'\)$"):
        read_folders(own(folder))
    shutil.copytree(folder / "train/cat", folder / "val/cat")
    (folder / "val/cat/0.jpg").rename(folder / "val/cat/new\nline.jpg")
    with pytest.raises(UserError, match=r"'cat/new\\nline.jpg': a file name must not hold a line break$"):
        read_folders(own(folder))
    (folder / "val/cat/new\nline.jpg").unlink()
    (folder / "val/cat/1.PNG").unlink()
    with pytest.raises(UserError, match=r"^--image-dir .*set: no pictures in val/cat$"):
        read_folders(own(folder))
    for name in ("cat", "dog"):
        shutil.rmtree(folder / "val" / name)
    with pytest.raises(UserError, match=r"no class folders for val; expected are train/<class>/ and val/<class>/"):
        read_folders(own(folder))


def test_pictures_that_cannot_be_read_are_findings(folder):
    """Of the splits that are used; ``mmms check-data`` lists all of them."""
    for name in ("train/cat/0.jpg", "val/dog/deep/1.PNG"):
        (folder / name).write_bytes(b"")
    splits = read_folders(own(folder))
    found = [(name, finding) for name, split in splits.items() for finding in split.findings]
    assert {(name, finding.code, *finding.examples) for name, finding in found} == {
        ("train", "picture-empty", "cat/0.jpg"), ("val", "picture-empty", "dog/deep/1.PNG"),
    }  # fmt: skip
    splits = read_folders(own(folder, training=False))
    assert [len(list(split.findings)) for split in splits.values()] == [0, 1]


def test_a_picture_of_more_pixels_than_allowed(folder):
    picture(9, (41, 30)).save(folder / "train/cat/0.jpg")
    for allowed, problems in ((1200, ["cat/0.jpg: 41 x 30 px; --max-pixels allows 1,200 in all"]), (1230, [])):
        findings = read_folders(own(folder, max_pixels=allowed))["train"].findings
        assert [text for finding in findings for text in finding.examples] == problems


@pytest.mark.parametrize(
    ("renamed", "expected"),
    [
        ({"val": "valid"}, ("train", "valid")),
        ({"val": "Validation", "train": "Train"}, ("Train", "Validation")),
        ({"val": "val_images", "train": "train2017"}, ("train2017", "val_images")),
        ({"test": "dev"}, ("train", "val")),
    ],
)
def test_the_usual_names_of_splits_are_known(renamed, expected, folder):
    for name, other in renamed.items():
        (folder / name).rename(folder / other)
    splits = read_folders(own(folder))
    assert (splits["train"].root.name, splits["val"].root.name) == expected
    with pytest.raises(UserError, match=f"^--val-split: --image-dir .* validation already \\({expected[1]}\\)$"):
        read_folders(own(folder, val_split=0.5))


def test_a_class_of_which_all_pictures_are_held_back_is_reported(folder):
    shutil.rmtree(folder / "val")
    shutil.rmtree(folder / "train/dog")
    (folder / "train/dog").mkdir()
    picture(9).save(folder / "train/dog/0.png")
    for seed in range(3):
        splits = read_folders(own(folder, val_split=0.4, split_seed=seed))
        for split in splits.values():
            named = {split.classes[label] for _, label in split.pictures}
            empty = [name for finding in split.findings for name in finding.examples if finding.code == "class-empty"]
            assert split.findings.file == f"{folder / 'train'}{' (held back)' * (split is splits['val'])}"
            assert empty == sorted({"cat", "dog"} - named)
        assert any(list(split.findings) for split in splits.values())


def test_two_folders_for_one_split_are_refused(folder):
    (folder / "val").rename(folder / "valid")
    (folder / "test").rename(folder / "Validation")
    with pytest.raises(UserError, match=r"set: Validation and valid: 2 folders may be for val; rename all but one$"):
        read_folders(own(folder))


def test_classes_that_are_not_split(folder):
    """A class may be called like a split, or contain its name: its folder holds pictures, not folders of classes."""
    flat = folder / "train"
    shutil.copytree(flat / "cat", flat / "train")
    (flat / "cat").rename(flat / "test_tube")
    with pytest.raises(
        UserError, match=r"no class folders for val; the folders are taken for classes: .* --val-split 0.2$"
    ):
        read_folders(own(flat))
    splits = read_folders(own(flat, val_split=0.5))
    assert [len(split.pictures) for split in splits.values()] == [3, 3]
    assert all(split.root == flat and split.classes == ("dog", "test_tube", "train") for split in splits.values())
    shutil.rmtree(flat / "dog")
    shutil.rmtree(flat / "train")
    for share in (0.0, 0.5):
        with pytest.raises(
            UserError, match=r"only one class, 'test_tube'; at least 2 are needed: train/<class>/ and val/.* 0.2$"
        ):
            read_folders(own(flat, val_split=share))


def test_a_folder_around_the_data_set_is_named(folder):
    folder.rename(folder.parent / "inner")
    (folder.parent / "inner/train").rename(folder.parent / "inner/cats")
    folder.mkdir()
    (folder.parent / "inner").rename(folder / "inner")
    with pytest.raises(UserError, match=r"only one class, 'inner'; .*; are the classes the folders in .*inner\?$"):
        read_folders(own(folder))


def test_splits_without_folders_of_classes_are_not_classes(folder):
    for split, inner in (("train", "cat"), ("val", "dog/deep")):
        for path in (folder / split / inner).iterdir():
            path.rename(folder / split / path.name)
        for name in ("cat", "dog", ".cache"):
            shutil.rmtree(folder / split / name)
    shutil.rmtree(folder / "test")
    with pytest.raises(UserError, match=r"no class folders for train; expected are train/<class>/"):
        read_folders(own(folder))


def test_names_of_classes_may_be_spelled_in_two_ways(folder):
    for split, form in (("train", "NFC"), ("val", "NFD")):
        (folder / split / "dog").rename(folder / split / unicodedata.normalize(form, "Bär"))
    splits = read_folders(own(folder))
    assert splits["train"].classes == splits["val"].classes == ("Bär", "cat")
    assert all(path.is_file() for split in splits.values() for path in split.paths)
    assert [label for _, label in splits["val"].pictures] == [0, 0, 1, 1]


def test_files_of_the_system_are_not_pictures(folder):
    for name in ("cat/._0.jpg", "cat/.hidden.png", "cat/Thumbs.db", "__MACOSX/cat/0.jpg", "@eaDir/0.jpg", ".x/0.jpg"):
        (folder / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "train" / name).touch()
    assert read_folders(own(folder))["train"].lines() == LINES
