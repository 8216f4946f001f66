"""The pictures for ``mmms predict``, given as files, folders or patterns, and the names of their results."""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmms_plugin.coco.formats import SUFFIXES, pictures_in
from mmms_plugin.errors import UserError
from mmms_plugin.files import check_picture_source


@dataclass(frozen=True)
class Input:
    """A picture.

    Attributes:
        path: its file.
        name: name of its results, without suffix.
        below: its path below the folder that the user gave.
    """

    path: Path
    name: str
    below: Path


def find_inputs(arguments: Sequence[str], out: Path) -> list[Input]:
    """Every picture once, in the order of the arguments; the pictures of a folder are sorted by name.

    Args:
        arguments: files, folders (with their sub-folders) and patterns such as ``shots/*.png``.
        out: the folder of the results; pictures in it are left out.

    Raises:
        UserError: an argument does not exist, or a folder or pattern has no picture.
    """
    pictures: dict[Path, Path] = {}  # resolved path: the path below the argument
    for argument in arguments:
        for path, below in _pictures_of(argument, out.resolve()):
            pictures.setdefault(_resolved(path), below)
    return [Input(path, name, pictures[path]) for path, name in zip(pictures, _names(pictures), strict=True)]


def _resolved(path: Path) -> Path:
    """The path without links; pathlib's ``resolve`` raises for a link to itself before Python 3.13."""
    return Path(os.path.realpath(path))


def _pictures_of(argument: str, out: Path) -> Iterable[tuple[Path, Path]]:
    path = Path(argument)
    if path.is_file():
        return [(path, Path(path.name))]
    if path.is_dir():
        files = [file for file in pictures_in(path) if out not in _resolved(file).parents]
        return _some([(file, file.relative_to(path)) for file in files], f"folder {argument}")
    check_picture_source(argument)
    files = [Path(name) for name in sorted(glob.glob(argument, recursive=True))]
    files = [file for file in files if file.suffix.lower() in SUFFIXES and not file.is_dir()]
    return _some([(file, Path(file.name)) for file in files], f"pattern {argument!r}")


def _some(pictures: list[tuple[Path, Path]], what: str) -> list[tuple[Path, Path]]:
    if not pictures:
        raise UserError(f"{what}: no picture in it (looked for {' '.join(SUFFIXES)})")
    return pictures


def _names(pictures: dict[Path, Path]) -> list[str]:
    """The path below the argument without suffix; equal names get their folders, and then their suffix.

    ``a/cat.jpg b/cat.jpg`` become a/cat and b/cat; ``cat.jpg`` and ``cat.png`` of one folder keep their suffix.
    """
    names = {path: below.with_suffix("").as_posix() for path, below in pictures.items()}
    for same in _clashes(names):
        try:
            common = Path(os.path.commonpath([path.parent for path in same]))
        except ValueError:  # several drives on Windows: numbered below
            continue
        names |= {path: path.relative_to(common).with_suffix("").as_posix() for path in same}
    for same in _clashes(names):
        names |= {path: f"{names[path]}{path.suffix}" for path in same}
    for same in _clashes(names):  # a new name may be another picture's plain name
        names |= {path: f"{names[path]}_{i}" for i, path in enumerate(same, 1)}
    return list(names.values())


def _clashes(names: dict[Path, str]) -> list[list[Path]]:
    """Groups of paths with the same name; some file systems ignore upper and lower case."""
    groups = defaultdict(list)
    for path, name in names.items():
        groups[name.casefold()].append(path)
    return [group for group in groups.values() if len(group) > 1]
