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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from mmms_plugin.coco.findings import Findings
from mmms_plugin.coco.formats import TURNED, orientation_of
from mmms_plugin.coco.picture_files import (
    BUDGET,
    MAX_PIXELS,
    PictureError,
    decoder_complaint,
    opened_picture,
    picture_file,
    pixels_of,
)
from mmms_plugin.processes import compiled_code_silenced

T = TypeVar("T")
COMMON = ("JPEG", "MPO", "PNG", "WEBP", "BMP")  # formats that OpenCV reads if Pillow does
JPEG = ("JPEG", "MPO")
START_OF_SCAN = b"\xff\xda"  # a progressive picture usually has 10 scans
MOST_SCANS = 50  # of the largest picture allowed, of smaller ones more: 0.6 ns a pixel
FILLED = (*JPEG, "PNG", "BMP")  # whose missing parts OpenCV fills with grey, without a word
TAIL = 64  # bytes at the end of a file that should hold its format's end mark
MOST_CHUNKS = 100_000  # of a PNG file that are walked through
BYTES = 4  # of a file that count as a pixel of the budget while it is decoded
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
    def reason(self) -> str:
        """Why it cannot be read, such as 'unreadable: not a known picture format'; '' if it can."""
        problem = self.problem.removeprefix("picture-").replace("-", " ")
        return f"{problem}: {self.detail}" if self.detail else problem

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


def none_readable(problems: Mapping[Any, str]) -> str:
    """The line where no picture can be read; ``problems`` has the reason for each."""
    name, reason = next(iter(problems.items()))
    whole = "the picture cannot be read" if len(problems) == 1 else f"none of the {len(problems)} pictures can be read"
    return f"{whole}; {name}: {reason}"


def look_at(path: str | Path, decode: bool = False, max_pixels: int = MAX_PIXELS) -> Picture:
    """What the header and the end of a picture's file say.

    Args:
        path: the file.
        decode: read every pixel too.
        max_pixels: a picture of more pixels is a problem, and is not decoded.
    """
    size = 0
    try:
        with picture_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            return _read(file, size, decode, max_pixels)
    except PictureError as error:
        return Picture(error.problem, error.detail, bytes=size)


def problem_of(path: Path, max_pixels: int = MAX_PIXELS) -> str:
    """Why a picture cannot be read; '' if it can. Every pixel is decoded."""
    return look_at(path, decode=True, max_pixels=max_pixels).reason


def _read(file: io.BufferedReader, size: int, decode: bool, max_pixels: int) -> Picture:
    picture, kind, whole, pixels = _header(file, size, decode, max_pixels)
    if not whole or decode or kind not in COMMON:
        try:
            _decode(file, kind, pixels + size // BYTES)
        except PictureError as error:
            raise error if whole else PictureError("picture-truncated", error.detail) from error
    return picture


def _header(file: io.BufferedReader, size: int, decode: bool, max_pixels: int) -> tuple[Picture, str, bool, int]:
    """The picture as its header states it, its format, whether its file is whole, and the pixels to make room for."""
    head = file.read(32)
    file.seek(-min(size, TAIL), os.SEEK_END)
    tail = file.read()
    with opened_picture(file, max_pixels) as image:
        mode, orientation = image.mode, orientation_of(image)
        whole = _is_whole(image, file, head, tail, size)
        deep = "16" in mode or mode == "I" or _bits(image, head) == 16
        sides = image.size[::-1] if orientation in TURNED else image.size
        picture = Picture(size=sides, bytes=size, orientation=orientation, mode=mode, deep=deep)
        kind, pixels = image.format or "", pixels_of(image, max_pixels)
        if kind in JPEG and (decode or "progressive" in image.info):
            _check_scans(file, pixels, max_pixels)
        return picture, kind, whole, pixels


def _check_scans(file: io.BufferedReader, pixels: int, max_pixels: int) -> None:
    """Raise PictureError if a JPEG file has so many scans, each of the whole picture, that decoding takes minutes."""
    file.seek(0)
    scans = file.read().count(START_OF_SCAN)
    if scans * pixels > MOST_SCANS * max_pixels:
        raise PictureError("picture-unreadable", f"{scans:,} scans of {pixels:,} pixels")


def _bits(image: Image.Image, head: bytes) -> int:
    """Bits per channel; Pillow always gives 8 for a colour PNG."""
    if image.format == "PNG":
        return head[24]
    if image.format == "TIFF":
        bits = image.tag_v2.get(258, (8,))  # type: ignore[attr-defined]
        return max(bits) if isinstance(bits, tuple) else int(bits)
    return 8


def _is_whole(image: Image.Image, file: io.BufferedReader, head: bytes, tail: bytes, size: int) -> bool:
    """Whether a file ends as its format does; if not, it has to be decoded."""
    kind = image.format
    if kind in JPEG:
        return b"\xff\xd9" in tail
    if kind == "PNG":
        return _has_last_chunk(file, size)
    if kind == "WEBP":
        return int.from_bytes(head[4:8], "little") + 8 <= size
    if kind == "BMP":
        return int.from_bytes(head[2:6], "little") <= size
    if kind == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        starts, lengths = tags.get(273) or tags.get(324) or (), tags.get(279) or tags.get(325) or ()
        return all(start + length <= size for start, length in zip(starts, lengths, strict=False))
    return False


def _has_last_chunk(file: io.BufferedReader, size: int) -> bool:
    """Whether the chunks of a PNG file lead to its last one.

    Raises:
        PictureError: one states more bytes than are left, for all of which OpenCV would make room.
    """
    place = 8
    for _ in range(MOST_CHUNKS):
        file.seek(place)
        start = file.read(8)
        length, left = int.from_bytes(start[:4], "big"), size - place - 12  # 12 bytes are length, name and checksum
        if left < 0:
            return False
        if length > left:
            raise PictureError("picture-truncated", f"a chunk of {length:,} bytes, of which {left:,} are there")
        if start[4:] == b"IEND":
            return True
        place += 12 + length
    return False


def _decode(file: io.BufferedReader, kind: str, pixels: int) -> None:
    """Decode a picture as training does; raises PictureError if that fails."""
    import cv2

    if kind in FILLED:
        _decode_with_pillow(file)
    file.seek(0)
    with BUDGET.taken(pixels):
        try:
            decoded = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
        except (cv2.error, MemoryError) as error:
            raise PictureError("picture-unreadable", decoder_complaint(error)) from error
    if decoded is None:
        raise PictureError("picture-unreadable", f"OpenCV cannot decode this {kind}")


def _decode_with_pillow(file: io.BufferedReader) -> None:
    with opened_picture(file, decode=True) as image:
        image.load()


def look_at_all(paths: Sequence[Path], what: str, decode: bool = False, max_pixels: int = MAX_PIXELS) -> list[Picture]:
    """``look_at`` for many files, in threads, with a progress bar in a terminal."""
    with quiet_libraries():
        return list(in_threads(lambda path: look_at(path, decode, max_pixels), paths, what))


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
    """Silence what Pillow, OpenCV and the libraries below them say about damaged pictures."""
    import cv2

    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        with warnings.catch_warnings(), compiled_code_silenced():
            warnings.simplefilter("ignore")
            yield
    finally:
        cv2.utils.logging.setLogLevel(level)


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
