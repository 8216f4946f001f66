"""The reader gives what ``torch.load`` gives for plain tensors and containers, or refuses the file in time."""

from __future__ import annotations

import io
import struct
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmms_plugin.errors import UserError
from mmms_plugin.weights.reader import read
from tests.weights.small import changed, saved

ONLY_IN_ZIPS = [
    torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
]  # fmt: skip
DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex128, torch.complex64,
]  # fmt: skip


def tensors() -> dict[str, Any]:
    base = torch.arange(60.0)
    attributed, parameter = torch.ones(3), nn.Parameter(torch.ones(2))
    attributed.note = parameter.note = ["x"]  # type: ignore[attr-defined]
    return {
        **{str(dtype): torch.arange(24.0).view(2, 3, 4).to(dtype) for dtype in DTYPES},
        "part": base[7:31], "transposed": base.view(6, 10).t(), "strided": base.as_strided((3, 4), (2, 5), 3),
        "expanded": torch.ones(1).expand(4, 5), "shared": base, "empty": torch.zeros(0, 3), "one": torch.tensor(3.0),
        "parameter": nn.Parameter(torch.ones(3)), "frozen": nn.Parameter(torch.ones(3), False), "note": attributed,
        "parameter with a note": parameter, "leaf": torch.ones(3, requires_grad=True),
        "conjugate": (torch.ones(3) * 1j).conj(), "negative": torch._neg_view(torch.ones(3)),
        "state": nn.Sequential(nn.Linear(2, 2), nn.BatchNorm2d(2)).state_dict(),
    }  # fmt: skip


PLAIN = [
    1, 2**70, -5, 300, 70_000, 1.5, None, True, "é", b"ab\xff", b"", bytearray(b"x"), bytearray(), {1, 2}, 1j,
    torch.Size([1, 2]), torch.device("cpu"), torch.float32, torch.strided, Counter("aab"), (1, (2,)), {"a": {}},
]  # fmt: skip


def assert_same(value: Any, wanted: Any) -> None:
    assert type(value) is type(wanted)
    assert getattr(value, "__dict__", {}) == getattr(wanted, "__dict__", {})
    if isinstance(value, Tensor):
        for what in ("dtype", "shape", "requires_grad"):
            assert getattr(value, what) == getattr(wanted, what)
        for what in ("stride", "storage_offset", "is_conj", "is_neg"):
            assert getattr(value, what)() == getattr(wanted, what)()
        assert value.untyped_storage().tolist() == wanted.untyped_storage().tolist()
    elif isinstance(value, dict):
        assert list(value) == list(wanted)
        for key, item in value.items():
            assert_same(item, wanted[key])
    elif isinstance(value, list | tuple):
        for item, wanted_item in zip(value, wanted, strict=True):
            assert_same(item, wanted_item)
    else:
        assert value == wanted


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_all_that_torch_saves_is_read_as_torch_reads_it(zipped, mapped, tmp_path):
    path, content = tmp_path / "in.pth", {"tensors": tensors(), "plain": PLAIN}
    if zipped:
        content["more"] = {str(dtype): torch.arange(24.0).to(dtype) for dtype in ONLY_IN_ZIPS}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with torch.serialization.safe_globals([bytes]):
        wanted = torch.load(path, weights_only=True)
    loaded = read(path, mapped=mapped)
    assert_same(loaded, wanted)
    assert loaded["tensors"]["state"]._metadata == wanted["tensors"]["state"]._metadata
    before = path.read_bytes()
    loaded["tensors"]["part"][0] = 5  # one storage, which is not the file
    assert loaded["tensors"]["shared"][7] == 5
    assert path.read_bytes() == before


@pytest.mark.parametrize("place", ["meta", torch.device("meta"), lambda storage, location: None, {"cpu": "meta"}])
@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_go_where_map_location_says(place, zipped, tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "in.pth", _use_new_zipfile_serialization=zipped)
    value = read(tmp_path / "in.pth", map_location=place)["a"]
    assert (value.device.type, value.shape) == ("cpu" if callable(place) else "meta", (3,))


def test_files_of_big_endian_machines(tmp_path):
    values = {"f": torch.arange(5.0), "l": torch.arange(5), "c": torch.ones(2) * (1 + 2j)}

    def swap(entries: dict[str, bytes]) -> None:
        entries["archive/byteorder"] = b"big"
        for number, size in enumerate((4, 8, 4)):
            data = entries[f"archive/data/{number}"]
            entries[f"archive/data/{number}"] = b"".join(data[i : i + size][::-1] for i in range(0, len(data), size))

    (tmp_path / "in.pth").write_bytes(changed(saved(values), swap))
    assert_same(read(tmp_path / "in.pth"), values)


def two_directories(first: bytes, second: bytes) -> bytes:
    """Two zips one after the other, each with a directory of its own; the locator at the end names the first's."""
    end = second.rindex(b"PK\x06\x07")
    (place,) = struct.unpack_from("<Q", first, first.rindex(b"PK\x06\x07") + 8)
    return (
        first[: first.rindex(b"PK\x06\x07")]
        + second[:end]
        + struct.pack("<4sIQI", b"PK\x06\x07", 0, place, 1)
        + second[end + 20 :]
    )


def test_a_zip_of_two_directories_is_refused(tmp_path):
    """Python's zipfile and torch follow different ones: what the one checks is not what the other loads."""
    first, second = saved({"a": torch.zeros(4)}), saved({"a": torch.ones(4)})
    (tmp_path / "in.pth").write_bytes(two_directories(first, second))
    with pytest.raises(UserError, match="two places for its directory"):
        read(tmp_path / "in.pth")


def directory_fields(data: bytes) -> list[tuple[int, int]]:
    """Place and size of every number in the zip's headers, directory and end."""
    headers = {
        b"PK\x03\x04": (4, 6, 8, 10, 12, -14, -18, -22, 26, 28),
        b"PK\x01\x02": (4, 6, 8, 10, 12, 14, -16, -20, -24, 28, 30, 32, 34, 36, -38, -42),
        b"PK\x06\x06": (-4, -8, 12, 14, -16, -20, -24, -28, -32, -36, -40, -44, -48, -52),
        b"PK\x06\x07": (-4, -8, -12, -16),
        b"PK\x05\x06": (4, 6, 8, 10, -12, -16, 20),
    }
    fields = []
    for magic, offsets in headers.items():
        place = data.find(magic)
        while place >= 0:
            fields += [(place, 4)] + [(place + abs(offset), 2 if offset > 0 else 4) for offset in offsets]
            place = data.find(magic, place + 1)
    return fields


def test_every_field_of_a_zip_is_right_or_does_not_matter(tmp_path):
    content = {"a": torch.arange(6.0), "b": torch.arange(3)}
    data, path = saved(content), tmp_path / "in.pth"
    start, refused = time.process_time(), 0
    fields = directory_fields(data)
    for place, size in fields:
        (number,) = struct.unpack_from("<H" if size == 2 else "<I", data, place)
        for other in (0, number + 1, number ^ 64, 256**size - 1):
            other %= 256**size
            path.write_bytes(data[:place] + other.to_bytes(size, "little") + data[place + size :])
            try:
                loaded = read(path)
            except UserError:
                refused += 1
            else:
                assert_same(loaded, content)
    assert refused > len(fields)
    assert time.process_time() - start < 40


def test_a_zip_of_other_makers(tmp_path):
    """Entries that are flagged as followed by their checksum, no ZIP64 part, no alignment."""
    content, stream = {"a": torch.arange(6.0)}, io.BytesIO()

    class Unseekable(io.RawIOBase):
        write = staticmethod(stream.write)  # type: ignore[assignment]

        def writable(self) -> bool:
            return True

    with zipfile.ZipFile(io.BytesIO(saved(content))) as old, zipfile.ZipFile(Unseekable(), "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    (tmp_path / "in.pth").write_bytes(stream.getvalue())
    assert_same(read(tmp_path / "in.pth"), content)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def complex_key(number: int) -> bytes:
    """All of these have the same hash: that of the real part plus 1000003 times that of the imaginary part."""
    return b"h\x00" + b"G" + struct.pack(">d", -1000003.0 * number) + b"G" + struct.pack(">d", number) + b"\x86RN"


def huge_key(number: int) -> bytes:
    """Multiples of 2^61 - 1 have the hash 0."""
    data = (number * (2**61 - 1)).to_bytes(10, "little")
    return b"\x8a" + bytes([len(data)]) + data + b"N"


def fraction_key(number: int) -> bytes:
    return b"G" + struct.pack(">d", number + 0.5) + b"N"


@pytest.mark.parametrize("key", [complex_key, huge_key, fraction_key])
def test_keys_that_may_collide_are_few(key, tmp_path):
    def program(count: int) -> bytes:
        keys = b"".join(key(number) for number in range(1, count + 1))
        return b"\x80\x02cbuiltins\ncomplex\nq\x00}(" + keys + b"u."

    for count in (4_000, 20_000):
        pickled = program(count)
        (tmp_path / "in.pth").write_bytes(changed(saved(), lambda e, p=pickled: e.update({"archive/data.pkl": p})))
        start = time.process_time()
        if count == 4_000:
            assert len(read(tmp_path / "in.pth")) == count
        else:
            with pytest.raises(UserError, match="its keys hold more than 20,000 values"):
                read(tmp_path / "in.pth")
        assert time.process_time() - start < 40


COPIES = {
    "bytes": b"c_codecs\nencode\nq\x01" + text("x" * 10_000) + text("latin1") + b"\x86q\x02" + b"h\x01h\x02R" * 2_000,
    "sets": b"cbuiltins\nset\nq\x01](" + text("a") * 10_000 + b"e\x85q\x02" + b"h\x01h\x02R" * 2_000,
    "attributes": b"ccollections\nOrderedDict\n)R}(" + b"".join(text(f"k{i}") + b"N" for i in range(2_000))
    + b"uq\x01" + b"b" + b"h\x01b" * 2_000,
}  # fmt: skip


@pytest.mark.parametrize("name", COPIES)
def test_values_are_not_copied_without_end(name, tmp_path):
    pickled = b"\x80\x02](" + COPIES[name] + b"e."
    (tmp_path / "in.pth").write_bytes(changed(saved(), lambda e: e.update({"archive/data.pkl": pickled})))
    with pytest.raises(UserError, match="repeat the values of the file many times"):
        read(tmp_path / "in.pth")


def nested(depth: int, slot: int) -> bytes:
    """A set of a set and of a tuple of that set, and so on. Two such are compared in 2 ** depth steps."""
    pickled = b"h\x00](" + text("a") + b"e\x85R"
    return pickled + b"q\x01h\x00](h\x01h\x01\x85e\x85R" * depth + b"q" + bytes([slot])


FEW = (
    b"((" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"M\xf4\x01tQ"
    b"K\x00\x8a\x06\x00\x00\x00\x00\x00\x01K\x02\x86K\x00K\x00\x86\x89Nt"
)  # fmt: skip
ENDLESS = {
    "equal sets": b"cbuiltins\nfrozenset\nq\x00" + nested(40, 2) + nested(40, 3) + b"}(h\x02Nh\x03Nu.",
    **{
        kind: b"c" + kind.replace(" ", "\n").encode() + b"\nctorch._utils\n_rebuild_tensor_v2\n" + FEW + b"R\x85R."
        for kind in ("collections Counter", "collections OrderedDict", "torch Size")
    },
    "counted bytes": b"ccollections\nCounter\ncbuiltins\nbytearray\n" + text("x" * 100) + b"\x85R\x85R.",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_few_bytes_do_not_take_endless_time(name, tmp_path):
    pickled = b"\x80\x02" + ENDLESS[name]
    (tmp_path / "in.pth").write_bytes(changed(saved(), lambda e: e.update({"archive/data.pkl": pickled})))
    with pytest.raises(UserError, match="more than tensors and plain containers"):
        read(tmp_path / "in.pth")


def test_numbers_as_keys_are_small_or_few(tmp_path):
    """A number is its own hash: half a million of them, chosen to walk past all others, took minutes."""
    for step, count, fits in ((1, 60_000, True), (2**17, 20_000, True), (2**17, 20_010, False)):
        keys = b"".join(b"\x8a\x05" + (number * step).to_bytes(5, "little") + b"N" for number in range(count))
        pickled = b"\x80\x02}(" + keys + b"u."
        (tmp_path / "in.pth").write_bytes(changed(saved(), lambda e, p=pickled: e.update({"archive/data.pkl": p})))
        if fits:
            assert len(read(tmp_path / "in.pth")) == count
        else:
            with pytest.raises(UserError, match="its keys hold more than 20,000 values"):
                read(tmp_path / "in.pth")


@pytest.mark.parametrize(("count", "fits"), [(150_000, True), (150_001, False)])
def test_no_more_tensors_are_made_than_a_checkpoint_has(count, fits, tmp_path):
    """One costs three operations, and the time of thirty."""
    tensors = b"h\x00h\x01R" * count
    pickled = b"\x80\x02(ctorch\nSize\nq\x00" + b"(K\x01K\x02t\x85q\x01" + tensors + b"t."
    (tmp_path / "in.pth").write_bytes(changed(saved(), lambda e: e.update({"archive/data.pkl": pickled})))
    if fits:
        assert read(tmp_path / "in.pth")[2:] == (torch.Size((1, 2)),) * count
    else:
        with pytest.raises(UserError, match="makes more than 150,000 objects"):
            read(tmp_path / "in.pth")


@pytest.mark.parametrize("metadata", [5, {"": 5}, {"": {"version": "x"}}, [{}]])
def test_metadata_that_load_state_dict_cannot_use_is_refused(metadata, tmp_path):
    state = torch.nn.BatchNorm2d(4).state_dict()
    state._metadata = metadata
    torch.save(dict(state_dict=state), tmp_path / "in.pth")
    with pytest.raises(UserError, match="its _metadata is not one of a state dict"):
        read(tmp_path / "in.pth")


def test_attributes_hide_no_methods(tmp_path):
    pickled = b"\x80\x02ccollections\nOrderedDict\n)R}(" + text("items") + b"K\x05" + text("note") + text("x") + b"ub."
    (tmp_path / "in.pth").write_bytes(changed(saved(), lambda e: e.update({"archive/data.pkl": pickled})))
    loaded = read(tmp_path / "in.pth")
    assert (list(loaded.items()), loaded.note) == ([], "x")


def test_the_file_may_go_when_tensors_are_not_mapped(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(1000.0)}, tmp_path / "in.pth")
    value = read(tmp_path / "in.pth", mapped=False)["a"]
    (tmp_path / "in.pth").write_bytes(b"")
    assert torch.equal(value, torch.arange(1000.0))
