"""Opening a user's pictures: what is refused before anything is decoded, and the budget of all threads."""

from __future__ import annotations

import os
import socket
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from mmms_plugin.coco.formats import picture_size
from mmms_plugin.coco.picture_files import PictureError, PixelBudget, opened_picture, picture_file
from mmms_plugin.errors import UserError
from mmms_plugin.report.page import open_picture
from tests.fuzz import picture_mutants

LARGE = {  # a sound picture, and sides that its header can state
    "PNG RGB": (32_000, 32_000), "JPEG RGB": (60_000, 60_000), "JPEG RGB progressive": (60_000, 60_000),
    "TIFF RGB": (60_000, 60_000), "BMP RGB": (60_000, 60_000), "GIF RGB": (60_000, 60_000),
    "WEBP RGB": (16_000, 16_000), "WEBP RGBA": (2**24, 2**24), "WEBP RGB lossless": (16_384, 16_384),
}  # fmt: skip


def named(name: str) -> bytearray:
    return bytearray(next(data for _, described, data in picture_mutants.sound() if described == name))


def with_sides(data: bytearray, width: int, height: int) -> bytes:
    """A picture whose header states these sides."""
    if data[12:16] == b"VP8L":
        data[21:25] = (width - 1 | height - 1 << 14).to_bytes(4, "little")
        return bytes(data)
    less = data[12:16] == b"VP8X"
    for (place, size, order), side in zip(picture_mutants._sides(data), (width, height), strict=False):
        data[place : place + size] = (side - less).to_bytes(size, order)  # type: ignore[arg-type]
    return picture_mutants._with_checksums(data)


def fault(path: Path, max_pixels: int, decode: bool = False) -> PictureError:
    with pytest.raises(PictureError) as caught, picture_file(path) as file:
        opened_picture(file, max_pixels, decode=decode).__enter__()
    return caught.value


@pytest.mark.parametrize("name", LARGE)
def test_a_header_that_states_too_many_pixels_is_refused_before_room_is_made(name, tmp_path, monkeypatch):
    """With Pillow's own limit on or off, by every way of reading; one pixel more is allowed than there are."""
    path, (width, height) = tmp_path / "a.png", LARGE[name]
    path.write_bytes(with_sides(named(name), width, height))
    monkeypatch.setattr("PIL._webp.WebPAnimDecoder", None)
    monkeypatch.setattr(Image.core, "new", None)
    for limit in (None, 1000):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            error = fault(path, width * height - 1, decode=True)
            assert open_picture(path) is None
        assert error.problem == "picture-too-large"
        assert str(error) == f"{width} x {height} px; --max-pixels allows {width * height - 1:,} in all"
        assert limit == Image.MAX_IMAGE_PIXELS


def test_the_size_of_a_large_picture_is_known_without_decoding_it(tmp_path):
    """Pillow refuses to open one of so many pixels."""
    path = tmp_path / "a.png"
    path.write_bytes(with_sides(named("PNG RGB"), 20_000, 20_000))
    assert picture_size(path, "--images") == (20_000, 20_000)
    path.write_bytes(with_sides(named("PNG RGB"), 40_000, 40_000))
    with pytest.raises(UserError, match=r"a.png: not a picture that can be read \(40000 x 40000 px; --max-pixels "):
        picture_size(path, "--images")


def test_opencv_s_longest_side(tmp_path):
    path = tmp_path / "a.png"
    for width, detail in ((2**20, ""), (2**20 + 1, "1048577 x 2 px; OpenCV reads sides of up to 1,048,576")):
        path.write_bytes(with_sides(named("PNG RGB"), width, 2))
        if detail:
            assert str(fault(path, 10**9)) == detail
        else:
            assert picture_size(path, "--images") == (2**20, 2)


def test_tiles_and_channels_of_tiff_count(tmp_path):
    """A decoder makes room for a whole tile; 64 bits are a pixel."""
    data = named("TIFF in tiles")
    for tag, side in ((322, 32_768), (323, 16_384)):
        place = next(place for place, _, known in picture_mutants._entries(data) if known == tag)
        data[place + 8 : place + 12] = side.to_bytes(4, "little")
    (tmp_path / "tiles.tif").write_bytes(data)
    assert str(fault(tmp_path / "tiles.tif", 10**8)) == "32768 x 16384 px; --max-pixels allows 100,000,000 in all"
    Image.fromarray(np.zeros((30, 40, 4), np.uint8)).save(tmp_path / "a.tif")
    wide = bytearray((tmp_path / "a.tif").read_bytes())
    bits = wide.index(b"\x08\0\x08\0\x08\0\x08\0")
    wide[bits : bits + 8] = b"\x40\0" * 4
    (tmp_path / "a.tif").write_bytes(wide)
    assert fault(tmp_path / "a.tif", 4 * 1200).problem in ("picture-unreadable", "picture-too-large")


def test_other_formats_that_pillow_knows_are_not_opened(tmp_path):
    """Of PostScript it would make a picture with Ghostscript."""
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    assert str(fault(tmp_path / "a.png", 1000)) == "not a known picture format"


@pytest.mark.needs(hasattr(os, "mkfifo"), reason="named pipes")
def test_only_regular_files_are_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "gone")
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    (tmp_path / "empty.png").touch()
    picture = tmp_path / "p.png"
    Image.new("L", (3, 2)).save(picture)
    (tmp_path / "link.png").symlink_to(picture)
    kinds = {
        "pipe": "a named pipe, not a file", "folder": "a folder, not a file", "zero": "a device, not a file",
        "nowhere": "a link to a file that is missing, not a file", "gone": "missing", "empty": "empty",
    }  # fmt: skip
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # names of sockets are short
        server.bind("socket.png")
        for name, said in (kinds | {"socket": "a socket, not a file"}).items():
            assert str(fault(tmp_path / f"{name}.png", 1000)) == said
    assert "symbolic links" in str(fault(tmp_path / "circle.png", 1000))
    assert fault(tmp_path / "a\0b.png", 1000).problem == "picture-missing"
    assert fault(tmp_path / ("x" * 999), 1000).problem == "picture-unreadable"
    assert picture_size(tmp_path / "link.png", "--images") == (3, 2)


def test_all_threads_share_the_budget():
    """Never more at once than allowed, unless one alone is more."""
    budget, held, most, alone, lock = PixelBudget(100), [0], [0], [], threading.Lock()

    def work(pixels: int) -> None:
        with budget.taken(pixels):
            with lock:
                held[0] += pixels
                if pixels > 100:
                    alone.append(held[0])
                else:
                    most[0] = max(most[0], held[0])
            threading.Event().wait(0.001)
            with lock:
                held[0] -= pixels

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [30, 60, 100, 250, 7, 55] * 8))
    assert 60 <= most[0] <= 100
    assert alone == [250] * 8
    with pytest.raises(ZeroDivisionError), budget.taken(100):
        raise ZeroDivisionError
    with budget.taken(100):
        pass  # an error has given its pixels back


def test_the_memory_of_pictures_before_a_large_one_is_given_back(monkeypatch):
    given: list[int] = []
    monkeypatch.setattr("mmms_plugin.coco.picture_files.release_memory", lambda: given.append(1))
    for pixels, count in ((2**22, 0), (2**22 + 1, 1)):
        with PixelBudget(2**23).taken(pixels):
            assert len(given) == count


def test_decoding_takes_from_the_budget_of_the_process(tmp_path, monkeypatch):
    """Eight threads that open pictures of 60 pixels, with a budget of 100, hold one at a time; headers need none."""
    monkeypatch.setattr("mmms_plugin.coco.picture_files.BUDGET", PixelBudget(100))
    path, opened = tmp_path / "a.png", []
    Image.new("L", (10, 6)).save(path)

    def read(number: int) -> int:
        with picture_file(path) as file, opened_picture(file, decode=True) as picture:
            assert picture.size == (10, 6)
            opened.append(number)
            threading.Event().wait(0.001)
            count = len(opened)
            opened.remove(number)
            return count

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(24))) == [1] * 24
    with picture_file(path) as one, picture_file(path) as two, opened_picture(one), opened_picture(two):
        pass


def test_pillow_s_settings_come_back_when_the_last_thread_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path = tmp_path / "a.png"
    Image.new("L", (10, 6)).save(path)
    with picture_file(path) as file, opened_picture(file):
        with picture_file(path) as other, opened_picture(other):
            assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == (None, False)
        assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == (None, False)
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == (7, True)
