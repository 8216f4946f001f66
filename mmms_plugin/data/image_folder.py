"""An ImageFolder, ``train/<class>/`` and ``val/<class>/``, that ``--image-dir`` reads: listed and checked.

The splits' folders may have other usual names (``valid``, ``Validation``); without them, the classes' folders are all
for training, and ``--val-split`` holds back a share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmms_plugin.coco.findings import Findings
from mmms_plugin.coco.formats import pictures_in
from mmms_plugin.coco.picture_files import MAX_PIXELS
from mmms_plugin.data.coco_layouts import INNER, entries_of
from mmms_plugin.data.own_data import OwnData, held_back
from mmms_plugin.data.pictures import Picture, look_at_all, note_picture
from mmms_plugin.data.seg_layouts import IMAGES, MASKS
from mmms_plugin.data.splits import WORDS, listed, words_in
from mmms_plugin.errors import UserError
from mmms_plugin.files import composed

BESIDE = {"set", "data", "images", "split"}  # words beside that of the split: train_images, test_set
LAYOUT = "train/<class>/ and val/<class>/ with pictures, or <class>/ with --val-split 0.2"


@dataclass
class ImageFolder:
    """One split.

    Attributes:
        root: its folder.
        classes: sorted names of the sub-folders.
        pictures: paths below ``root``, with ``/``, and the numbers of their classes, sorted.
        held_back: these pictures are a share of a folder for training.
        looked: what the header of each picture says, once they were looked at.
        findings: problems of the pictures.
    """

    root: Path
    classes: tuple[str, ...]
    pictures: list[tuple[str, int]]
    held_back: bool = False
    looked: list[Picture] = field(default_factory=list)
    findings: Findings = field(default_factory=lambda: Findings(""))

    @property
    def paths(self) -> list[Path]:
        """The files of the pictures."""
        return [self.root / path for path, _ in self.pictures]

    def lines(self) -> str:
        """One line per picture, path and class number, as mmpretrain's ``CustomDataset`` reads it."""
        return "".join(f"{path} {label}\n" for path, label in self.pictures)

    def look(self, decode: bool = False, max_pixels: int = MAX_PIXELS) -> None:
        """Look at all pictures, and note what is wrong with them."""
        self.findings = Findings(f"{self.root}{' (held back)' * self.held_back}")
        self.looked = look_at_all(self.paths, f"looking at {self.root.name}", decode, max_pixels)
        for (path, _), picture in zip(self.pictures, self.looked, strict=True):
            note_picture(self.findings, path, picture)
        shown = {label for _, label in self.pictures}
        for label, name in enumerate(self.classes):
            if label not in shown:  # all its pictures are held back, or none is
                self.findings.add("class-empty", name)


def split_folders(own: OwnData) -> dict[str, Path]:
    """The folder of each split that a folder holds; the folder itself as "train" if the classes are not split.

    Raises:
        UserError: several folders may be one split, or --val-split is given beside one for validation.
    """
    root = (own.folder or Path()).resolve()
    folders = {}
    for split in WORDS:
        named = [path for path in _folders(root) if _names(path.name, split) and _folders(path)]
        exact = [path for path in named if path.name == split]
        if len(exact or named) > 1:
            shown = " and ".join(path.name for path in named)
            raise UserError(f"{own.where}: {shown}: {len(named)} folders may be for {split}; rename all but one")
        if named:
            folders[split] = (exact or named)[0]
    if own.val_split and "val" in folders:
        raise UserError(f"--val-split: {own.where} has pictures for validation already ({folders['val'].name})")
    classes = [path for path in _folders(root) if pictures_in(path)]
    if folders or all(any(_names(path.name, split) for split in WORDS) for path in classes):
        return folders  # train/ and valid/ with pictures have no folders of classes
    return {"train": root}


def has_classes(folders: Mapping[str, Path]) -> bool:
    """Whether folders of splits hold pictures in folders of classes, not pictures beside masks or lists of boxes."""
    inside = [path for folder in folders.values() for path in _folders(folder)]
    return any(map(pictures_in, inside)) and not {path.name.lower() for path in inside} & {*IMAGES, *MASKS, *INNER}


def read_folders(own: OwnData) -> dict[str, ImageFolder]:
    """The splits that training, or a test, uses, their pictures looked at; their classes are those of ``train``.

    Raises:
        UserError: folders or classes are missing or differ.
    """
    folders = split_folders(own)
    names = {"train"} | {own.split} | ({"val"} if own.training else set())
    if own.val_split:
        names -= {"val"}
    if not (own.training or own.val_split or own.split == "train" or "train" in folders):
        names -= {"train"}  # a test needs it only for the names of the classes
    for name in sorted(names - set(folders)):
        flat = folders.get("train") == (own.folder or Path()).resolve()
        if flat:
            check_classes(own, {"train": read_folder(own, folders["train"])})
        remedy = "the folders are taken for classes: hold back a share of their pictures with --val-split 0.2"
        expected = f"expected are {LAYOUT}; {entries_of(own.folder or Path())}"
        raise UserError(f"{own.where}: no class folders for {name}; {remedy if flat else expected}")
    splits = {name: read_folder(own, folders[name]) for name in sorted(names)}
    check_classes(own, splits)
    if own.val_split:
        splits["train"], splits["val"] = _hold_back(splits["train"], own)
    for name in splits if own.training else [own.split]:
        splits[name].look(max_pixels=own.max_pixels)
    return splits


def read_folder(own: OwnData, folder: Path) -> ImageFolder:
    """The classes and pictures of one split.

    Raises:
        UserError: a class has no pictures.
    """
    folders = {composed(path.name): path for path in _folders(folder)}
    classes = tuple(sorted(folders))
    pictures: list[tuple[str, int]] = []
    for label, name in enumerate(classes):
        paths = pictures_in(folders[name])
        if not paths:
            raise UserError(f"{own.where}: no pictures in {folder.name}/{name}")
        pictures += sorted((path.relative_to(folder).as_posix(), label) for path in paths)
    if bad := next((path for path, _ in pictures if "\n" in path), None):
        raise UserError(f"{own.where}: {bad!r}: a file name must not hold a line break")
    return ImageFolder(folder, classes, pictures)


def check_classes(own: OwnData, splits: dict[str, ImageFolder]) -> None:
    """Raise UserError if the classes of a split are not those of ``train``, or if that has only one."""
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
    if len(known) < 2:
        inner = splits["train"].root / known[0]
        meant = f"; are the classes the folders in {inner}?" if inner.is_dir() and _folders(inner) else ""
        raise UserError(f"{own.where}: only one class, {known[0]!r}; at least 2 are needed: {LAYOUT}{meant}")


def _names(name: str, split: str) -> bool:
    """Whether a folder's name is that of a split, and not of a class such as train_station."""
    parts = set(words_in(name)) - {""} - BESIDE
    return bool(parts) and parts <= WORDS[split]


def _folders(folder: Path) -> list[Path]:
    return [path for path in listed(folder) if path.is_dir()]


def _hold_back(split: ImageFolder, own: OwnData) -> tuple[ImageFolder, ImageFolder]:
    chosen = held_back([path for path, _ in split.pictures], own.val_split, own.split_seed)
    train, val = (
        [picture for picture, held in zip(split.pictures, chosen, strict=True) if held is side]
        for side in (False, True)
    )
    return ImageFolder(split.root, split.classes, train), ImageFolder(split.root, split.classes, val, held_back=True)
