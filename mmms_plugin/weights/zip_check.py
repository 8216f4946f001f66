"""The zip that ``torch.save`` writes, checked from end to end before torch maps it: torch checks neither.

Torch looks names up without regard to upper and lower case, takes a storage's size from the pickle and never computes a
checksum. Here: no entry is compressed, encrypted, named twice or overlaps another, both places that state a name agree,
and every checksum is right.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

MAX_ENTRIES = 50_000
LOCAL = struct.Struct("<4s5H3I2H")  # the header in front of every entry
END = struct.Struct("<4s4H2IH")  # the record that ends a zip
BLOCK = 1 << 20


class ZipError(ValueError):
    """What is wrong with a zip; the message completes 'checkpoint x.pth: '."""


def read_zip(path: Path) -> tuple[bytes, dict[str, int]]:
    """``data.pkl`` of a checkpoint, and the size in bytes of every storage by its key.

    Raises: ZipError; OSError if the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        entries = _entries(file, size)
        root = entries[0].orig_filename.partition("/")[0]  # torch takes it from the first name, too
        for entry in entries:
            _check_sum(file, entry)
        names = {entry.orig_filename: entry for entry in entries}
        pickled = names.get(f"{root}/data.pkl")
        if pickled is None:
            raise ZipError("damaged or not a checkpoint (no data.pkl in it)")
        file.seek(_data_start(file, pickled))
        data = file.read(pickled.file_size)
    prefix = f"{root}/data/"
    return data, {name.removeprefix(prefix): e.file_size for name, e in names.items() if name.startswith(prefix)}


def _entries(file: BinaryIO, size: int) -> list[zipfile.ZipInfo]:
    """The entries in the order of the directory, all in their place."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries, directory = archive.infolist(), archive.start_dir
    except OSError:
        raise
    except Exception as error:  # zipfile raises half a dozen types for damaged directories
        raise ZipError(f"damaged or cut off ({error or type(error).__name__}); fetch it again") from error
    file.seek(size - END.size)
    if file.read(4) != b"PK\x05\x06":  # with a comment behind it, readers may disagree where the directory is
        raise ZipError("damaged: bytes behind the end of the zip; fetch it again")
    if any(entry.orig_filename.endswith("/constants.pkl") for entry in entries):
        raise ZipError("a TorchScript archive holds a program; save its state_dict() instead")
    if not 0 < len(entries) <= MAX_ENTRIES:
        raise ZipError(f"a zip of {len(entries)} entries; allowed are 1 to {MAX_ENTRIES}")
    if any(e.compress_type != zipfile.ZIP_STORED for e in entries) or sum(e.file_size for e in entries) > size:
        raise ZipError("a zip whose entries unpack to more than the file, not one of torch.save")
    _check_names(entries)
    _check_places(file, entries, directory)
    return entries


def _check_names(entries: list[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    for entry in entries:
        name = entry.orig_filename
        if name.lower() in seen:
            raise ZipError(f"damaged: a zip with two entries {name!r}")
        if "\0" in name or entry.flag_bits & 0x1 or entry.compress_size != entry.file_size:
            raise ZipError(f"damaged: a zip whose entry {name!r} is encrypted or states two sizes")
        seen.add(name.lower())


def _check_places(file: BinaryIO, entries: list[zipfile.ZipInfo], directory: int) -> None:
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    ends = [_data_start(file, entry) + entry.file_size for entry in ordered]
    following = [entry.header_offset for entry in ordered[1:]] + [directory]
    if ordered[0].header_offset != 0 or any(end > start for end, start in zip(ends, following, strict=True)):
        raise ZipError("damaged: a zip whose entries overlap")


def _data_start(file: BinaryIO, entry: zipfile.ZipInfo) -> int:
    """Where an entry's bytes begin, read from the header in front of them."""
    file.seek(entry.header_offset)
    header = file.read(LOCAL.size)
    if len(header) < LOCAL.size:
        raise ZipError("damaged or cut off: a zip whose directory points behind its end; fetch it again")
    magic, *_, name_length, extra_length = LOCAL.unpack(header)
    name = file.read(name_length)
    encoding = "utf-8" if entry.flag_bits & 0x800 else "cp437"
    if magic != b"PK\x03\x04" or name != entry.orig_filename.encode(encoding, "replace"):
        raise ZipError(f"damaged: a zip whose entry {entry.orig_filename!r} is not where its directory says")
    return entry.header_offset + LOCAL.size + name_length + extra_length


def _check_sum(file: BinaryIO, entry: zipfile.ZipInfo) -> None:
    file.seek(_data_start(file, entry))
    left, found = entry.file_size, 0
    while left:
        block = file.read(min(left, BLOCK))
        if not block:
            break
        found = zlib.crc32(block, found)
        left -= len(block)
    if left or found != entry.CRC:
        raise ZipError(f"damaged: the checksum of {entry.orig_filename!r} is wrong; fetch it again")
