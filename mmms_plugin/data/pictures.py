"""What the headers of pictures say, for thousands of pictures at a time, without decoding them.

Training decodes with OpenCV, so what counts is whether OpenCV can read a file, and as what size. Only a file that does
not end as its format does is decoded, which finds truncated pictures without decoding all of them.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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
COMMON = ("JPEG", "MPO", "PNG", "WEBP", "BMP")  # formats that OpenCV reads if Pillow does
TAIL = 64  # bytes at the end of a file that should hold its format's end mark
MOST_PIXELS = 2**30  # of OpenCV
QUIET = 2000  # fewer pictures are read without a progress bar


@dataclass(frozen=True)
class Picture:
    """A picture's file as training will see it.

    Attributes:
        problem: code of the rule that it breaks, empty if it can be read.
        detail: the decoder's message.
        size: width and height in px after EXIF rotation, (0, 0) if unreadable.
        bytes: size of the file.
        orientation: of EXIF, 1 if none is given.
        mode: Pillow's.
        deep: it has 16 bits per channel.
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
    """Note what is wrong with a picture, and what training does to it."""
    if picture.problem:
        findings.add(picture.problem, f"{name}: {picture.detail}" if picture.detail else name)
    if picture.deep:
        findings.add("picture-16-bit", name)
    if picture.mode == "CMYK":
        findings.add("picture-cmyk", name)


def look_at(path: str | Path, decode: bool = False) -> Picture:
    """What the header and the last bytes of a picture say; ``decode`` reads every pixel too."""
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
    """Bits per channel; Pillow always gives 8 for a colour PNG."""
    if image.format == "PNG":
        return head[24]
    if image.format == "TIFF":
        bits = image.tag_v2.get(258, (8,))  # type: ignore[attr-defined]
        return max(bits) if isinstance(bits, tuple) else int(bits)
    return 8


def _is_whole(image: Image.Image, head: bytes, tail: bytes, size: int) -> bool:
    """Whether a file ends as its format does; if not, it has to be decoded."""
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
    """Code and detail of the problem in decoding, both empty if there is none."""
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
        return "not a known picture format"
    lines = str(error).strip().splitlines()
    return lines[0][:80] if lines else type(error).__name__


def look_at_all(paths: Sequence[Path], what: str, decode: bool = False) -> list[Picture]:
    """``look_at`` for many files, in threads, with a progress bar in a terminal."""
    with quiet_libraries():
        return list(in_threads(lambda path: look_at(path, decode), paths, what))


def in_threads(call: Callable[[Path], T], paths: Sequence[Path], what: str) -> Iterator[T]:
    """``call`` for every path, results in order; with a progress bar on standard error for many paths."""
    with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
        results = pool.map(call, paths)
        if len(paths) < QUIET or not sys.stderr.isatty():
            if len(paths) >= QUIET:
                print(f"{what}: {len(paths)} files", file=sys.stderr, flush=True)
            yield from results
            return
        from rich.console import Console
        from rich.progress import track

        yield from track(results, what, len(paths), console=Console(stderr=True), transient=True)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence warnings about large pictures, of which only headers are read, and OpenCV's about damaged ones."""
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
        paths: the files.
        sizes: bytes of each file, 0 for those to leave out.
    """
    keys: dict[int, tuple] = {place: (size,) for place, size in enumerate(sizes) if size}
    for length in (0, 1 << 14, None):  # compare sizes, then the beginnings, then the whole files
        if length != 0:
            digests = in_threads(partial(_digest, length=length), [paths[i] for i in keys], "comparing pictures")
            keys = {i: (*key, digest or i) for (i, key), digest in zip(keys.items(), digests, strict=True)}
        counts = Counter(keys.values())
        keys = {i: key for i, key in keys.items() if counts[key] > 1}
    groups: dict[tuple, list[int]] = {}
    for i, key in keys.items():
        groups.setdefault(key, []).append(i)
    return list(groups.values())


def _digest(path: Path, length: int | None) -> bytes:
    """A hash of the first ``length`` bytes of a file, or of all; empty if it cannot be read."""
    try:
        with open(path, "rb") as file:
            if length:
                return blake2b(file.read(length), digest_size=16).digest()
            digest = blake2b(digest_size=16)
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.digest()
    except OSError:
        return b""
