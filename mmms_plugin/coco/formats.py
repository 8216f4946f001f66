"""The format of a file, and what YOLO's and Pascal VOC's share: images known by name, classes by number or name."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from mmms_plugin.coco.records import Category, Columns, Image, few
from mmms_plugin.coco.text_files import lines_of
from mmms_plugin.errors import LONGEST_NAME, UserError, counted, printable, shown
from mmms_plugin.files import is_hidden

if TYPE_CHECKING:
    import PIL.Image

FORMATS = ("auto", "coco", "lvis", "yolo", "voc", "labelme")
SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jfif",
    ".png",
    ".bmp",
    ".tif",
    ".tiff",
    ".webp",
    ".gif",
    ".jp2",
    ".ppm",
    ".pgm",
    ".mpo",
)  # of pictures
CLASSES = 1 << 16
FEW = 3  # files of a folder that are looked at
HEAD = 1 << 12  # bytes of each
MOST_INSIDE = 50  # JSON files of a folder; more are one for each picture
MOST_PROBLEMS = 1000  # lines that cannot be read, before reading stops
TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
Line = tuple[Path, int | str, str]  # file, number of the line or name of the place, what is wrong


@dataclass(frozen=True)
class Source:
    """How to read files.

    Attributes:
        truth, predictions: their formats, of `FORMATS`; 'auto' detects them.
        pictures: folder of the images, whose sizes YOLO's shares need.
        classes: file with the names of the classes.
        split: of a data set's YAML file, "train", "val" or "test".
        naming: the option that names the classes, for messages.
        tolerant: a picture that cannot be read counts as 0 x 0 px; else it is an error.
    """

    truth: str = "auto"
    predictions: str = "auto"
    pictures: Path | None = None
    classes: Path | None = None
    split: str = "val"
    naming: str = "--classes"
    tolerant: bool = False

    def __post_init__(self) -> None:
        for option, value in (("--format", self.truth), ("--pred-format", self.predictions)):
            if value not in FORMATS:
                raise UserError(f"{option} {value}: allowed are {', '.join(FORMATS)}")
        if self.pictures and not self.pictures.is_dir():
            raise UserError(f"--images {self.pictures}: no such folder")
        if self.classes and not self.classes.is_file():
            raise UserError(f"--classes {self.classes}: no such file")


AUTO = Source()


@dataclass(frozen=True)
class Labels:
    """The ground truth in files of YOLO's, Pascal VOC's or labelme's.

    Attributes:
        images: their file names are below ``root``.
        categories: in the order of their numbers, or else of their names.
        columns: the objects.
        root: folder of the pictures, None if unknown.
    """

    images: list[Image]
    categories: list[Category]
    columns: Columns
    root: Path | None = None


@dataclass
class Rows:
    """The objects of all images, collected while files are read.

    Attributes:
        argument: the option that names the files, for messages.
        image, category, box, score, segmentation, crowd: one entry an object; box is x y width height in px.
        problems: lines that cannot be read.
    """

    argument: str
    image: list[int] = field(default_factory=list)
    category: list[int] = field(default_factory=list)
    box: list[Sequence[float]] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    segmentation: list[Any] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    problems: list[Line] = field(default_factory=list)

    def add(self, image: int, category: int, box: Sequence[float], segmentation: Any, score: float | None,
            crowd: bool = False) -> None:  # fmt: skip
        """Append one object; ``score`` is None for ground truth."""
        self.image.append(image)
        self.category.append(category)
        self.box.append(box)
        self.segmentation.append(segmentation)
        self.crowd.append(crowd)
        if score is not None:
            self.score.append(score)

    def refuse(self, path: Path, line: int | str, what: str) -> None:
        """Note a line, or a place that has a name, that cannot be read.

        Raises:
            UserError: there are many by now.
        """
        self.problems.append((path, line, what))
        if len(self.problems) == MOST_PROBLEMS:
            self._stop()

    def _stop(self) -> NoReturn:
        path, line, what = self.problems[0]
        others = len(self.problems) - 1
        least = "at least " if len(self.problems) == MOST_PROBLEMS else ""
        more = f" ({least}{others} more lines like this)" if others else ""
        place = f", line {line}" if isinstance(line, int) else f": {line}"
        raise UserError(f"{self.argument} {path}{place}: {printable(what)}{more}")

    def columns(self) -> Columns:
        """All as columns; without scores, as annotations numbered from 1.

        Raises:
            UserError: the first line that could not be read, and how many more there are.
        """
        if self.problems:
            self._stop()
        n = len(self.image)
        boxes = np.array(self.box, np.float64).reshape(n, 4)
        drawn = any(self.segmentation)
        return Columns(
            np.array(self.image, np.int64),
            np.array(self.category, np.int64),
            boxes,
            np.ones(n, bool),
            segmentations=self.segmentation,
            score=np.array(self.score, np.float64),
            id=np.arange(1, n + 1),
            area=np.full(n, np.nan) if drawn else boxes[:, 2] * boxes[:, 3],
            iscrowd=np.array(self.crowd, bool),
            has_iscrowd=np.ones(n, bool),
        )


def detect(path: Path, argument: str, wanted: str = "auto") -> str:
    """The format of a file or folder: one of `FORMATS`; 'auto' for a JSON file, whose content decides.

    Args:
        path: judged by its name, and by the names in a folder.
        argument: the option that names it, for messages.
        wanted: the format that the user names, or 'auto'.

    Raises:
        UserError: a folder without files of any of these formats.
    """
    if wanted != "auto":
        return wanted
    if not path.is_dir():
        kinds = {".yaml": "yolo", ".yml": "yolo", ".txt": "yolo", ".xml": "voc"}
        listed = path.suffix.lower() == ".txt" and (path.parent.parent.parent / "Annotations").is_dir()
        return "voc" if listed else kinds.get(path.suffix.lower(), "auto")
    names = [name.suffix.lower() for name in islice(path.iterdir(), 10_000)]
    if ".xml" in names:
        return "voc"
    if ".txt" in names or not names:
        return "yolo"
    if ".json" in names and all(map(is_labelme, islice(path.glob("*.json"), FEW))):
        return "labelme"
    instead = ""
    if inside := _inside(path):
        instead = f"; inside: {few(inside)}; give {'that' if len(inside) == 1 else 'one of them'}"
    raise UserError(
        f"{argument} {path}: this folder holds neither .txt files (YOLO) nor .xml files (Pascal VOC) nor labelme's "
        f".json files{instead}"
    )


def is_labelme(path: Path) -> bool:
    """Whether a JSON file begins as those of labelme do, one for each picture."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return False
    return b'"shapes"' in head or b'"imagePath"' in head or b'"imageData"' in head


def _inside(folder: Path) -> list[str]:
    """What may be meant by a folder around it: JSON and YAML files, and folders of labels, two folders deep."""
    files: list[str] = []
    folders: list[str] = []
    for place in (folder, *sorted(folder.glob("*/")), *sorted(folder.glob("*/*/"))):
        within = place.relative_to(folder)
        if not place.is_dir() or any(map(is_hidden, within.parts)):
            continue
        names = sorted(name for name in os.listdir(place) if not is_hidden(name))
        listed = [name for name in names if name.lower().endswith((".json", ".yaml", ".yml"))]
        files += [(within / name).as_posix() for name in listed] if len(listed) <= MOST_INSIDE else []
        texts = "labels" in within.parts and any(name.lower().endswith(".txt") for name in names)
        if texts or any(name.lower().endswith(".xml") for name in names):
            folders.append(f"{within.as_posix()}/")
    return files + folders


def by_stem(paths: Iterable[Path], argument: str, root: Path | None = None) -> dict[str, Path]:
    """Files by their names without suffix, in order.

    Args:
        paths: the files.
        argument: the option that names them, for messages.
        root: names begin below this folder; by default they have no folders.

    Raises:
        UserError: two have the same name.
    """
    files: dict[str, Path] = {}
    for path in sorted(paths):
        stem = path.stem if root is None else path.relative_to(root).with_suffix("").as_posix()
        if stem in files:
            raise UserError(f"{argument} {path}: {files[stem]} has the same name; names must be unique")
        files[stem] = path
    return files


def paired(
    labels: Iterable[Path], pictures: Iterable[Path], folder: Path, root: Path, argument: str
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Label files and pictures by the names that they share: of files, or where these are not unique of paths.

    Args:
        labels: files below ``folder``.
        pictures: files below ``root``.
        folder: of the labels.
        root: of the pictures.
        argument: the option that names the folder, for messages.

    Raises:
        UserError: two have the same name.
    """
    labels, pictures = list(labels), list(pictures)
    try:
        return by_stem(labels, argument), by_stem(pictures, argument)
    except UserError:
        by_path = by_stem(labels, argument, folder), by_stem(pictures, argument, root)
        if not by_path[0].keys() <= by_path[1].keys():
            raise
        return by_path


def pictures_in(folder: Path) -> list[Path]:
    """All pictures in a folder and those below it, sorted, without hidden ones."""
    return files_below(folder, SUFFIXES)


def files_below(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files with one of the suffixes in a folder and below it, sorted, without hidden files and folders."""
    files: list[Path] = []
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        files += [Path(here, name) for name in names if name.lower().endswith(suffixes) and not is_hidden(name)]
    return sorted(files)


def orientation_of(picture: PIL.Image.Image) -> int:
    """The EXIF orientation that a viewer has to apply, 1 to 8; 1 if none is given.

    It is 1 for TIFF files: Pillow and OpenCV turn them while they read them.
    """
    if "exif" not in picture.info or picture.format == "TIFF":
        return 1
    value = picture.getexif().get(0x0112, 1)
    return value if value in range(1, 9) else 1


def picture_size(path: Path, argument: str, tolerant: bool = False) -> tuple[int, int]:
    """Width and height in px as a viewer shows the picture, from the file's head.

    Raises:
        UserError: not a picture; if ``tolerant``, its sides are 0.
    """
    from mmms_plugin.coco.picture_files import PictureError, opened_picture, picture_file

    try:
        with picture_file(path) as file, opened_picture(file) as picture:
            width, height = picture.size
            return (height, width) if orientation_of(picture) in TURNED else (width, height)
    except PictureError as error:
        if tolerant:
            return 0, 0
        raise UserError(f"{argument} {path}: not a picture that can be read ({error})") from None


def finite(text: str) -> float | None:
    """The finite number that a text spells, else None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def class_names(path: Path, argument: str) -> list[str]:
    """Names of classes from a text file, one a line, or from the ``names`` of a YAML file.

    Raises:
        UserError: the file cannot be read, or holds no names or too many.
    """
    listed = path.suffix.lower() not in (".yaml", ".yml")
    names = lines_of(path, argument) if listed else _yaml_names(path, argument)
    if not 1 <= len(names) <= CLASSES:
        raise UserError(f"{argument} {path}: {len(names):,} class names; allowed are 1 to {CLASSES:,}")
    return names


def _yaml_names(path: Path, argument: str) -> list[str]:
    from mmms_plugin.coco.yaml_files import yaml_of  # whose import takes a while

    content = yaml_of(path, argument)
    names = content.get("names")
    if isinstance(names, dict) and set(names) == {str(i) for i in range(len(names))}:
        names = [names[str(i)] for i in range(len(names))]
    if not isinstance(names, list):
        raise UserError(f"{argument} {path}: 'names' must be a list, or a mapping from 0, 1, ... to names")
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{argument} {path}: names[{i}]: {shown(name)}; must be a class name")
    if (count := content.get("nc")) not in (None, str(len(names))):
        raise UserError(f"{argument} {path}: nc {shown(count)}: must be {len(names)}, the number of names")
    return names


def records(
    names: Sequence[str], sizes: Sequence[tuple[int, int]], classes: Sequence[tuple[int, str]]
) -> tuple[list[Image], list[Category]]:
    """Images, numbered from 1, and categories as in COCO's files."""
    images = [
        Image(i, width, height, name) for i, (name, (width, height)) in enumerate(zip(names, sizes, strict=True), 1)
    ]
    return images, [Category(i, printable(name, LONGEST_NAME)) for i, name in classes]


def refuse_two_files(images: Mapping[str, int | None], argument: str, path: Path) -> None:
    """Raise a UserError if two files, whose names are the keys, hold predictions of the same image."""
    first: dict[int | None, str] = {}
    for name, image in images.items():
        if (other := first.setdefault(image, name)) != name:
            raise UserError(f"{argument} {path}: {shown(other)} and {shown(name)} are predictions of the same image")


def unknown_images(names: Sequence[str], argument: str, path: Path) -> UserError:
    """The error about predictions of images that the ground truth does not have."""
    listed = f"{counted(len(names), 'image')} that the ground truth does not have ({few(names)})"
    return UserError(f"{argument} {path}: {listed}; are they predictions of another split?")
