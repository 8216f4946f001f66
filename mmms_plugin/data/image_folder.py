"""An ImageFolder, ``train/<class>/`` and ``val/<class>/``, that ``--image-dir`` reads: listed and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmms_plugin.coco.formats import pictures_in
from mmms_plugin.data.own_data import OwnData, held_back
from mmms_plugin.data.pictures import look_at_all
from mmms_plugin.errors import UserError
from mmms_plugin.files import write_text

LAYOUT = "train/<class>/ and val/<class>/ with pictures"
NAMED = 3  # unreadable pictures that a message names


@dataclass(frozen=True)
class ImageFolder:
    """One split.

    Attributes:
        root: its folder.
        classes: sorted names of the sub-folders.
        pictures: paths below ``root``, with ``/``, and the numbers of their classes, sorted.
    """

    root: Path
    classes: tuple[str, ...]
    pictures: list[tuple[str, int]]

    def lines(self) -> str:
        """One line per picture, path and class number, as mmpretrain's ``CustomDataset`` reads it."""
        return "".join(f"{path} {label}\n" for path, label in self.pictures)


def read_folders(own: OwnData) -> dict[str, ImageFolder]:
    """The splits that training, or a test, uses; their classes are those of ``train``.

    Raises:
        UserError: folders or classes are missing, classes differ, or pictures cannot be read.
    """
    root = (own.folder or Path()).resolve()
    names = {"train"} | {own.split} | ({"val"} if own.training else set())
    if own.val_split:
        names -= {"val"}
    if not own.training and own.split != "train" and not (root / "train").is_dir():
        names -= {"train"}  # a test needs it only for the names of the classes
    splits = {name: _read(own, root / name) for name in sorted(names)}
    _check_classes(own, splits)
    if own.val_split:
        splits["train"], splits["val"] = _hold_back(splits["train"], own)
    _check_pictures(own, splits if own.training else {own.split: splits[own.split]})
    return splits


def _read(own: OwnData, folder: Path) -> ImageFolder:
    if not folder.is_dir():
        raise UserError(f"{own.where}: no folder {folder.name}; expected are {LAYOUT}")
    classes = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."))
    if not classes:
        raise UserError(f"{own.where}: no class folders in {folder.name}; expected are {LAYOUT}")
    pictures: list[tuple[str, int]] = []
    for label, name in enumerate(classes):
        paths = pictures_in(folder / name)
        if not paths:
            raise UserError(f"{own.where}: no pictures in {folder.name}/{name}")
        pictures += sorted((path.relative_to(folder).as_posix(), label) for path in paths)
    if bad := next((path for path, _ in pictures if "\n" in path), None):
        raise UserError(f"{own.where}: {bad!r}: a file name must not hold a line break")
    return ImageFolder(folder, classes, pictures)


def _check_classes(own: OwnData, splits: dict[str, ImageFolder]) -> None:
    if "train" not in splits:
        return
    known = splits["train"].classes
    for name, split in splits.items():
        foreign = sorted(set(split.classes) - set(known))
        missing = sorted(set(known) - set(split.classes))
        if foreign or missing:
            which, side = (foreign, "not in train") if foreign else (missing, f"not in {name}")
            raise UserError(
                f"{own.where}: classes of train and {name} differ: {len(which)} {side} (first: {which[0]!r})"
            )


def _hold_back(split: ImageFolder, own: OwnData) -> tuple[ImageFolder, ImageFolder]:
    chosen = held_back([path for path, _ in split.pictures], own.val_split, own.split_seed)
    train, val = (
        [picture for picture, held in zip(split.pictures, chosen, strict=True) if held is side]
        for side in (False, True)
    )
    return ImageFolder(split.root, split.classes, train), ImageFolder(split.root, split.classes, val)


def _check_pictures(own: OwnData, splits: dict[str, ImageFolder]) -> None:
    """Raise a UserError that names the pictures that cannot be read; if they are many, a list of them is written."""
    count, bad = 0, []
    for split in splits.values():
        paths = [path for path, _ in split.pictures]
        looked = look_at_all([split.root / path for path in paths], f"looking at {split.root.name}")
        count += len(paths)
        bad += [
            f"{split.root.name}/{path} ({picture.problem.removeprefix('picture-')})"
            for path, picture in zip(paths, looked, strict=True)
            if picture.problem
        ]
    if not bad:
        return
    more = ""
    if len(bad) > NAMED:
        listing = write_text(own.work_dir / "unreadable.txt", "\n".join(bad) + "\n")
        more = f" and {len(bad) - NAMED} more, listed in {listing}"
    raise UserError(f"{own.where}: {len(bad)} of {count} pictures cannot be read: {', '.join(bad[:NAMED])}{more}")
