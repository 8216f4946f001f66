"""Opening a user's pictures, for every command that reads or decodes them.

A file of 100 bytes can state 32,000 x 32,000 px, and reading from a named pipe may never end. So only regular files are
opened, sizes are read from headers and refused before anything is decoded, and all threads share a budget of pixels.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from threading import Condition, Lock
from typing import Any

from PIL import Image, ImageFile

from mmms_plugin.errors import first_line, memory_shortage
from mmms_plugin.files import what_else
from mmms_plugin.processes import release_memory

MAX_PIXELS = 89_478_485  # beyond it, Pillow warns of a decompression bomb
MOST_PIXELS = 2**30  # that OpenCV decodes, and training with it
LONGEST_SIDE = 2**20  # likewise
MANY = 2**22  # pixels whose memory is worth giving back
# What both can read. Pillow opens other formats too, one of them by running Ghostscript.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "JPEG2000", "PPM", "AVIF", "SUN")
TILE_WIDTH, TILE_LENGTH, BITS, SAMPLES = 322, 323, 258, 277  # tags of TIFF
WIDEST = 64  # bits of a pixel, as of four channels of 16; wider ones count as several pixels
LOG = logging.getLogger("PIL")
LONGEST_DETAIL = 80  # characters of a decoder's complaint


class PictureError(ValueError):
    """A picture that cannot be read.

    Attributes:
        problem: code of the rule that it breaks (``coco.rules``).
        detail: more about it, in a line; may be empty.
    """

    def __init__(self, problem: str, detail: str = "") -> None:
        super().__init__(detail or problem.removeprefix("picture-"))
        self.problem, self.detail = problem, detail


class PixelBudget:
    """The pixels that all threads together may decode at the same time.

    A picture that is larger than the budget waits until it is the only one.
    """

    def __init__(self, most: int) -> None:
        self.most, self._taken, self._changed = most, 0, Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait until ``pixels`` are free, and hold them. A thread that holds some must not wait for more."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + pixels <= self.most)
            self._taken += pixels
        if pixels > MANY:
            release_memory()  # of the pictures before, which glibc keeps for the threads that decoded them
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


BUDGET = PixelBudget(MAX_PIXELS)


class _PillowSettings:
    """Pillow's own limit of pixels, which ours replaces, its leave to read truncated files, and its log of faults.

    They belong to the process: the first thread that needs them set aside does so, and the last one restores them.
    """

    def __init__(self) -> None:
        self._lock, self._users = Lock(), 0
        self._saved: tuple[Any, bool, int] = (None, False, logging.NOTSET)

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        with self._lock:
            if not self._users:
                self._saved = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, LOG.level
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
                LOG.setLevel(logging.CRITICAL + 1)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, level = self._saved
                    LOG.setLevel(level)


_PILLOW = _PillowSettings()


@contextmanager
def picture_file(path: str | Path) -> Iterator[io.BufferedReader]:
    """A picture's file, opened for reading.

    Raises:
        PictureError: it is missing, empty, not a regular file, or cannot be read.
    """
    try:
        if other := what_else(path):
            raise PictureError("picture-unreadable", f"{other}, not a file")
        with open(path, "rb") as file:
            if not file.peek(1):
                raise PictureError("picture-empty")
            yield file
    except FileNotFoundError:
        raise PictureError("picture-missing") from None
    except OSError as error:
        raise PictureError("picture-unreadable", error.strerror or first_line(error)) from error


@contextmanager
def opened_picture(
    file: io.BufferedReader, max_pixels: int = MOST_PIXELS, *, decode: bool = False
) -> Iterator[Image.Image]:
    """A picture whose header has been read.

    Whatever the ``with`` block raises is reported as the picture's fault, so it should only read the picture.

    Args:
        file: of `picture_file`.
        max_pixels: largest number of pixels allowed.
        decode: the block decodes the picture; meanwhile its pixels are taken from the `BUDGET`.

    Raises:
        PictureError: it is too large or cannot be read.
    """
    file.seek(0)
    with ExitStack() as stack:
        try:
            stack.enter_context(_PILLOW.set_aside())
            if canvas := _webp_canvas(file.peek(30)):  # Pillow's decoder makes room for it as it opens the file
                stack.enter_context(BUDGET.taken(_checked_pixels(*canvas, max_pixels)))
            image = stack.enter_context(Image.open(file, formats=_formats()))
            pixels = pixels_of(image, max_pixels)
            if decode and not canvas:
                stack.enter_context(BUDGET.taken(pixels))
            yield image
        except PictureError:
            raise
        except Image.UnidentifiedImageError:
            raise PictureError("picture-unreadable", "not a known picture format") from None
        except Exception as error:  # a damaged file makes Pillow raise nearly anything
            raise PictureError("picture-unreadable", decoder_complaint(error)) from error


def decoder_complaint(error: Exception) -> str:
    """What a decoder raised, in a short line."""
    if memory_shortage(error) is not None:
        return "too little memory to decode it"
    return first_line(error)[:LONGEST_DETAIL]


def pixels_of(image: Image.Image, max_pixels: int) -> int:
    """The number of pixels that a decoder makes room for: of the picture, or of a larger tile of a TIFF file.

    Raises:
        PictureError: more than ``max_pixels``, or beyond what OpenCV decodes.
    """
    pixels = _checked_pixels(*image.size, max_pixels)
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits = tags.get(BITS, (1,))
        wide = max(1, max(bits) * tags.get(SAMPLES, 1) // WIDEST)
        tile = tags.get(TILE_WIDTH, 1), tags.get(TILE_LENGTH, 1)
        width, height = tile if tile[0] * tile[1] > pixels else image.size
        pixels = _checked_pixels(width, height, max_pixels, wide)
    return pixels


def _checked_pixels(width: int, height: int, max_pixels: int, wide: int = 1) -> int:
    """The number of pixels, each of which takes the room of ``wide``; raises PictureError if it is not allowed."""
    shown = f"{width} x {height} px{f' of {wide * WIDEST} bits' if wide > 1 else ''}"
    if not width or not height:
        raise PictureError("picture-unreadable", shown)
    if width * height * wide > max_pixels:
        raise PictureError("picture-too-large", f"{shown}; --max-pixels allows {max_pixels:,} in all")
    if max(width, height) > LONGEST_SIDE:
        raise PictureError("picture-unreadable", f"{shown}; OpenCV reads sides of up to {LONGEST_SIDE:,}")
    return width * height * wide


def _webp_canvas(head: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP file from its first 30 bytes; None for other files."""
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP" or len(head) < 30:
        return None
    if head[12:16] == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if head[12:16] == b"VP8L":
        sides = int.from_bytes(head[21:25], "little")
        return 1 + (sides & 0x3FFF), 1 + (sides >> 14 & 0x3FFF)
    return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF


@cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that the installed Pillow knows."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)
