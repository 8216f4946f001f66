"""Pictures by their headers: what OpenCV would make of them, damage, equal files, and the listing of a folder."""

from __future__ import annotations

import struct
import sys
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile

from mmms_plugin.data.pictures import Picture, in_threads, look_at, look_at_all, same_content
from tests.data.small_sets import picture

KINDS = ("jpg", "png", "webp", "bmp", "tif", "gif", "ppm")


def turned(path: Path, orientation: int) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    picture(1, (40, 30)).save(path, exif=tags)


@pytest.mark.parametrize("kind", ["jpg", "tif"])
def test_sizes_are_those_that_opencv_decodes(kind, tmp_path):
    """With every EXIF orientation, and two that do not exist."""
    for orientation in range(10):
        path = tmp_path / f"{orientation}.{kind}"
        turned(path, orientation)
        decoded = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        seen = look_at(path)
        assert (seen.problem, seen.size) == ("", decoded.shape[1::-1]), orientation
        if kind == "jpg":
            assert seen.stored_size == (40, 30), orientation
            assert seen.orientation == (orientation if 1 <= orientation <= 8 else 1)


def test_a_sound_picture_of_every_kind(tmp_path):
    """As is, and with bytes behind its end, which decoders pass over."""
    for kind in KINDS:
        path = tmp_path / f"a.{kind}"
        picture(2).save(path)
        seen = look_at(path, decode=True)
        assert (seen.problem, seen.size, seen.bytes, seen.deep) == ("", (40, 30), path.stat().st_size, False), kind
        path.write_bytes(path.read_bytes() + bytes(30))
        assert look_at(path) == Picture(
            size=(40, 30), bytes=path.stat().st_size, mode="P" if kind == "gif" else "RGB"
        ), kind
    picture(3).save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[picture(4)])
    assert look_at(tmp_path / "phone.jpg", decode=True).problem == ""


def test_sound_pictures_of_common_kinds_are_not_decoded(tmp_path, monkeypatch):
    """It would take most of the time; one that continues well behind its end mark is decoded."""

    def refuse(*arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr(cv2, "imdecode", refuse)
    for kind in ("jpg", "png", "webp", "bmp"):
        path = tmp_path / f"a.{kind}"
        picture(2).save(path)
        assert look_at(path).size == (40, 30)
        with pytest.raises(AssertionError):
            look_at(path, decode=True)
    path = tmp_path / "a.jpg"
    content = path.read_bytes()
    path.write_bytes(content + bytes(62))
    assert look_at(path).size == (40, 30)
    path.write_bytes(content + bytes(63))
    with pytest.raises(AssertionError):
        look_at(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_that_ends_too_early(kind, tmp_path):
    """By one byte already, in formats that state their length."""
    path = tmp_path / f"a.{kind}"
    picture(2).save(path)
    whole = path.read_bytes()
    least = {"webp": 1, "bmp": 1, "jpg": 40, "png": 40, "tif": 400}.get(kind, 200)
    for lost in (least, 500):
        path.write_bytes(whole[:-lost])
        seen = look_at(path)
        if kind == "gif" and not seen.problem:
            continue  # decoders of some versions fill the rest
        assert seen.problem == ("picture-unreadable" if kind == "webp" else "picture-truncated"), (lost, seen)
        assert seen.detail
        assert ("OpenCV" in seen.detail) == (kind in ("tif", "gif", "ppm")), "Pillow tells more of common kinds"
        assert (seen.size, seen.bytes) == ((0, 0), len(whole) - lost)


def test_damage_inside_of_a_file_is_found_by_decoding(tmp_path):
    path = tmp_path / "a.png"
    picture(2, (200, 200)).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert look_at(path).problem == ""
    seen = look_at(path, decode=True)
    assert (seen.problem, seen.size) == ("picture-unreadable", (0, 0))
    assert [look.problem for look in look_at_all([path, path], "x", True)] == ["picture-unreadable"] * 2
    assert [look.problem for look in look_at_all([path], "x")] == [""]


def test_what_is_not_a_picture(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_bytes(b"<html>")
    (tmp_path / "folder.png").mkdir()
    assert look_at(tmp_path / "gone.png") == Picture("picture-missing")
    assert look_at(tmp_path / "empty.png") == Picture("picture-empty")
    text = look_at(tmp_path / "text.png")
    assert text == Picture("picture-unreadable", "not a known picture format", bytes=6)
    assert look_at(tmp_path / "folder.png") == Picture("picture-unreadable", "a folder, not a file")


def test_a_decoder_s_complaint_is_cut_to_a_line(tmp_path, monkeypatch):
    def fail(message: str) -> None:
        def raising(file: object, formats: object) -> None:
            raise ValueError(message)

        monkeypatch.setattr("PIL.Image.open", raising)

    (tmp_path / "a.png").write_bytes(b"1")
    for message, detail in ((f"\n{'x' * 81}\nmore", "x" * 80), ("", "ValueError")):
        fail(message)
        assert look_at(tmp_path / "a.png").detail == detail


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(("width", "problem"), [(2**15, ""), (2**15 + 1, "picture-too-large")])
def test_the_limit_of_pixels(width, problem, tmp_path, monkeypatch):
    """Pillow's own, and its warning of large pictures, are set aside and come back."""
    header = struct.pack(">IIBBBBB", width, 2**15, 8, 2, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND")
    )
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (seen,) = look_at_all([path], "looking", max_pixels=2**30)
    assert seen.problem == problem
    assert seen.size == ((0, 0) if problem else (width, 2**15))
    assert seen.detail == (f"{width} x 32768 px; --max-pixels allows 1,073,741,824 in all" if problem else "")
    reason = "too large: 32768 x 32768 px; --max-pixels allows 89,478,485 in all"
    assert problem or look_at(path, decode=True).reason == reason
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == (1000, True)
    assert cv2.utils.logging.setLogLevel(before) == cv2.utils.logging.LOG_LEVEL_ERROR


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("name", [b"IDAT", b"IEND"])
def test_a_chunk_that_states_more_bytes_than_there_are(name, decode, tmp_path, monkeypatch):
    """OpenCV would make room for 2 GB."""
    monkeypatch.setattr(cv2, "imdecode", None)
    path = tmp_path / "a.png"
    picture(2).save(path)
    data = bytearray(path.read_bytes())
    at = data.index(name)
    data[at - 4 : at] = (2**31 - 1).to_bytes(4, "big")
    path.write_bytes(data)
    seen = look_at(path, decode)
    detail = f"a chunk of 2,147,483,647 bytes, of which {len(data) - at - 8:,} are there"
    assert (seen.problem, seen.detail) == ("picture-truncated", detail)


@pytest.mark.parametrize("decode", [False, True])
def test_a_jpeg_of_very_many_scans(decode, tmp_path, monkeypatch):
    """Each is one pass over the whole picture: 100 KB could keep a decoder busy for minutes."""
    path = tmp_path / "a.jpg"
    picture(2, (100, 100)).save(path, progressive=True)
    data = path.read_bytes()
    scans = data.count(b"\xff\xda")
    last = data[data.rindex(b"\xff\xda") : -2]
    path.write_bytes(data[:-2] + last * (50 - scans) + data[-2:])
    assert look_at(path, decode, max_pixels=10_000).problem == ""
    path.write_bytes(data[:-2] + last * (51 - scans) + data[-2:])
    monkeypatch.setattr(cv2, "imdecode", None)
    seen = look_at(path, decode, max_pixels=10_000)
    assert (seen.problem, seen.detail) == ("picture-unreadable", "51 scans of 10,000 pixels")
    monkeypatch.undo()
    assert look_at(path, decode).problem == "", "a small one may have many"


def test_truncated_pictures_are_found_where_a_program_lets_pillow_load_them(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    picture(2).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-100])
    (seen,) = look_at_all([tmp_path / "a.jpg"], "looking")
    assert seen.problem == "picture-truncated"


def test_pillow_s_warnings_are_not_shown(tmp_path):
    picture(2).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    with pytest.warns(UserWarning, match="EXIF"):
        assert look_at(tmp_path / "a.jpg").problem == ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (seen,) = look_at_all([tmp_path / "a.jpg"], "looking")
    assert (seen.problem, seen.orientation) == ("", 1)


def test_16_bits_a_channel_are_seen(tmp_path):
    for name, bits, shape in (
        ("grey.png", 16, (30, 40)), ("colour.png", 16, (30, 40, 3)), ("grey.tif", 16, (30, 40)),
        ("colour.tif", 16, (30, 40, 3)), ("grey8.png", 8, (30, 40)), ("colour8.png", 8, (30, 40, 3)),
        ("grey8.tif", 8, (30, 40)), ("colour8.tif", 8, (30, 40, 3)),
    ):  # fmt: skip
        cv2.imwrite(str(tmp_path / name), np.full(shape, 200, np.uint16 if bits == 16 else np.uint8))
        seen = look_at(tmp_path / name)
        assert (seen.problem, seen.deep, seen.size) == ("", bits == 16, (40, 30)), name
    Image.fromarray(np.zeros((30, 40), np.int32)).save(tmp_path / "32.tif")
    assert look_at(tmp_path / "32.tif").deep or look_at(tmp_path / "32.tif").problem


def test_equal_files_are_grouped(tmp_path, monkeypatch):
    """By their whole content: these differ after the first 16 KiB, or have another length, and are not read then."""
    long = bytes(range(256)) * 8192  # 2 MiB
    contents = [long, long[:-1] + b"\0", long, b"short", b"other", b"short", long, b"", b"short!", b"other"]
    paths = [tmp_path / str(i) for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    sizes = [len(content) for content in contents]
    opened: list[str] = []
    plain = open

    def counted(path: Path, mode: str) -> object:
        opened.append(path.name)
        return plain(path, mode)

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", counted)
        assert sorted(same_content(paths, sizes)) == [[0, 2, 6], [3, 5], [4, 9]]
    assert sorted(opened) == sorted("01234569" * 2)
    sizes[3] = 0  # left out
    assert sorted(same_content(paths, sizes)) == [[0, 2, 6], [4, 9]]
    paths[4].unlink()
    paths[9].unlink()
    assert same_content(paths, sizes) == [[0, 2, 6]], "files that are gone are not equal"
    assert same_content([], []) == []


@pytest.mark.parametrize(("count", "terminal", "line"), [(1999, False, ""), (2000, False, "looking: 2000 files\n")])
def test_many_files_are_announced(count, terminal, line, capsys):
    paths = [Path(str(i)) for i in range(count)]
    assert list(in_threads(str, paths, "looking")) == [str(i) for i in range(count)]
    assert capsys.readouterr().err == line


def test_a_terminal_gets_a_progress_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    paths = [Path(str(i)) for i in range(2000)]
    assert list(in_threads(str, paths, "looking at pictures")) == [str(i) for i in range(2000)]
    shown = capsys.readouterr()
    assert "looking at pictures" in shown.err
    assert "2000 files" not in shown.err
    assert shown.out == ""
    assert list(in_threads(str, paths[:1999], "few")) == [str(i) for i in range(1999)]
    assert capsys.readouterr().err == ""
