"""What the header of a picture says, for thousands of pictures at a time, without decoding them.

Training decodes with OpenCV, so the questions are OpenCV's: can it read the file, and as what size. A file whose end is
not that of its format is decoded, so that truncated pictures are found without decoding all of them.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageFile

from mmms_plugin.coco.findings import Findings
from mmms_plugin.coco.formats import TURNED, orientation_of

T = TypeVar("T")
COMMON = ("JPEG", "MPO", "PNG", "WEBP", "BMP")  # formats that OpenCV reads whenever Pillow does
TAIL = 64  # bytes at the end of a file in which its format's end mark is expected
MOST_PIXELS = 2**30  # of OpenCV
QUIET = 2000  # pictures that are looked at without a progress bar


@dataclass(frozen=True)
class Picture:
    """A picture's file as training will see it.

    Attributes:
        problem: code of the rule it breaks, empty if it can be read. detail: what the decoder says.
        size: width and height in px after EXIF rotation, (0, 0) if unreadable. bytes: of the file.
        orientation: of EXIF, 1 where none is given. mode: Pillow's. deep: 16 bits a channel.
    """

    problem: str = ""
    detail: str = ""
    size: tuple[int, int] = (0, 0)
    bytes: int = 0
    orientation: int = 1
    mode: str = ""
    deep: bool = False

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height before EXIF rotation."""
        return self.size[::-1] if self.orientation in TURNED else self.size


def note_picture(findings: Findings, name: str, picture: Picture) -> None:
    """Note what is wrong with a picture, and what training changes in it."""
    if picture.problem:
        findings.add(picture.problem, f"{name}: {picture.detail}" if picture.detail else name)
    if picture.deep:
        findings.add("picture-16-bit", name)
    if picture.mode == "CMYK":
        findings.add("picture-cmyk", name)


def look_at(path: str | Path, decode: bool = False) -> Picture:
    """Size, mode and health of a picture by its header and its last bytes; ``decode`` reads every pixel too."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                return Picture("picture-empty")
            return _read(file, size, decode)
    except FileNotFoundError:
        return Picture("picture-missing")
    except OSError as error:
        return Picture("picture-unreadable", error.strerror or str(error))


def _read(file: io.BufferedReader, size: int, decode: bool) -> Picture:
    head = file.read(32)
    file.seek(-min(size, TAIL), os.SEEK_END)
    tail = file.read()
    file.seek(0)
    try:
        with Image.open(file) as image:
            width, height = image.size
            kind, mode = image.format or "", image.mode
            orientation = orientation_of(image)
            whole = _is_whole(image, head, tail, size)
            deep = "16" in mode or mode == "I" or _bits(image, head) == 16
    except Exception as error:  # a damaged header makes Pillow raise nearly anything
        return Picture("picture-unreadable", _reason(error), bytes=size)
    turned = (height, width) if orientation in TURNED else (width, height)
    picture = Picture(size=turned, bytes=size, orientation=orientation, mode=mode, deep=deep)
    if width * height > MOST_PIXELS:
        return Picture("picture-unreadable", f"{width} x {height}: OpenCV reads up to 2^30 pixels", bytes=size)
    if not whole or decode or kind not in COMMON:
        problem, detail = _decode(file, whole, kind)
        if problem:
            return Picture(problem, detail, bytes=size)
    return picture


def _bits(image: Image.Image, head: bytes) -> int:
    """Bits a channel; Pillow shows those of a colour PNG as 8 whatever they are."""
    if image.format == "PNG":
        return head[24]
    if image.format == "TIFF":
        bits = image.tag_v2.get(258, (8,))  # type: ignore[attr-defined]
        return max(bits) if isinstance(bits, tuple) else int(bits)
    return 8


def _is_whole(image: Image.Image, head: bytes, tail: bytes, size: int) -> bool:
    """Whether a file ends as its format does; False means: look closer."""
    kind = image.format
    if kind in ("JPEG", "MPO"):
        return b"\xff\xd9" in tail
    if kind == "PNG":
        return b"IEND" in tail
    if kind == "WEBP":
        return int.from_bytes(head[4:8], "little") + 8 <= size
    if kind == "BMP":
        return int.from_bytes(head[2:6], "little") <= size
    if kind == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        starts, lengths = tags.get(273) or tags.get(324) or (), tags.get(279) or tags.get(325) or ()
        return all(start + length <= size for start, length in zip(starts, lengths, strict=False))
    return False


def _decode(file: io.BufferedReader, whole: bool, kind: str) -> tuple[str, str]:
    """Code and detail of what goes wrong in decoding, empty if nothing does."""
    import cv2

    file.seek(0)
    data = file.read()
    if kind in COMMON:  # OpenCV fills the missing part of a JPEG with grey and says nothing
        try:
            with Image.open(io.BytesIO(data)) as image:
                image.load()
        except Exception as error:
            return ("picture-unreadable" if whole else "picture-truncated"), _reason(error)
    if cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is None:
        return ("picture-unreadable" if whole else "picture-truncated"), f"OpenCV cannot decode this {kind or 'file'}"
    return "", ""


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "no picture format that is known"
    lines = str(error).strip().splitlines()
    return lines[0][:80] if lines else type(error).__name__


def look_at_all(paths: Sequence[Path], what: str, decode: bool = False) -> list[Picture]:
    """``look_at`` for many files, in threads, with a progress bar in a terminal."""
    with quiet_libraries():
        return list(in_threads(lambda path: look_at(path, decode), paths, what))


def in_threads(call: Callable[[Path], T], paths: Sequence[Path], what: str) -> Iterator[T]:
    """``call`` for every path, results in order; a progress bar on standard error where there are many."""
    workers = min(16, 4 * (os.cpu_count() or 1))
    with ThreadPoolExecutor(workers) as pool:
        yield from _with_progress(pool.map(call, paths, chunksize=1), len(paths), what)


def _with_progress(results: Iterable[T], total: int, what: str) -> Iterator[T]:
    if total < QUIET or not sys.stderr.isatty():
        if total >= QUIET:
            print(f"{what}: {total} files", file=sys.stderr, flush=True)
        yield from results
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(results, what, total, console=Console(stderr=True), transient=True)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Only headers are read: no warning about large pictures, and none of OpenCV's about damaged ones."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    strict, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        import cv2

        level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
        cv2.utils.logging.setLogLevel(level)
    finally:
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = limit, strict


def same_content(paths: Sequence[Path], sizes: Sequence[int]) -> list[list[int]]:
    """Groups of places in ``paths`` whose files are equal; only files of the same length are read.

    Args:
        sizes: bytes of each file, 0 for those to leave out.
    """
    by_size: dict[int, list[int]] = {}
    for place, size in enumerate(sizes):
        by_size.setdefault(size, []).append(place)
    candidates = [places for size, places in by_size.items() if size and len(places) > 1]
    for length in (1 << 14, None):  # first the beginning, then the whole
        flat = [place for places in candidates for place in places]
        digests_in_order = in_threads(
            partial(_digest, length=length), [paths[place] for place in flat], "comparing pictures"
        )
        digests = dict(zip(flat, digests_in_order, strict=True))
        candidates = [group for places in candidates for group in _groups(places, digests) if len(group) > 1]
    return candidates


def _groups(places: list[int], digests: dict[int, bytes]) -> Iterable[list[int]]:
    groups: dict[bytes, list[int]] = {}
    for place in places:
        groups.setdefault(digests[place] or str(place).encode(), []).append(place)
    return groups.values()


def _digest(path: Path, length: int | None) -> bytes:
    digest = blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while block := file.read(length or 1 << 20):
                digest.update(block)
                if length:
                    break
    except OSError:
        return b""
    return digest.digest()
