"""Checkpoints that lie, hang or ask for terabytes: refused in one line, at once; nothing is damaged silently."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner.checkpoint import _load_checkpoint
from safetensors.torch import save_file

from mmms_plugin.commands import main
from mmms_plugin.errors import UserError
from mmms_plugin.weights.files import read_checkpoint
from mmms_plugin.weights.publish import without_places
from mmms_plugin.weights.reader import read
from tests.weights.small import changed, convert, refusal, saved, state_dict, written


def field(magic: bytes, offset: int, value: bytes, number: int = 0) -> bytes:
    """A saved file with other bytes in one of the zip's headers."""
    data = bytearray(saved())
    place = -1
    for _ in range(number + 1):
        place = data.index(magic, place + 1)
    data[place + offset : place + offset + len(value)] = value
    return bytes(data)


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
BROKEN = {
    "a flipped bit in a tensor": (lambda: flipped(saved(), saved().index(struct.pack("<f", 250.0))), "checksum of"),
    "a flipped bit in the pickle": (lambda: flipped(saved(), saved().index(b"fc.weight")), "checksum of"),
    "cut off": (lambda: saved()[:-9], "damaged or cut off"),
    "two entries of a name": (lambda: field(CENTRAL, 46, b"archive/data/1", 4), "two entries 'archive/data/1'"),
    "names that differ in case": (
        lambda: changed(saved(), lambda e: e.update({"archive/DATA.pkl": b"N."})), "two entries 'archive/DATA.pkl'"),
    "overlapping entries": (lambda: field(CENTRAL, 42, struct.pack("<I", 0), 1), "is not where its directory says"),
    "a size that is another's": (lambda: field(CENTRAL, 20, struct.pack("<II", 900, 900)), "entries overlap"),
    "two sizes": (lambda: field(CENTRAL, 20, struct.pack("<I", 9)), "states two sizes"),
    "a newer zip": (lambda: field(CENTRAL, 6, b"\xff"), "damaged or cut off (zip file version 25.5)"),
    "an entry behind the end": (lambda: field(CENTRAL, 42, struct.pack("<I", 2**31)), "points behind its end"),
    "another storage's size": (
        lambda: changed(saved(), lambda e: e.update({"archive/data/0": b"\0" * 1996})), "should have 2000 bytes"),
    "encrypted": (lambda: field(CENTRAL, 8, b"\x01"), "is encrypted"),
    "a name with a zero": (lambda: field(CENTRAL, 46, b"archive\0data.pkl"), "damaged"),
    "another name in front": (lambda: field(LOCAL, 30, b"b"), "'archive/data.pkl' is not where its directory says"),
    "no header in front": (lambda: field(LOCAL, 3, b"\x05", 1), "is not where its directory says"),
    "no entries": (lambda: LOCAL + bytes(30) + END + bytes(12) + struct.pack("<IH", 34, 0), "a zip of 0 entries"),
    "bytes in front": (lambda: saved()[:99] + saved(), "bytes in front of it"),
    "bytes behind the end": (lambda: saved() + b"more", "bytes behind the end"),
    "old format, cut off": (lambda: saved(_use_new_zipfile_serialization=False)[:-4], "cut off: 2"),
    "old format, too long": (lambda: saved(_use_new_zipfile_serialization=False) + b"more", "cut off"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_damaged_file_is_never_converted(case, tmp_path, capsys):
    make, words = BROKEN[case]
    (tmp_path / "in.pth").write_bytes(make())
    (tmp_path / "folder").mkdir()
    assert words in refusal(capsys, tmp_path / "in.pth", tmp_path / "folder" / "out.pth")
    refused_by_mmengine(tmp_path / "in.pth", words)


def test_every_single_byte_that_matters_is_checked(tmp_path):
    """A file with any byte changed is refused, or read as the same tensors (padding, dates)."""
    data, path = saved({"a": torch.arange(6.0)}), tmp_path / "in.pth"
    refused = 0
    for place in range(0, len(data), 3):
        path.write_bytes(flipped(data, place))
        try:
            state = read_checkpoint(path).state
        except UserError:
            refused += 1
        else:
            assert list(state) == ["a"]
            assert torch.equal(state["a"], torch.arange(6.0)), place
    assert refused > len(data) / 3 / 4


def refused_by_mmengine(path: Path, words: str) -> None:
    """As for inferencers and hosts' scripts, once the plugin is imported."""
    with pytest.raises(UserError, match=re.escape(words)):
        _load_checkpoint(str(path))


def itself() -> dict:
    own: dict = {"a": 1}
    own["state_dict"] = own
    return own


PICKLES = {
    "deep tuple as key": (b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"K\x01s.", "nested more than 50 deep"),
    "doubling tuple as key": (b"\x80\x02}K\x01\x85" + b"q\x01h\x01\x86" * 40 + b"K\x01s.", "more than"),
    "doubling tuple in a set": (
        b"\x80\x02cbuiltins\nset\n]K\x01\x85" + b"q\x01h\x01\x86" * 16 + b"a\x85R.",
        "more than",
    ),
    "tensor of 8 GB": (b"\x80\x02ctorch\nFloatTensor\nJ\xff\xff\xff\x7f\x85R.", "torch.FloatTensor"),
    "2 GB of bytes": (b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "bytearray"),
    "slow codec": (
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x08\x00\x00\x00punycode\x86R.",
        "pickle does not write",
    ),
    "endless": (b"\x80\x02" + b"N" * 3_100_000 + b".", "more than 3,000,000 operations"),
}


@pytest.mark.parametrize("case", PICKLES)
def test_pickles_that_would_hang_or_exhaust_memory(case, tmp_path, capsys):
    pickled, words = PICKLES[case]
    (tmp_path / "in.pth").write_bytes(changed(saved(), lambda entries: entries.update({"archive/data.pkl": pickled})))
    (tmp_path / "folder").mkdir()
    start = time.process_time()
    assert words in refusal(capsys, tmp_path / "in.pth", tmp_path / "folder" / "out.pth")
    refused_by_mmengine(tmp_path / "in.pth", words)
    assert time.process_time() - start < 40


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (itself, "wrapped more than 8 times"),
        (lambda: {"a": torch.empty(3, device="meta")}, "meta tensor"),
        (lambda: {"a": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])}, "nested tensor"),
        (lambda: {"a": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}, "quantised tensor"),
        (lambda: {"a": torch.ones((1,) * 70)}, "70 dimensions"),
        (lambda: {"x" * 400: torch.ones(1)}, "name has 400 characters"),
        (lambda: {"\ud800": torch.ones(1)}, "must be a text"),
        (lambda: {1: torch.ones(1), "1": torch.ones(1)}, "that no other has"),
        (lambda: dict.fromkeys(map(str, range(9)), torch.ones(2000)), "they repeat values"),
        (lambda: dict.fromkeys(map(str, range(5_001)), torch.ones(1)), "5,001 tensors"),
        (lambda: {"bbox_head.fc_cls.weight": torch.ones(())}, "is a single number"),
        (lambda: {"layer1.0.conv2.gwconv.weight": torch.ones(0, 2, 3, 3),
                  "layer1.0.conv2.conv.weight": torch.ones(0, 8, 3, 3),
                  "layer1.0.conv2.gwconv_shift.weight": torch.ones(0, 2, 3, 3)}, "expected [C_out"),
    ],
)  # fmt: skip
def test_contents_that_are_not_weights(content, words, tmp_path, capsys):
    (tmp_path / "in.pth").write_bytes(saved(content()))
    (tmp_path / "folder").mkdir()
    options = ("--source", "psconv", "--arch", "ps_resnet50")
    assert words in refusal(capsys, tmp_path / "in.pth", tmp_path / "folder" / "out.pth", *options)


def test_every_tensor_is_bounded_by_its_storage(tmp_path):
    def longer(entries: dict[str, bytes]) -> None:
        assert entries["archive/data.pkl"].count(b"K\x04K\x03") == 1
        entries["archive/data.pkl"] = entries["archive/data.pkl"].replace(b"K\x04K\x03", b"K\x04K\x04")

    (tmp_path / "in.pth").write_bytes(changed(saved({"t": torch.ones(3, 4).t()}), longer))
    with pytest.raises(UserError, match="reaches behind the 12 values"):
        read_checkpoint(tmp_path / "in.pth")


def test_a_header_of_many_names_takes_no_time(tmp_path, capsys):
    entry = '"k%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = ("{" + ",".join(entry % i for i in range(200_000)) + "}").encode()
    (tmp_path / "in.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    start = time.process_time()
    assert main(["convert", str(tmp_path / "in.safetensors"), str(tmp_path / "out.pth")]) == 2
    assert "200,000 tensors; allowed are 5,000" in capsys.readouterr().err
    assert time.process_time() - start < 40


def test_as_many_names_as_are_allowed_are_compared_in_time(tmp_path, capsys):
    state = {f"layer1.{i}.conv2.weight": torch.zeros(1) for i in range(5_000)}
    save_file(state, tmp_path / "in.safetensors")
    start = time.process_time()
    assert main(["convert", str(tmp_path / "in.safetensors"), str(tmp_path / "out.pth")]) == 2
    assert "its 5000 keys" in capsys.readouterr().err
    assert time.process_time() - start < 40


LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["convert", "in.pth", f"{LONG}.pth"],
        ["convert", LONG, "out.pth"],
        ["convert", "in.pth", "out.pth", "--report", LONG],
        ["convert", "in.pth", "out.pth", "--reference", LONG],
        ["publish", "in.pth", f"{LONG}/{LONG}"],
    ],
)
def test_names_that_the_system_does_not_take(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save(state_dict(), "in.pth")
    assert main(arguments) == 2
    assert "File name too long" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]


def test_file_names_that_are_not_text_are_printed_as_escapes(tmp_path, capsys):
    torch.save(state_dict(), tmp_path / "in.pth")
    name = os.fsdecode(b"a\xff\x1b[31m.pth")
    assert convert(tmp_path / "in.pth", tmp_path / name) == 0
    assert main(["publish", str(tmp_path / "in.pth"), str(tmp_path / name)]) == 0
    printed = capsys.readouterr().out
    assert printed.encode().count(rb"a\udcff\x1b[31m") == 2


def test_shared_weights_go_into_safetensors(tmp_path):
    state = state_dict()
    state["level5.root.bn.running_mean"] = state["level5.root.bn.bias"]
    torch.save(state, tmp_path / "in.pth")
    assert convert(tmp_path / "in.pth", tmp_path / "out.safetensors") == 0
    assert torch.equal(
        written(tmp_path / "out.safetensors")["level5.root.bn.running_mean"], state["level5.root.bn.bias"]
    )


PLAIN_TORCH = """
import sys, torch
content = torch.load(sys.argv[1], weights_only=True)
assert "mmms_plugin" not in sys.modules
assert set(content) <= {"meta", "state_dict", "head"}, content.keys()
assert all(type(value) is torch.Tensor for value in content["state_dict"].values())
print(content["meta"])
"""


def test_what_is_published_needs_nothing_but_torch(tmp_path, capsys):
    from mmengine.logging.history_buffer import HistoryBuffer

    attributed = torch.ones(3)
    attributed.note = "x"
    meta = {
        "epoch": np.int64(3),
        "log": HistoryBuffer([1.0], [1]),
        "big": 2**70,
        "classes": ("a", "b"),
        "array": np.ones(2),
    }
    meta |= {"cfg": "data_root = '/home/me/My Data/coco/'\nload_from = 'https://a.b/c/d.pth'\n", "\x1b[31m": {1: set()}}
    meta["own"] = meta
    state = {"module.a": torch.nn.Parameter(torch.ones(2)), "module.b": attributed}
    torch.save({"meta": meta, "state_dict": state}, tmp_path / "in.pth")
    assert main(["publish", str(tmp_path / "in.pth"), str(tmp_path / "out" / "small")]) == 0
    printed = capsys.readouterr().out
    assert all(f"meta.{name}" in printed for name in ("log", "big", "array"))
    (out,) = (tmp_path / "out").iterdir()
    done = subprocess.run([sys.executable, "-c", PLAIN_TORCH, str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'epoch': 3" in done.stdout
    assert "'classes': ('a', 'b')" in done.stdout
    assert "data_root = 'coco/'\\nload_from = 'https://a.b/c/d.pth'" in done.stdout
    assert b"/home/me" not in out.read_bytes()


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("/home/me/a b/x.pth", "x.pth"),
        ("~/data/", "data/"),
        ("/data/x", "x"),
        ("see ~ and /", "see ~ and /"),
        ("x = 'C:\\\\Users\\\\me\\\\x.py'  # 3 / 4, see /root/y.py", "x = 'x.py'  # 3 / 4, see y.py"),
        ("file:///home/me/x", "x"),
        (
            "./work_dirs/x, mmdet::a/b.py, https://a.b/c/d, /data",
            "./work_dirs/x, mmdet::a/b.py, https://a.b/c/d, /data",
        ),
    ],
)
def test_places_on_the_machine_are_not_published(text, published):
    assert without_places({"a": [text, 1]}) == {"a": [published, 1]}


def npz(change=lambda data: data, **arrays) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return change(stream.getvalue())


IMAGE = np.zeros((1, 3, 64, 64), np.float32)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (npz(lambda d: flipped(d, 60), input=IMAGE), "not an .npz"),
        (npz(lambda d: d.replace(b"PK\x01\x02", b"PK\x01\x02\xff\x03\xff"), input=IMAGE), "not an .npz"),
        (npz(lambda d: d[:-5], input=IMAGE), "not an .npz"),
        (npz(input=np.zeros((1, 3, 3000, 3000), np.int8), level5=IMAGE), "9000000 pixels, allowed are 4000000"),
        (npz(input=IMAGE, level5=IMAGE, **{"base.level5": IMAGE}), "two arrays for one output"),
        (npz(input=IMAGE, level5=np.float64(1e300)), "level5 has shape []"),
    ],
)
def test_references_that_cannot_be_used(data, words, tmp_path, capsys):
    torch.save(state_dict(), tmp_path / "in.pth")
    (tmp_path / "reference.npz").write_bytes(data)
    assert words in refusal(
        capsys, tmp_path / "in.pth", tmp_path / "out.pth", "--reference", str(tmp_path / "reference.npz")
    )


def test_tensors_lose_what_a_file_puts_on_them(tmp_path):
    """An attribute of a tensor that hides a method, a negative view: what is read has neither."""
    attributed = torch.ones(3)
    attributed.untyped_storage_ = 5  # type: ignore[attr-defined]
    content = {"state_dict": OrderedDict(a=attributed, b=torch._neg_view(torch.ones(3)))}
    long, short = (b"X" + struct.pack("<I", len(name)) + name for name in (b"untyped_storage_", b"untyped_storage"))

    def rename(entries: dict[str, bytes]) -> None:
        assert long in entries["archive/data.pkl"]
        entries["archive/data.pkl"] = entries["archive/data.pkl"].replace(long, short)

    (tmp_path / "in.pth").write_bytes(changed(saved(content), rename))
    state = read_checkpoint(tmp_path / "in.pth").state
    assert state["a"].untyped_storage().nbytes() == 12
    assert torch.equal(state["b"], -torch.ones(3))


def test_a_quantised_type_is_a_value_but_not_that_of_a_tensor(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"state_dict": {"a": torch.ones(3)}, "types": [torch.qint8, torch.quint4x2]}, path)
    assert read(path)["types"] == [torch.qint8, torch.quint4x2]
    rare = saved({"state_dict": {"a": torch.ones(3).to(torch.float8_e4m3fn)}})

    def quantise(entries: dict[str, bytes]) -> None:
        entries["archive/data.pkl"] = entries["archive/data.pkl"].replace(b"float8_e4m3fn", b"quint8")

    path.write_bytes(changed(rare, quantise))
    with pytest.raises(UserError, match=r"a quantised tensor \(torch\.quint8\)"):
        read(path)
