"""Folders of classes as ``--image-dir`` reads them: what is listed, held back, and refused."""

from __future__ import annotations

import shutil
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
    assert list(read_folders(own(folder, training=False))) == ["train", "val"]
    with pytest.raises(UserError, match=r"1 of 8 pictures cannot be read: train/cat/0.jpg \(unreadable\)$"):
        read_folders(own(folder))
    with pytest.raises(UserError, match=r"1 of 4 pictures cannot be read"):
        read_folders(own(folder, training=False, split="train"))
    shutil.rmtree(folder / "train")
    assert list(read_folders(own(folder, training=False))) == ["val"]
    for options in ({}, {"training": False, "split": "train"}):
        with pytest.raises(UserError, match=r"no folder train; expected are train/<class>/ and val/<class>/ with"):
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
    with pytest.raises(UserError, match=r"no class folders in val; expected are train/<class>/ and val/<class>/"):
        read_folders(own(folder))


@pytest.mark.parametrize(("count", "listed"), [(3, False), (4, True)])
def test_more_than_three_unreadable_pictures_are_listed_in_a_file(count, listed, folder):
    paths = sorted(path for path in folder.glob("[tv][ra]*/**/*") if path.suffix in (".jpg", ".PNG"))[-count:]
    for path in paths:
        path.write_bytes(b"")
    names = [f"{path.relative_to(folder).as_posix()} (empty)" for path in paths]
    with pytest.raises(UserError) as caught:
        read_folders(own(folder))
    listing = folder.parent / "work/unreadable.txt"
    start = f"--image-dir {folder}: {count} of 8 pictures cannot be read: {', '.join(names[:3])}"
    assert str(caught.value) == start + (f" and 1 more, listed in {listing}" if listed else "")
    assert listing.is_file() == listed
    if listed:
        assert listing.read_text(encoding="utf-8") == "\n".join(names) + "\n"
