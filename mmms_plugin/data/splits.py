"""Names that say which split files and folders are for, in every layout."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mmms_plugin.files import is_hidden

WORDS = {
    "train": {"train", "training"},
    "val": {"val", "valid", "validation", "dev"},
    "test": {"test", "testing"},
}


def split_of(path: Path) -> str:
    """The split that a relative path names, by the file's name, then by its folders; empty if it names none."""
    for part in (path.stem, *reversed(path.parts[:-1])):
        named = [split for split, words in WORDS.items() if words & set(words_in(part))]
        if len(named) == 1:
            return named[0]
    return ""


def words_in(text: str) -> list[str]:
    return re.split(r"[^a-z]+", text.lower())


def listed(folder: Path) -> list[Path]:
    """The files and folders in a folder, sorted, without hidden ones."""
    return sorted(path for path in folder.iterdir() if not is_hidden(path.name))


def is_below(path: Path, folder: Path) -> bool:
    """Whether a path lies in a folder by its name: links are the user's own, and are followed."""
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
