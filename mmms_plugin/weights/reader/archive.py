"""The zip of ``torch.save``: one directory, read once, with every byte accounted for.

Readers of zips may follow different directories (that of the ZIP64 locator or the last one in the file), ignore case in
names and skip checksums. Here a file is refused unless all readers agree: no entry is compressed, encrypted or named
twice, entries follow each other without gaps, and every checksum is right.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap
from struct import Struct, error, unpack_from

MAX_ENTRIES = 50_000
NEWEST = 63  # newest version of the zip format: 6.3
LOCAL = Struct("<4s5H3I2H")  # in front of every entry
CENTRAL = Struct("<4s6H3I5H2I")  # an entry of the directory
END64 = Struct("<4sQ2H2I4Q")
LOCATOR = Struct("<4sIQI")  # the place of END64
END = Struct("<4s4H2IH")
NO_GAP: tuple[int, ...] = (0,)
DESCRIPTORS = (0, 12, 16, 20, 24)  # bytes after an entry that repeat its checksum and sizes, if flagged
FLAG_ENCRYPTED, FLAG_DESCRIPTOR, FLAG_UTF8 = 0x1, 0x8, 0x800
STATED_ELSEWHERE = 0xFFFFFFFF  # the number stands in the ZIP64 part
BLOCK = 1 << 22
TWO_PLACES = "damaged: a zip with two places for its directory, or bytes in front of it"


class Refusal(ValueError):
    """Why a checkpoint is not read; the message completes 'checkpoint x.pth: '."""


@dataclass(frozen=True)
class Entry:
    """One entry as the directory has it; ``place`` is where its header begins."""

    raw_name: bytes
    name: str
    flags: int
    method: int  # of compression, 0 for none
    crc: int
    size: int
    place: int


def read_archive(data: mmap) -> dict[str, tuple[int, int]]:
    """Place and size of every file in a checkpoint, such as ``data.pkl`` and ``data/0``, below its root folder.

    Raises: Refusal if the zip is damaged or ambiguous, or if ``torch.save`` did not write it.
    """
    start, end, count = _find_directory(data)
    try:
        entries = list(_entries(data, start, end, count))
    except error as damage:
        raise Refusal("damaged or cut off: the directory of the zip is too short; fetch it again") from damage
    _check_names(entries)
    if any(entry.method for entry in entries) or sum(entry.size for entry in entries) > len(data):
        raise Refusal("a zip whose entries unpack to more than the file, not one of torch.save")
    places = _places(data, entries, start)
    for entry in entries:
        _check_sum(data, entry, places[entry.name])
    root = entries[0].name.partition("/")[0]
    return {
        entry.name.removeprefix(f"{root}/"): (places[entry.name], entry.size)
        for entry in entries
        if entry.name.startswith(f"{root}/")
    }


def _find_directory(data: mmap) -> tuple[int, int, int]:
    """Where the directory begins and ends, and its number of entries; all parts of the zip's end must agree."""
    last = len(data) - END.size
    if last < 0 or data[last : last + 4] != b"PK\x05\x06":
        if 0 <= data.rfind(b"PK\x05\x06") < last:
            raise Refusal("damaged: bytes behind the end of the zip; fetch it again")
        raise Refusal("damaged or cut off (the zip has no end); fetch it again")
    _, disk, first_disk, here, count, size, start, comment = END.unpack_from(data, last)
    if disk or first_disk or here != count or comment:
        raise Refusal("damaged: bytes behind the end of the zip, or a zip in several parts; fetch it again")
    end = last
    if last >= LOCATOR.size and data[last - LOCATOR.size :][:4] == b"PK\x06\x07":
        end = last - LOCATOR.size - END64.size
        _, disk, place, disks = LOCATOR.unpack_from(data, last - LOCATOR.size)
        if place != end or disk or disks > 1:
            raise Refusal(TWO_PLACES)
        magic, length, *_, disk, first_disk, here64, count64, size64, start64 = END64.unpack_from(data, end)
        if magic != b"PK\x06\x06" or length != END64.size - 12 or disk or first_disk or here64 != count64:
            raise Refusal(TWO_PLACES)
        for short, long, most in ((count, count64, 0xFFFF), (size, size64, None), (start, start64, None)):
            if short not in (long, most or STATED_ELSEWHERE):
                raise Refusal(TWO_PLACES)
        count, size, start = count64, size64, start64
    if start + size != end:
        raise Refusal("damaged: a zip with bytes in front of it, or whose entries overlap its directory")
    if not 0 < count <= MAX_ENTRIES:
        raise Refusal(f"a zip of {count} entries; allowed are 1 to {MAX_ENTRIES}")
    return start, end, count


def _entries(data: mmap, start: int, end: int, count: int) -> Iterator[Entry]:
    for _ in range(count):
        magic, _, version, flags, method, _, _, crc, packed, size, *lengths, disk, _, _, place = CENTRAL.unpack_from(
            data, start
        )
        name_end = start + CENTRAL.size + lengths[0]
        extra, start = data[name_end : name_end + lengths[1]], name_end + lengths[1] + lengths[2]
        if magic != b"PK\x01\x02" or start > end:
            raise Refusal("damaged or cut off: an entry of the zip's directory is missing; fetch it again")
        if version & 0xFF > NEWEST:
            raise Refusal(f"damaged or cut off (zip file version {(version & 0xFF) / 10:.1f}); fetch it again")
        raw = data[name_end - lengths[0] : name_end]
        name = raw.decode("utf-8" if flags & FLAG_UTF8 else "cp437", "replace")
        size, packed, place = _stated(extra, [size, packed, place])
        if b"\0" in raw or flags & FLAG_ENCRYPTED or disk or (packed != size and not method):
            raise Refusal(f"damaged: a zip whose entry {name!r} is encrypted or states two sizes")
        yield Entry(raw, name, flags, method, crc, size, place)
    if start != end:
        raise Refusal("damaged: a zip with bytes between its directory and its end")


def _stated(extra: bytes, numbers: list[int]) -> list[int]:
    """Sizes and place of an entry; those that need 64 bits are taken from its extra field."""
    if STATED_ELSEWHERE not in numbers:
        return numbers
    while len(extra) >= 4:
        kind, length = unpack_from("<HH", extra)
        if kind == 1:
            longer = iter(unpack_from(f"<{length // 8}Q", extra, 4))
            return [next(longer, number) if number == STATED_ELSEWHERE else number for number in numbers]
        extra = extra[4 + length :]
    return numbers


def _check_names(entries: list[Entry]) -> None:
    seen: set[str] = set()
    for entry in entries:
        if entry.name.lower() in seen:
            raise Refusal(f"damaged: a zip with two entries {entry.name!r}")
        seen.add(entry.name.lower())
    if any(entry.name.endswith("/constants.pkl") for entry in entries):
        raise Refusal("a TorchScript archive holds a program; save its state_dict() instead")


def _places(data: mmap, entries: list[Entry], directory: int) -> dict[str, int]:
    """Where the bytes of each entry begin; they and their headers fill the file up to the directory."""
    places: dict[str, int] = {}
    expected, gaps = 0, NO_GAP
    if any(entry.place + LOCAL.size > len(data) for entry in entries):
        raise Refusal("damaged or cut off: a zip whose directory points behind its end; fetch it again")
    for entry in sorted(entries, key=lambda entry: entry.place):
        magic, *_, name_length, extra_length = LOCAL.unpack_from(data, entry.place)
        start = entry.place + LOCAL.size + name_length
        if magic != b"PK\x03\x04" or data[start - name_length : start] != entry.raw_name:
            raise Refusal(f"damaged: a zip whose entry {entry.name!r} is not where its directory says")
        _check_gap(entry.place - expected, gaps)
        places[entry.name] = start + extra_length
        expected = places[entry.name] + entry.size
        gaps = DESCRIPTORS if entry.flags & FLAG_DESCRIPTOR else NO_GAP
    _check_gap(directory - expected, gaps)
    return places


def _check_gap(gap: int, allowed: tuple[int, ...]) -> None:
    if gap < 0:
        raise Refusal("damaged: a zip whose entries overlap")
    if gap not in allowed:
        raise Refusal("damaged: a zip with bytes in front of it or between its entries")


def _check_sum(data: mmap, entry: Entry, place: int) -> None:
    total, end = 0, place + entry.size
    with memoryview(data) as view:
        for block in range(place, end, BLOCK):
            total = zlib.crc32(view[block : min(block + BLOCK, end)], total)
    if total != entry.crc:
        raise Refusal(f"damaged: the checksum of {entry.name!r} is wrong; fetch it again")
