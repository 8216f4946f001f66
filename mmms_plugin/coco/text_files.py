"""Small text files of a data set: labels, lists of pictures, names of classes."""

from __future__ import annotations

from pathlib import Path

from mmms_plugin.errors import UserError
from mmms_plugin.files import what_else

LARGEST = 1 << 22  # bytes of a text file about one image
LARGEST_LIST = 1 << 24  # bytes of a list of images or classes


def bytes_of(path: Path, argument: str, largest: int = LARGEST) -> bytes:
    """The content of a small file.

    Raises:
        UserError: it cannot be read, or is larger than ``largest`` bytes.
    """
    try:
        if other := what_else(path):
            raise UserError(f"{argument} {path}: {other}, not a file")
        size = path.stat().st_size
        if size > largest:
            raise UserError(f"{argument} {path}: {size:,} bytes; allowed are {largest:,} in such a file")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{argument} {path}: cannot be read ({error.strerror})") from None


def text_of(path: Path, argument: str, largest: int = LARGEST) -> str:
    """The content of a small text file.

    Raises:
        UserError: as of `bytes_of`, or not UTF-8.
    """
    try:
        return bytes_of(path, argument, largest).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{argument} {path}: not a text file in UTF-8") from None


def lines_of(path: Path, argument: str) -> list[str]:
    """The lines of a small text file that hold anything, stripped; raises as `text_of`."""
    return [line.strip() for line in text_of(path, argument, LARGEST_LIST).splitlines() if line.strip()]
