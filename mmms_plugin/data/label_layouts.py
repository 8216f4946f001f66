"""Where the label files of YOLO, Pascal VOC and labelme are in a folder, by split.

A YAML file with ``names`` that names the pictures of the splits is YOLO's and decides alone. Else folders are searched
for label files: ``labels/train/`` or ``train/labels/`` with ``.txt`` files, ``Annotations/`` or ``train/`` with
``.xml`` files, folders with labelme's ``.json`` files. Pictures lie in the same folder, or in the one that ``images``
or ``JPEGImages`` in place of the labels' name gives. Lists in ``ImageSets/Main`` say for which split Pascal VOC's files
are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mmms_plugin.coco.formats import FEW, SUFFIXES, Source, is_labelme, pictures_in
from mmms_plugin.coco.yolo import OTHER_TEXTS, listed_splits
from mmms_plugin.data.own_data import YAML, OwnData
from mmms_plugin.data.splits import WORDS, is_below, listed, split_of
from mmms_plugin.errors import UserError, counted
from mmms_plugin.files import is_hidden

NAMES = {"yolo": "YOLO", "voc": "Pascal VOC", "labelme": "labelme"}  # of the formats
LABELS = ("labels", "label", "annotations", "annotation", "annots", "xml", "xmls", "json", "jsons", "txt")
PICTURES = ("images", "jpegimages", "imgs", "img", "image", "pictures", "photos")
LISTS = "ImageSets/Main"
CLASSES = ("classes.txt", "obj.names")  # names in the order of their numbers; obj.names is Darknet's
DEEPEST = 3  # folders below the data set's
HEAD = 1 << 12  # bytes of an XML file
VOC_XML = re.compile(rb"<annotation[\s>]")
EXPECTED = (
    "data.yaml, or images/{train,val} and labels/{train,val} (YOLO); JPEGImages/, Annotations/ and "
    "ImageSets/Main/{train,val}.txt, or train/ and val/ with .xml files (Pascal VOC); train/ and val/ with .json files "
    "(labelme)"
)


@dataclass(frozen=True)
class Labelled:
    """The label files of a split.

    Attributes:
        path: their folder, a list of Pascal VOC's, or YOLO's YAML file.
        source: their format, their pictures and the names of their classes.
    """

    path: Path
    source: Source

    @property
    def format(self) -> str:
        """The format's name."""
        return NAMES[self.source.truth]

    @property
    def lists_no_classes(self) -> bool:
        """Whether the classes are only those that objects have."""
        return self.source.truth in ("voc", "labelme") and self.source.classes is None

    def __str__(self) -> str:
        return f"{self.path} ({self.source.split})" if self.source.split else str(self.path)


def find_labels(own: OwnData) -> dict[str, Labelled]:
    """The label files of each split, empty if there are none; labels without a split are for training.

    Raises:
        UserError: labels of several formats, several places for one split, or none of them fits.
    """
    if own.folder is None:
        return {}
    if yaml := own.yaml or _yaml_file(own, own.folder):
        source = Source("yolo", tolerant=True)
        splits = listed_splits(yaml, own.flag)
        if own.img_dir:
            raise UserError(f"--img-dir {own.img_dir}: {yaml} says where the pictures are; leave one of them out")
        if not splits:
            raise UserError(f"{own.flag} {yaml}: it names no pictures; expected are train, val or test")
        return {split: Labelled(yaml, replace(source, split=split)) for split in splits}
    by_format = _label_folders(own, own.folder)
    if len(by_format) > 1:
        places = " and ".join(
            f"{NAMES[kind]}'s labels ({_below(folders[0], own.folder)})" for kind, folders in by_format.items()
        )
        raise UserError(f"{own.where}: {places}: which are the annotations? Give a folder with one kind alone")
    for kind, folders in by_format.items():
        return _by_split(own, own.folder, kind, folders)
    return {}


def _yaml_file(own: OwnData, folder: Path) -> Path | None:
    """YOLO's file in a folder: the only YAML file with names of classes and pictures, or the one called data.yaml.

    Raises:
        UserError: there are several.
    """
    files = [path for path in listed(folder) if path.suffix.lower() in YAML and path.is_file()]
    files = [path for path in files if _describes(path)]
    usual = [path for path in files if path.stem.lower() == "data"]
    if len(files) > 1 and len(usual) != 1:
        names = ", ".join(path.name for path in files[:4])
        raise UserError(f"{own.where}: {len(files)} YAML files describe a data set ({names}): give one of them instead")
    return next(iter(usual or files), None)


def _describes(path: Path) -> bool:
    try:
        text = path.read_bytes()
    except OSError:
        return False
    return all(
        re.search(rb"^\s*[\"']?(?:" + key + rb")[\"']?\s*:", text, re.MULTILINE) for key in (b"names", b"train|val")
    )


def _label_folders(own: OwnData, root: Path) -> dict[str, list[Path]]:
    """Folders that hold label files, by format; in YOLO's and labelme's, each has a picture of the file's name."""
    by_format: dict[str, list[Path]] = {}
    for folder, names in _places(own, root):
        labels = {
            kind: [name for name in names if name.lower().endswith(suffix) and name not in OTHER_TEXTS]
            for kind, suffix in (("yolo", ".txt"), ("voc", ".xml"), ("labelme", ".json"))
        }
        for kind, files in labels.items():
            if files and _fits(own, kind, folder, files, root):
                by_format.setdefault(kind, []).append(folder)
    return by_format


def _places(own: OwnData, root: Path) -> Iterator[tuple[Path, list[str]]]:
    """The folder and those below it, and the files in each; a work folder is left out."""
    inner = is_below(own.work_dir, root) and os.path.abspath(own.work_dir) != os.path.abspath(root)
    for place, folders, names in os.walk(root):
        here = Path(place)
        deep = len(here.relative_to(root).parts) >= DEEPEST
        folders[:] = sorted(name for name in folders if not is_hidden(name)) if not deep else []
        if inner:
            folders[:] = [name for name in folders if not is_below(here / name, own.work_dir)]
        yield here, sorted(name for name in names if not is_hidden(name))


def _fits(own: OwnData, kind: str, folder: Path, files: list[str], root: Path) -> bool:
    """Whether files are labels of a format, by the first of them; those of YOLO's have names of pictures."""
    if kind == "voc":
        return any(VOC_XML.search(_head(folder / name)) for name in files[:FEW])
    if kind == "labelme":
        return any(is_labelme(folder / name) for name in files[:FEW])
    pictures = own.img_dir or _pictures_of(folder, root)
    if pictures != folder and not {part.lower() for part in folder.relative_to(root).parts} & set(LABELS):
        return False
    stems = {path.stem for path in pictures_in(pictures)}
    return any(os.path.splitext(name)[0] in stems for name in files)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD).replace(b"\0", b"")  # of UTF-16
    except OSError:
        return b""


def _by_split(own: OwnData, root: Path, kind: str, folders: list[Path]) -> dict[str, Labelled]:
    """The label files of each split.

    Raises:
        UserError: several folders may be for one split.
    """
    classes = _classes(Path(os.path.commonpath(folders)), root)
    source = Source(kind, classes=classes, split="", naming=own.flag, tolerant=True)
    if kind == "voc" and len(folders) == 1 and (lists := _lists(folders[0].parent)):
        pictures = own.img_dir or _pictures_of(folders[0], root)
        return {split: Labelled(path, replace(source, pictures=pictures)) for split, path in lists.items()}
    by_split: dict[str, list[Path]] = {}
    for folder in folders:
        by_split.setdefault(split_of(folder.relative_to(root) / "_") or "train", []).append(folder)
    labelled = {}
    for split, places in by_split.items():
        top = Path(os.path.commonpath(places))
        others = [folder for folder in folders if folder not in places]
        if len(places) > 1 and (top == root or any(is_below(folder, top) for folder in others)):
            names = ", ".join(_below(place, root) for place in places[:4])
            raise UserError(
                f"{own.where}: {counted(len(places), 'folder')} may hold the labels for {split} ({names}): give the "
                f"folder of one data set, or call folders after their split: {', '.join(WORDS)}"
            )
        classes = source.classes or _classes(top, root)
        pictures = own.img_dir or _pictures_of(top, root)
        labelled[split] = Labelled(top, replace(source, classes=classes, pictures=pictures))
    listed = labelled["train"].source.classes if "train" in labelled else None
    return {
        split: replace(found, source=replace(found.source, classes=found.source.classes or listed))
        for split, found in labelled.items()
    }


def _classes(labels: Path, root: Path) -> Path | None:
    """The file with the names of the classes that is nearest to labels, from their folder up to the data set's."""
    above = [labels, *labels.parents]
    folders = above[: above.index(root) + 1] if root in above else [root]
    files = (folder / name for folder in folders for name in CLASSES)
    return next((file for file in files if file.is_file()), None)


def _lists(folder: Path) -> dict[str, Path]:
    """The lists of Pascal VOC beside the folder of its labels; those for training and validation together if alone."""
    files = {split: folder / LISTS / f"{split}.txt" for split in WORDS}
    files = {split: path for split, path in files.items() if path.is_file()}
    both = folder / LISTS / "trainval.txt"
    return files | ({"train": both} if "train" not in files and both.is_file() else {})


def _pictures_of(labels: Path, root: Path) -> Path:
    """The folder of the pictures that belong to a folder of labels."""
    if any(name.lower().endswith(SUFFIXES) for name in os.listdir(labels)):
        return labels
    parts = labels.relative_to(root).parts
    for place in reversed(range(len(parts))):
        if parts[place].lower() in LABELS and (pictures := _named(root.joinpath(*parts[:place]))):
            inner = pictures.joinpath(*parts[place + 1 :])
            return inner if inner.is_dir() else pictures
    return _named(labels) or _named(labels.parent if parts else root) or (labels.parent if parts else root)


def _named(folder: Path) -> Path | None:
    """The folder of pictures in a folder, by its name."""
    folders = {path.name.lower(): path for path in listed(folder) if path.is_dir()}
    return next((folders[name] for name in PICTURES if name in folders), None)


def _below(folder: Path, root: Path) -> str:
    below = folder.relative_to(root).as_posix()
    return "the folder itself" if below == "." else f"{below}/"
