"""Damaged pictures: sound ones of every kind, then false sizes and lengths, and bytes that are wrong or missing."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageCms

SIDES = 37, 23  # width and height of the sound ones
LENGTHS = (0, 1, 2, 7, 255, 256, 2**15, 2**16 - 1, 2**16, 2**20, 2**24 - 1, 2**27, 2**31 - 1, 2**31, 2**32 - 1)
FALSE_SIDES = (*LENGTHS, 3_000, 9_000, 9_460, 20_000, 32_000, 2**20 + 1)
SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "BMP": ".bmp", "GIF": ".gif", "WEBP": ".webp"}
LARGE = "PNG", "JPEG", "TIFF", "GIF", "WEBP"
OTHERS = (
    b"", b"\0", bytes(100), b"<html><body>404", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"%PDF-1.7\n",
    b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"PK\3\4" + bytes(60), b"8BPS\0\1" + bytes(60),
    b"P6 99999 99999 255\n",
    b"P5 3 3 65535\n" + bytes(18), b"\0\0\1\0\1\0\x10\x10" + bytes(60), b"version https://git-lfs.github.com/spec/v1\n",
)  # fmt: skip
PNG, GIF = b"\x89PNG\r\n\x1a\n", (b"GIF87a", b"GIF89a")


def make(rng: np.random.Generator, large: float) -> tuple[str, str, bytes]:
    """What was damaged and how, a suffix, and the file; a share of ``large`` has 81 million pixels, and no damage."""
    if rng.random() < large:
        kind = str(rng.choice(LARGE))
        return f"large {kind}", SUFFIXES[kind], flat(kind)
    if rng.random() < 0.03:
        return "another file", str(rng.choice(list(SUFFIXES.values()))), OTHERS[rng.integers(len(OTHERS))]
    kind, name, data = sound()[rng.integers(len(sound()))]
    ways = [truncate, flip, blank, cut, repeat, splice, numbers, sides, sides, lengths, lengths, as_it_is, tail]
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        way: Callable[..., bytes] = ways[rng.integers(len(ways))]
        data = way(bytearray(data), rng)
        done.append(way.__name__)
    wrong = rng.random() < 0.1
    suffix = str(rng.choice(list(SUFFIXES.values()))) if wrong else SUFFIXES[kind]
    return f"{name}: {', '.join(done)}", suffix, bytes(data)


@cache
def sound() -> tuple[tuple[str, str, bytes], ...]:
    """Kind, description and bytes of small pictures in many modes."""
    noise = np.random.default_rng(0).integers(0, 255, (SIDES[1], SIDES[0], 4), np.uint8)
    colour, alpha = Image.fromarray(noise[..., :3].copy()), Image.fromarray(noise)
    grey, palette = colour.convert("L"), colour.convert("P")
    bilevel, cmyk = colour.convert("1"), colour.convert("CMYK")
    deep = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    floats, wide = Image.fromarray(noise[..., 0].astype(np.float32)), Image.fromarray(noise[..., 0].astype(np.int32))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tags = Image.Exif()
    tags[0x0112] = 6
    frames = dict(save_all=True, append_images=True)
    saved: list[tuple[str, Image.Image, dict[str, Any]]] = [
        *(("PNG", image, {}) for image in (colour, alpha, grey, palette, bilevel, deep, colour.convert("LA"))),
        ("PNG", palette, dict(transparency=3)), ("PNG", colour, dict(exif=tags, icc_profile=profile)),
        ("PNG", colour, frames),
        *(("JPEG", image, {}) for image in (colour, grey, cmyk)),
        ("JPEG", colour, dict(progressive=True)), ("JPEG", colour, dict(exif=tags, icc_profile=profile)),
        ("JPEG", colour, dict(comment="x" * 99, restart_marker_rows=1)), ("MPO", colour, frames),
        *(("TIFF", image, {}) for image in (colour, alpha, grey, palette, bilevel, deep, floats, wide, cmyk)),
        *(("TIFF", colour, dict(compression=c)) for c in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
        ("TIFF", bilevel, dict(compression="group4")), ("TIFF", colour, frames),
        *(("BMP", image, {}) for image in (colour, alpha, grey, palette, bilevel)),
        ("GIF", colour, {}), ("GIF", palette, dict(transparency=3)), ("GIF", colour, dict(frames, interlace=1)),
        ("WEBP", colour, {}), ("WEBP", alpha, {}), ("WEBP", colour, dict(lossless=True)), ("WEBP", colour, frames),
        ("WEBP", colour, dict(exif=tags, icc_profile=profile)),
    ]  # fmt: skip
    pictures = []
    for kind, image, options in saved:
        file = io.BytesIO()
        used = {key: [colour.rotate(180)] if key == "append_images" else value for key, value in options.items()}
        image.copy().save(file, kind, **used)  # a copy, since JPEG leaves settings on a picture
        pictures.append((kind, " ".join((kind, image.mode, *options)), file.getvalue()))
    for kind, options in (("PNG", []), ("TIFF", [cv2.IMWRITE_TIFF_COMPRESSION, 5])):
        ok, data = cv2.imencode(SUFFIXES[kind], noise.astype(np.uint16) * 257, options)
        assert ok
        pictures.append((kind, f"{kind} of 16 bits a channel", data.tobytes()))
    pictures.append(("TIFF", "TIFF in tiles", tiled(noise[..., 0])))
    return tuple(pictures)


@cache
def flat(kind: str) -> bytes:
    """A picture of one colour, nearly as large as is still read, in a small file."""
    file = io.BytesIO()
    options = {"PNG": dict(compress_level=1), "TIFF": dict(compression="tiff_lzw"), "WEBP": dict(lossless=True)}
    Image.new("RGB", (9_000, 9_000), (200, 100, 50)).save(file, kind, **options.get(kind, {}))
    return file.getvalue()


def tiled(pixels: np.ndarray) -> bytes:
    """A grey TIFF file of one tile of 64 x 64 px."""
    tile = np.zeros((64, 64), np.uint8)
    tile[: pixels.shape[0], : pixels.shape[1]] = pixels
    values = {256: pixels.shape[1], 257: pixels.shape[0], 258: 8, 259: 1, 262: 1, 277: 1, 322: 64, 323: 64,
              324: 8 + 2 + 12 * 10 + 4, 325: tile.size}  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(values)) + entries + bytes(4) + tile.tobytes()


def as_it_is(data: bytearray, rng: np.random.Generator) -> bytes:
    return data


def truncate(data: bytearray, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(len(data) + 1)]


def tail(data: bytearray, rng: np.random.Generator) -> bytes:
    return data + rng.bytes(int(rng.choice([1, 30, 100, 5_000])))


def flip(data: bytearray, rng: np.random.Generator) -> bytes:
    for _ in range(rng.choice([1, 1, 2, 8])):
        if data:
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    return data


def _span(data: Sequence[int], rng: np.random.Generator) -> tuple[int, int]:
    start = int(rng.integers(len(data) + 1))
    return start, start + int(rng.choice([1, 2, 4, 16, 100]))


def blank(data: bytearray, rng: np.random.Generator) -> bytes:
    start, end = _span(data, rng)
    data[start:end] = bytes([int(rng.choice([0, 255]))]) * len(data[start:end])
    return data


def cut(data: bytearray, rng: np.random.Generator) -> bytes:
    start, end = _span(data, rng)
    del data[start:end]
    return data


def repeat(data: bytearray, rng: np.random.Generator) -> bytes:
    start, end = _span(data, rng)
    data[start:start] = data[start:end] * int(rng.choice([1, 2, 50]))
    return data


def splice(data: bytearray, rng: np.random.Generator) -> bytes:
    """The beginning of this file, and the end of another."""
    other = sound()[rng.integers(len(sound()))][2]
    return data[: rng.integers(len(data) + 1)] + other[rng.integers(len(other)) :]


def numbers(data: bytearray, rng: np.random.Generator) -> bytes:
    """An odd number at any place, in either byte order."""
    size = int(rng.choice([2, 4]))
    if len(data) > 40:
        place = int(rng.integers(min(len(data) - 4, int(rng.choice([64, 10**6])))))
        number = int(rng.choice(LENGTHS)) % 256**size
        data[place : place + size] = number.to_bytes(size, str(rng.choice(["big", "little"])))  # type: ignore[arg-type]
    return data


def sides(data: bytearray, rng: np.random.Generator) -> bytes:
    """A false width or height where the format states it."""
    places = _sides(data)
    for place, size, order in rng.permutation(np.array(places, object))[: rng.choice([1, 2])] if places else ():
        side = int(rng.choice(FALSE_SIDES)) % 256**size
        data[place : place + size] = side.to_bytes(size, order)
    return _with_checksums(data)


def lengths(data: bytearray, rng: np.random.Generator) -> bytes:
    """A false length of a chunk, a segment or an entry."""
    places = _lengths(data)
    if places:
        place, size, order = places[rng.integers(len(places))]
        data[place : place + size] = (int(rng.choice(LENGTHS)) % 256**size).to_bytes(size, order)  # type: ignore[arg-type]
    return data


def _sides(data: bytearray) -> list[tuple[int, int, str]]:
    """Place, number of bytes and byte order of the sides in a file."""
    if data.startswith(PNG):
        places = [(16, 4, "big"), (20, 4, "big")]
        frame = data.find(b"fcTL")
        return places + ([(frame + 8, 4, "big"), (frame + 12, 4, "big")] if frame > 0 else [])
    if data.startswith(GIF):
        frame = data.find(b",\0\0\0\0")
        return [(place, 2, "little") for place in (6, 8, *((frame + 5, frame + 7) if frame > 0 else ()))]
    if data.startswith(b"BM"):
        return [(18, 4, "little"), (22, 4, "little")]
    if data.startswith(b"RIFF"):
        extended = [(24, 3, "little"), (27, 3, "little")] if data[12:16] == b"VP8X" else []
        inner = data.find(b"VP8 ")
        return extended + ([(inner + 14, 2, "little"), (inner + 16, 2, "little")] if inner > 0 else [(21, 4, "little")])
    if data.startswith(b"\xff\xd8"):
        frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        return [(frame + 5, 2, "big"), (frame + 7, 2, "big")] if frame > 0 else []
    return [(place + 8, size, "little") for place, size, tag in _entries(data) if tag in (256, 257, 278, 322, 323)]


def _lengths(data: bytearray) -> list[tuple[int, int, str]]:
    if data.startswith(PNG):
        return [(place, 4, "big") for place, _ in _chunks(data)]
    if data.startswith(b"RIFF"):
        return [(place + 4, 4, "little") for name in (b"RIFF", b"VP8", b"EXIF", b"ICCP", b"ALPH", b"ANMF")
                if (place := data.find(name)) >= 0]  # fmt: skip
    if data.startswith(b"\xff\xd8"):
        marks = {*range(0xC0, 0xD0), *range(0xDA, 0xF0), 0xFE}
        starts = [place for place in range(len(data) - 4) if data[place] == 0xFF and data[place + 1] in marks]
        return [(place + 2, 2, "big") for place in starts]
    if data.startswith(b"BM"):
        return [(place, 4, "little") for place in (2, 10, 14, 30, 34, 46)]
    if data.startswith(GIF):
        return [(place, 1, "little") for place in range(10, min(len(data), 2_000), 7)]
    return [(place + step, size, "little") for place, size, _ in _entries(data) for step in (0, 2, 4, 8)]


def _entries(data: bytearray) -> list[tuple[int, int, int]]:
    """Place, number of bytes of the value and tag of the entries of a TIFF file's first directory."""
    if not data.startswith(b"II*\0") or len(data) < 8:
        return []
    (start,) = struct.unpack_from("<I", data, 4)
    count = int.from_bytes(data[start : start + 2], "little")
    places = [start + 2 + 12 * i for i in range(count) if start + 14 + 12 * i <= len(data)]
    return [(place, 2 if data[place + 2] == 3 else 4, int.from_bytes(data[place : place + 2], "little"))
            for place in places]  # fmt: skip


def _chunks(data: bytearray) -> list[tuple[int, int]]:
    """Place and length of the chunks of a PNG file."""
    chunks, place = [], len(PNG)
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((place, length))
        place += 12 + length
    return chunks


def _with_checksums(data: bytearray) -> bytes:
    """A PNG file whose checksums are right, so that its false sizes are believed."""
    for place, length in _chunks(data) if data.startswith(PNG) else ():
        end = place + 8 + length
        if end + 4 <= len(data):
            data[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
    return data
