"""The checkpoint reader at its limits: what lies just inside is read, what lies just outside is refused in one line."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from pickle import encode_long
from pickletools import genops
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save as save_safetensors

from mmms_plugin.errors import UserError
from mmms_plugin.weights.files import Checkpoint, read_checkpoint
from tests.weights.small import changed, saved

A = torch.arange(8.0)


def read(data: bytes, folder: Path, suffix: str = ".pth") -> Checkpoint:
    (folder / f"in{suffix}").write_bytes(data)
    return read_checkpoint(folder / f"in{suffix}")


def refused(data: bytes, folder: Path, suffix: str = ".pth") -> str:
    with pytest.raises(UserError) as caught:
        read(data, folder, suffix)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pickled(program: bytes, **options: Any) -> bytes:
    """A file of one tensor and, beside it, what the operations of a pickle make."""
    data = saved({"state_dict": {"a": A}, "beside": "MARKER"}, **options)
    text = b"X\x06\x00\x00\x00MARKER"
    if options:
        assert data.count(text) == 1
        return data.replace(text, program)
    return changed(data, lambda e: e.update({"archive/data.pkl": e["archive/data.pkl"].replace(text, program)}))


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    data = encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


def nones(count: int) -> bytes:
    """A tuple, which is ``count + 1`` values to hash."""
    return b"(" + b"N" * count + b"t"


def numbers(values: tuple) -> bytes:
    return b"(" + b"".join(number(value) for value in values) + b"t"


def storage(key: str = "0", kind: str = "Float", numel: int = 8) -> bytes:
    return (
        b"(" + text("storage") + f"ctorch\n{kind}Storage\n".encode() + text(key) + text("cpu") + number(numel) + b"tQ"
    )


def tensor(size: tuple, stride: tuple, offset: int, stored: bytes = storage()) -> bytes:
    sides = number(offset) + numbers(size) + numbers(stride)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + stored + sides + b"\x89ccollections\nOrderedDict\n)RtR"


def nested_tuples(depth: int) -> bytes:
    return b")" + b"\x85" * (depth - 1)


def repeated(rest: int) -> bytes:
    """998 times one tuple of 999 values, and others: 998,999 values and ``rest``."""
    return b"(" + nones(999) + b"q\xff" + b"h\xff" * 997 + b"N" * rest + b"t"


def keys(*programs: bytes) -> bytes:
    return b"}(" + b"".join(program + b"N" for program in programs) + b"u"


def pairs(key: bytes) -> bytes:
    return b"ccollections\nOrderedDict\n](](" + key + b"Nee\x85R"


def a_set(item: bytes) -> bytes:
    return b"cbuiltins\nset\n]" + item + b"a\x85R"


MANY, DEEP = (
    "keys hold more than 20,000 values",
    "tuples nested more than 50 deep, or one of more than 1,000,000 values",
)
PROGRAMS: dict[str, tuple[bytes, bytes, str]] = {
    "nested tuples": (nested_tuples(50), nested_tuples(51), DEEP),
    "repeated tuples": (repeated(1001), repeated(1002), DEEP),
    "a key": (b"}" + nones(19_999) + b"Ns", b"}" + nones(20_000) + b"Ns", MANY),
    "keys": (keys(nones(9_999), nones(9_999)), keys(nones(9_999), nones(10_000)), MANY),
    "large number": (keys(nones(19_998), number(2**60 - 1)), keys(nones(19_998), number(2**60)), MANY),
    "negative": (keys(nones(19_998), number(1 - 2**60)), keys(nones(19_998), number(-(2**60))), MANY),
    "number": (keys(nones(19_999), number(1)), keys(nones(19_999), number(2)), MANY),
    "a value is no key": (b"}" + text("k") + nones(20_000) + b"s", b"}" + nones(20_000) + text("v") + b"s", MANY),
    "a set": (a_set(nones(19_999)), a_set(nones(20_000)), MANY),
    "pairs": (pairs(nones(19_999)), pairs(nones(20_000)), MANY),
    "bytearray": (b"cbuiltins\nbytearray\n)R", b"cbuiltins\nbytearray\nN\x85R", "not made of bytes"),
    "encoded bytes": (
        b"c_codecs\nencode\n" + text("a") + text("latin1") + b"\x86R", b"c_codecs\nencode\n" + text("a") + b"\x85R",
        "pickle does not write"),
    "attributes of a dict": (
        b"ccollections\nOrderedDict\n)R}" + text("a") + b"Nsb", b"ccollections\nOrderedDict\n)RNb",
        "a NoneType where a dict is expected"),
    "append": (b"]Na", b"}Na", "items for a dict, where a list is expected"),
    "set item": (b"}NNs", b"]NNs", "items for a list, where a dict is expected"),
    "a pair": (b"(NN\x86t", b"(N\x86t", "its pickle cannot be read at byte"),
    "memo": (b"Nq\xffh\xff\x86", b"Nh\xff\x86", "its pickle cannot be read at byte"),
    "a call": (b"ccollections\nOrderedDict\n)R", b"N)R", "a call of something that is not a function"),
    "arguments": (
        b"ccollections\nOrderedDict\n)R", b"ccollections\nOrderedDict\nNR",
        "a call of something that is not a function"),
    "a parameter": (
        b"ctorch._utils\n_rebuild_parameter\n(" + tensor((8,), (1,), 0) + b"\x89ccollections\nOrderedDict\n)RtR",
        b"ctorch._utils\n_rebuild_parameter\n(N\x89ccollections\nOrderedDict\n)RtR",
        "a NoneType where a tensor is expected"),
    "an object": (b"N", b"cbuiltins\nset\n)\x81", "cannot be read safely: it holds builtins.set"),
    "an object of torch's": (b"N", b"ctorch\nTensor\n)\x81", "cannot be read safely: it holds torch.Tensor"),
    "an object without a class": (b"N", b"N)\x81", "an object without a class"),
    "an object's arguments": (b"N", b"cargparse\nNamespace\nN\x81", "arguments that are not a tuple"),
    "state of a tensor": (b"N", tensor((8,), (1,), 0) + b"}b", "holds a tensor with a state of its own"),
    "storage of two sizes": (storage(), storage(numel=7), "storage 0 has two sizes or types"),
    "storage of two types": (storage(), storage(kind="Int"), "storage 0 has two sizes or types"),
    "storage that is none": (storage(), b"(" + text("module") + b"NNNNtQ", "something that is not a storage"),
    "storage of negative size": (storage(), storage("1", numel=-1), "something that is not a storage"),
    "storage that is not there": (storage(), storage("1"), "storage 1 should have 32 bytes, the file does not hold it"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("case", PROGRAMS)
def test_pickles_at_a_limit(case: str, tmp_path: Path) -> None:
    inside, outside, words = PROGRAMS[case]
    checkpoint = read(pickled(inside), tmp_path)
    assert torch.equal(checkpoint.state["a"], A)
    assert checkpoint.beside == ("beside",)
    assert words in refused(pickled(outside), tmp_path)


def test_as_many_operations_as_are_allowed_and_no_more(tmp_path: Path) -> None:
    """The operations of the file around them, 3 for each of these, are counted, too."""
    data = changed(saved(), lambda e: e.update({"archive/data.pkl": b"\x80\x02" + b"N" * 3_000_000 + b"."}))
    assert "more than 3,000,000 operations" in refused(data, tmp_path)


ALL, SIXTEEN = ((8,), (1,), 0), (1,) * 16
TENSORS: list[tuple[tuple[tuple, tuple, int], tuple[tuple, tuple, int], str]] = [
    (ALL, ((8,), (1,), 1), r"shape \(8,\) reaches behind the 8 values"),
    (((2, 3), (3, 1), 2), ((2, 3), (3, 1), 3), r"shape \(2, 3\) reaches behind"),
    (((2,), (7,), 0), ((2,), (8,), 0), "reaches behind"),
    (((2, 2), (1, 3), 3), ((2, 2), (1, 3), 4), "reaches behind"),
    (((1,), (100,), 7), ((1,), (100,), 8), "reaches behind"),
    (((), (), 7), ((), (), 8), "reaches behind"),
    (((0, 3), (3, 1), 8), ((0, -3), (3, 1), 8), "not made of whole numbers"),
    (((2, 2), (0, 1), 0), ((2, 2), (-1, 1), 7), "not made of whole numbers"),
    (ALL, ((8,), (1,), -1), "not made of whole numbers"),
    ((SIXTEEN, SIXTEEN, 0), ((1,) * 17, (1,) * 17, 0), "a tensor of 17 dimensions; allowed are 16"),
    (ALL, ((8,), (1, 1), 0), "a tensor of 1 dimensions"),
]


@pytest.mark.parametrize(("inside", "outside", "words"), TENSORS, ids=lambda value: str(value)[:40])
def test_tensors_end_where_their_storage_ends(inside, outside, words: str, tmp_path: Path) -> None:
    def file(place: tuple[tuple, tuple, int]) -> bytes:
        program = b"\x80\x02}" + text("a") + tensor(*place) + b"s."
        return changed(saved({"a": A}), lambda e: e.update({"archive/data.pkl": program}))

    assert torch.equal(read(file(inside), tmp_path).state["a"], A.as_strided(*inside))
    with pytest.raises(UserError, match=words):
        read(file(outside), tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_type_and_container_is_read(zipped: bool, tmp_path: Path) -> None:
    types = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
             torch.int8, torch.uint8, torch.bool, torch.complex128, torch.complex64)  # fmt: skip
    state = {str(kind): torch.tensor([0, 1, 1]).to(kind) for kind in types}
    state |= {"turned": torch.arange(6.0).view(2, 3).t(), "large": torch.arange(70_000.0), "none": torch.ones(0, 3)}
    state |= {"uint16": torch.ones(2, dtype=torch.uint16)} if zipped else {}
    state["shared"] = state["turned"]
    plain = {"a": {1, 2}, "b": b"ab", "c": bytearray(b"x"), "d": torch.Size([1, 2]), "e": torch.device("cpu"), "f": 1j,
             "g": Counter("aab"), "h": OrderedDict(a=1), 70: (-1, 300, 70_000, 2**40, 0.5, True, False, None, "猫"),
             "i": torch.float32, "j": frozenset([1]), "k": np.float32(1)}  # fmt: skip
    checkpoint = read(saved({"state_dict": state, **plain}, _use_new_zipfile_serialization=zipped), tmp_path)
    assert list(checkpoint.state) == list(state)
    for key, value in state.items():
        assert checkpoint.state[key].dtype == value.dtype
        assert torch.equal(checkpoint.state[key], value)
    assert checkpoint.beside == tuple(str(key) for key in plain)


OLD = dict(_use_new_zipfile_serialization=False)


def test_views_of_the_older_format_lie_in_their_storage(tmp_path: Path) -> None:
    """``(key, offset, number)`` at the end of a storage's reference, as PyTorch 0.4 and older wrote it."""

    def file(*view: int) -> bytes:
        data, end = saved({"a": A[:3]}, **OLD), b"K\x08Nt"
        assert data.count(end) == 1
        return data.replace(end, b"K\x08(" + text("v") + b"".join(map(number, view)) + b"tt")

    assert read(file(2, 3), tmp_path).state["a"].tolist() == [2, 3, 4]
    assert read(file(5, 3), tmp_path).state["a"].tolist() == [5, 6, 7]
    for view in ((6, 3), (-1, 3), (8, -1), (5,)):
        assert "a part of a storage that lies outside of it" in refused(file(*view), tmp_path)
    assert "reaches behind the 2 values" in refused(file(2, 2), tmp_path)


def test_storages_of_the_older_format_are_those_of_the_tensors(tmp_path: Path) -> None:
    data = saved({"a": A, "b": torch.ones(3)}, **OLD)
    values = data.index(struct.pack("<q", 8) + struct.pack("<f", 0)), data.index(struct.pack("<q", 3))
    start, end = data.rindex(b"\x80\x02]", 0, min(values)), data[min(values) :]
    one, two = (argument for code, argument, _ in genops(data[start:]) if code.name == "BINUNICODE")
    assert list(read(data, tmp_path).state) == ["a", "b"]
    for listed in ([one], [one, one], [one, two, one], [one, two, "x"]):
        program = b"\x80\x02](" + b"".join(map(text, listed)) + b"e."
        assert "its list of storages is not that of its tensors" in refused(data[:start] + program + end, tmp_path)
    assert "its list of storages" in refused(data[:start] + b"\x80\x02}." + end, tmp_path)
    longer = data[: values[0]] + struct.pack("<q", 9) + data[values[0] + 8 :]
    assert "is not where it should be" in refused(longer, tmp_path)
    assert "is not where it should be" in refused(data[: max(values) + 4], tmp_path)


def test_a_zip_of_as_many_entries_as_are_allowed(tmp_path: Path) -> None:
    stream = io.BytesIO(saved({"a": A}))
    with zipfile.ZipFile(stream, "a") as archive:
        for i in range(50_000 - len(archive.namelist())):
            archive.writestr(f"archive/{i}", b"")
    assert torch.equal(read(stream.getvalue(), tmp_path).state["a"], A)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("archive/more", b"")
    assert "a zip of 50001 entries; allowed are 1 to 50000" in refused(stream.getvalue(), tmp_path)


def test_values_may_be_repeated_four_times(tmp_path: Path) -> None:
    def file(unused: int) -> bytes:
        content = dict.fromkeys("abcdefgh", torch.zeros(1000))
        return changed(saved(content), lambda e: e.update({"archive/data/unused": b"0" * unused}))

    unused = 8 * 4000 // 4 - len(file(0))
    assert len(read(file(unused), tmp_path).state) == 8
    words = "its tensors have 32,000 bytes in a file of 7,999: they repeat values"
    assert words in refused(file(unused - 1), tmp_path)


def nested(count: int) -> list:
    return [] if count == 1 else [nested(count - 1)]


def wrapped(count: int) -> dict:
    return {"model": wrapped(count - 1)} if count else {"a": A}


LINE = "y" * 999_999
META: dict[str, tuple[Any, Any]] = {
    "nesting": (nested(20), nested(21)),
    "largest": (2**63 - 1, 2**63),
    "smallest": (-(2**63), -(2**63) - 1),
    "values": ([1] * 199_998, [1] * 199_999),
    "characters": ([LINE] * 20 + ["z" * 10], [LINE] * 20 + ["z" * 11]),
    "NumPy": (0.5, np.ones(1)),
    "set": ("a", {"a"}),
}


@pytest.mark.parametrize("case", META)
def test_meta_keeps_what_is_plain_and_not_too_much(case: str, tmp_path: Path) -> None:
    inside, outside = META[case]
    checkpoint = read(saved({"state_dict": {"a": A}, "meta": {case: inside}}), tmp_path)
    assert (checkpoint.meta, checkpoint.left_out) == ({case: inside}, ())
    checkpoint = read(saved({"state_dict": {"a": A}, "meta": {case: outside}}), tmp_path)
    assert (checkpoint.meta, checkpoint.left_out) == ({}, (case,))


def test_meta_is_plain_to_its_last_value(tmp_path: Path) -> None:
    inner = {"kept": (np.float64(0.5), [np.int64(7), True]), "x" * 300: {1}, (1, 2): 3, 2: "two"}
    meta = {"list": [1, {2}], "dict": inner, 5: "no text", **{f"set {i}": {i} for i in range(120)}}
    checkpoint = read(saved({"state_dict": {"a": A}, "meta": meta}), tmp_path)
    assert checkpoint.meta == {"dict": {"kept": (0.5, [7, True]), 2: "two"}}
    kept, (seven, _) = checkpoint.meta["dict"]["kept"]
    assert (type(kept), type(seven)) == (float, int)
    names = ["list", "x" * 200, "<tuple>", *(f"set {i}" for i in range(97))]
    assert checkpoint.left_out == tuple(names)


def test_wrappers_and_what_is_beside_them(tmp_path: Path) -> None:
    assert read(saved(wrapped(8)), tmp_path).wrapper == ".".join(["model"] * 8)
    assert "wrapped more than 8 times" in refused(saved(wrapped(9)), tmp_path)
    head, meta = {"fc.weight": torch.ones(2, 3)}, {"epoch": 3}
    run = {"head": head, "model": {"state_dict": {"a": A, "b": 1}, "c": 2}, "meta": meta, "arch": "x", "optimizer": {}}
    checkpoint = read(saved({**run, "state_dict_ema": {"a": torch.zeros(8)}}), tmp_path)
    assert (checkpoint.wrapper, checkpoint.meta, checkpoint.arch) == ("model.state_dict", meta, "x")
    assert torch.equal(checkpoint.head["fc.weight"], head["fc.weight"])
    assert torch.equal(checkpoint.state["a"], A)
    assert checkpoint.beside == ("arch", "optimizer", "state_dict_ema", "c", "b")
    checkpoint = read(saved({"a": A, **run, "arch": 5, "model": 1}), tmp_path)  # nothing is wrapped
    assert (checkpoint.wrapper, checkpoint.meta, checkpoint.head, checkpoint.arch) == ("", {}, {}, None)
    assert checkpoint.beside == ("head", "model", "meta", "arch", "optimizer")
    assert read(saved({"state_dict": {"a": A}, "arch": 5}), tmp_path).arch is None
    words = "no state dict of tensors in it (it holds a, b, c, d, e)"
    assert words in refused(saved(dict.fromkeys("abcdef", 1)), tmp_path)
    assert "(it holds nothing)" in refused(saved({}), tmp_path)
    assert "allowed are 300" in refused(saved({"state_dict": {"a": A}, "head": {"x" * 301: A}}), tmp_path)


@pytest.mark.parametrize(
    ("inside", "outside", "words"),
    [
        ("x" * 300, "x" * 301, "name has 301 characters; allowed are 300"),
        ("\ue000", "\ud800", "must be a text that no other has"),
    ],
)
def test_names_of_tensors(inside: str, outside: str, words: str, tmp_path: Path) -> None:
    assert list(read(saved({inside: A}), tmp_path).state) == [inside]
    assert words in refused(saved({outside: A}), tmp_path)


def header(text: str, size: int, values: bytes = b"") -> bytes:
    return struct.pack("<Q", size) + text.ljust(size).encode() + values


def test_headers_of_safetensors(tmp_path: Path) -> None:
    read_it, refuse = (lambda data: read(data, tmp_path, ".safetensors")), (
        lambda data: refused(data, tmp_path, ".SafeTensors"))  # fmt: skip
    entry = '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    values = struct.pack("<2f", 3, 4)
    assert read_it(header(entry, 20_000_000, values)).state["a"].tolist() == [3, 4]
    assert "(header of 20000001 bytes in a file of 20000017)" in refuse(header(entry, 20_000_001, values))
    assert "(header of 1 bytes in a file of 9)" in refuse(header("{", 1))
    assert "(header of 3 bytes in a file of 10)" in refuse(struct.pack("<Q", 3) + b"{}")
    assert "(header of -1 bytes in a file of 7)" in refuse(b"{}     ")
    assert "no tensors in it" in refuse(header("{}", 2))
    sixteen, more = (save_safetensors({"a": torch.ones((1,) * count)}) for count in (16, 17))
    assert read_it(sixteen).state["a"].dim() == 16
    assert "more than 16 dimensions" in refuse(more)


@pytest.mark.parametrize(
    ("note", "meta", "left_out"),
    [
        (json.dumps({"epoch": 3, "big": 2**63}), {"epoch": 3}, ("big",)),
        ("[1]", {}, ()),
        ("{", {}, ()),
        ("[" * 100_000, {}, ()),
        (None, {}, ()),
    ],
)
def test_notes_in_safetensors(note: str | None, meta: dict, left_out: tuple, tmp_path: Path) -> None:
    notes = {"format": "pt"} if note is None else {"mmms_meta": note}
    checkpoint = read(save_safetensors({"a": A}, notes), tmp_path, ".safetensors")
    assert (checkpoint.meta, checkpoint.left_out, checkpoint.wrapper) == (meta, left_out, "")
