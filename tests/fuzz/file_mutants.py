"""Damaged and hostile checkpoint files: bytes, zip and ZIP64 directories, pickles, tar, headers, contents and meta."""

from __future__ import annotations

import argparse
import io
import json
import pickle
import pickletools
import struct
import tarfile
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from tests.golden.records import load_record, make_state_dict
from tests.weights.small import state_dict

Rng = np.random.Generator
INTS = (0, 1, 2, 3, 4, 7, 8, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
TEXTS = (
    "",
    "a",
    "state_dict",
    "meta",
    "0",
    "../x",
    "\x1b[31mred",
    "a\nb",
    "\ud800",
    "x" * 5000,
    "[red]",
    "%s {0}",
    "猫",
    "fc.weight",
    "module.",
    "backbone.",
    "/home/me/x",
)


@lru_cache(maxsize=1)
def weights() -> dict[str, Tensor]:
    """DLA-46-C in half precision: 2.6 MB, and what it converts to is known."""
    return {key: value.half() if value.is_floating_point() else value for key, value in state_dict().items()}


@lru_cache(maxsize=1)
def exits() -> dict[str, Tensor]:
    """An MSDNet with several classifiers, in half precision."""
    state = make_state_dict(load_record("msdnet_cifar100_anytime"))
    return {key: value.half() if value.is_floating_point() else value for key, value in state.items()}


def torch_bytes(content: Any, zipped: bool = True, protocol: int = 2) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return stream.getvalue()


def training_run() -> dict[str, Any]:
    """Few tensors, and what a training script keeps beside them."""
    meta = {"epoch": 3, "cfg": "model = dict(type='X')\ndata_root = '/home/me/coco/'\n", "seed": 5,
            "dataset_meta": {"classes": ("a", "b"), "palette": [(1, 2, 3)]}}  # fmt: skip
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    log = {"log_scalars": {"loss": _history()}, "runtime_info": {"lr": np.float64(0.1), "iter": np.int64(3)}}
    options = argparse.Namespace(lr=0.1, data="/data", seen=frozenset([1, 2]))
    return {"meta": meta, "state_dict": OrderedDict(small_weights()), "optimizer": optimizer, "epoch": 3,
            "message_hub": log, "args": options}  # fmt: skip


def small_weights() -> dict[str, Tensor]:
    state = {"conv1.weight": torch.ones(4, 3, 7, 7), "bn1.running_mean": torch.zeros(4), "fc.weight": torch.ones(5, 4),
             "bn1.num_batches_tracked": torch.tensor(7), "fc.bias": torch.zeros(5)}  # fmt: skip
    for layer in ("layer1.0.conv2", "layer1.1.conv2"):
        state |= {f"{layer}.gwconv.weight": torch.ones(8, 2, 3, 3), f"{layer}.conv.weight": torch.zeros(8, 8, 3, 3)}
        state |= {f"{layer}.gwconv_shift.weight": torch.ones(8, 2, 3, 3)}
    state |= {"bbox_head.fc_cls.weight": torch.ones(3, 4), "bbox_head.fc_reg.weight": torch.ones(12, 4)}
    return state


@lru_cache(maxsize=1)
def bases() -> dict[str, bytes]:
    """Sound files by kind."""
    whole, run = weights(), training_run()
    return {
        "zip": torch_bytes({"state_dict": whole, "epoch": 3}),
        "old": torch_bytes({"state_dict": whole}, zipped=False),
        "safetensors": save_safetensors(whole),
        "run": torch_bytes(run),
        "old run": torch_bytes(run, zipped=False),
        "small safetensors": save_safetensors(small_weights(), {"mmms_meta": json.dumps(run["meta"])}),
    }


# Bytes
def change_bytes(data: bytes, rng: Rng) -> bytes:
    """Flip, cut, insert, repeat or blank; half of the time near the ends, where headers are."""
    found = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        near = int(rng.choice([64, 2048, len(found)]))
        place = int(rng.integers(min(near, len(found)) or 1))
        place = len(found) - 1 - place if rng.random() < 0.5 else place
        length = int(rng.choice([1, 2, 4, 8, 50, 5000]))
        match int(rng.integers(7)):
            case 0 | 1:
                found[place] ^= 1 << int(rng.integers(8))
            case 2:
                del found[place:]
            case 3:
                del found[place : place + length]
            case 4:
                found[place:place] = rng.bytes(length)
            case 5:
                found[place : place + length] = bytes([int(rng.choice([0, 255]))]) * length
            case _:
                found[place : place + 4] = struct.pack("<I", int(rng.choice(INTS)))
        if len(found) < 2:
            break
    return bytes(found)


# Zip
def read_entries(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(entry.filename, archive.read(entry)) for entry in archive.infolist()]


def write_entries(entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return stream.getvalue()


def change_zip(data: bytes, rng: Rng) -> bytes:
    """A well-formed zip of other entries, or a zip whose directory lies."""
    entries = read_entries(data)
    one, other = (int(rng.integers(len(entries))) for _ in range(2))
    name, content = entries[one]
    compression = zipfile.ZIP_STORED
    match int(rng.integers(10)):
        case 0:
            entries.append(entries[one])
        case 1:
            del entries[one]
        case 2:
            entries[one] = (name, entries[other][1])
        case 3:
            entries[one] = (name.upper(), content)
            entries.append((name, entries[other][1]))
        case 4:
            compression = int(rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
        case 5:
            entries[one] = (str(rng.choice(["x/data.pkl", "data.pkl", "archive/constants.pkl", "a" * 3000])), content)
        case 6:
            entries = entries[one:] + entries[:one]
        case 7:
            entries[one] = (name, content[: len(content) // 2] if rng.random() < 0.5 else content + b"\0" * 64)
        case 8:
            entries += [(f"archive/data/{i}", b"") for i in range(int(rng.choice([100, 70_000], p=[0.95, 0.05])))]
        case _:
            found = write_entries(entries) + rng.bytes(int(rng.integers(1, 100)))
            return found if rng.random() < 0.5 else rng.bytes(10) + found
    return write_entries(entries, compression)


def _lying_directory(data: bytes, rng: Rng) -> bytes:
    """One field of a header in the directory, in front of an entry or at the end, set to another number."""
    magic, fields = [
        (
            b"PK\x01\x02",
            ((4, 2), (6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (42, 4)),
        ),
        (b"PK\x03\x04", ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2))),
        (b"PK\x05\x06", ((4, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2))),
    ][int(rng.integers(3))]
    places = [i for i in range(len(data)) if data.startswith(magic, i)] if len(data) < 50_000 else _places(data, magic)
    found, place = bytearray(data), int(rng.choice(places))
    at, size = fields[int(rng.integers(len(fields)))]
    values = [value for value in INTS if value < 256**size] + [63, 99]
    found[place + at : place + at + size] = int(rng.choice(values)).to_bytes(size, "little")
    return bytes(found)


def _places(data: bytes, magic: bytes) -> list[int]:
    places, start = [], data.find(magic)
    while start >= 0:
        places.append(start)
        start = data.find(magic, start + 1)
    return places


END64, LOCATOR, END = "<4sQ2H2I4Q", "<4sIQI", "<4s4H2IH"
END64_FIELDS = ((4, 8), (12, 2), (14, 2), (16, 4), (20, 4), (24, 8), (32, 8), (40, 8), (48, 8))  # place and bytes
LOCATOR_FIELDS = ((4, 4), (8, 8), (16, 4))
BIG = (*INTS, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1)


def as_zip64(data: bytes, rng: Rng) -> bytes:
    """The same zip with a ZIP64 directory's end, of which half of the time a field or a place lies."""
    *_, count, size, start, _ = struct.unpack(END, data[-22:])
    end64 = bytearray(struct.pack(END64, b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start))
    locator = bytearray(struct.pack(LOCATOR, b"PK\x06\x07", 0, start + size, 1))
    end, body = bytearray(data[-22:]), data[:-22]
    if rng.random() < 0.3:  # the numbers stand in the ZIP64 part alone
        end[8:20] = b"\xff" * 12
    if rng.random() < 0.7:
        part, fields = [(end64, END64_FIELDS), (locator, LOCATOR_FIELDS), (end, ((8, 2), (10, 2), (12, 4), (16, 4)))][
            int(rng.integers(3))
        ]
        at, width = fields[int(rng.integers(len(fields)))]
        values = [value for value in BIG if value < 256**width] + [start + size - 1, count + 1]
        part[at : at + width] = int(values[int(rng.integers(len(values)))] % 256**width).to_bytes(width, "little")
    if rng.random() < 0.2:  # a second directory, for readers that follow the locator
        body, locator[8:16] = body + bytes(end64), struct.pack("<Q", len(body))
    pieces = [bytes(end64), bytes(locator), bytes(end)]
    if rng.random() < 0.2:
        pieces.insert(int(rng.integers(3)), rng.bytes(int(rng.integers(1, 60))))
    if rng.random() < 0.1:
        del pieces[int(rng.integers(2))]
    return body + b"".join(pieces)


# Tar, of torch before 0.2, and of whoever packs a checkpoint
def tarred(rng: Rng) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=str(rng.choice(["w", "w:gz", "w:bz2"]))) as archive:
        for name in ("sys_info", "pickle", "tensors", "storages", "../x.pth", "state_dict.pth"):
            content = pickle.dumps({"a": 1}, 2) if rng.random() < 0.7 else bases()["run"]
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    data = stream.getvalue()
    return change_bytes(data, rng) if rng.random() < 0.5 else data


# Pickles
SNIPPETS = (
    b"}q\xfeX\x01\x00\x00\x00ah\xfes",  # a dict that contains itself
    b"]q\xfeh\xfea",  # a list that contains itself
    b"}" + b")" + b"\x85" * 20_000 + b"K\x01s",  # a deep tuple as key
    b"}" + b"K\x01\x85" + b"q\xfeh\xfe\x86" * 40 + b"K\x01s",  # a tuple that doubles forty times as key
    b"]" * 2000 + b"a" * 1999,
    b"cbuiltins\nset\n]" + b"K\x01\x85" + b"q\xfeh\xfe\x86" * 40 + b"a\x85R",
    b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R",
    b"ctorch\nFloatTensor\nJ\xff\xff\xff\x7f\x85R",
    b"ctorch\nUntypedStorage\nJ\xff\xff\xff\x7f\x85R",
    b"cos\nsystem\nX\x04\x00\x00\x00true\x85R",
    b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n(ctorch\nfloat32\nK\x03\x85K\x01\x85\x89tR",
    b"ctorch._utils\n_rebuild_nested_tensor\n(NNNNtR",
    b"c_codecs\nencode\nX\x03\x00\x00\x00abcX\x08\x00\x00\x00punycode\x86R",
    b"ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x01sb",
    b"(" * 5000,
    b"Q",
    b"R",
    b"b",
    b"\x81",
    b"0",
    b"2",
    b"\x8f",
    b"\x94",
    b"I5\n",
    b"K\x05",
    b"N",
    b")",
    b"t",
    b"e",
    b"u",
    b"\x8a\xff" + b"\x7f" * 255,
    b"G\x7f\xf8\0\0\0\0\0\0",
    b"X\x03\x00\x00\x00\xed\xa0\x80",
    b"j\xff\xff\xff\xff",
    b".",
)


def change_pickle(data: bytes, rng: Rng) -> bytes:
    """Other operations in the pickle of a file, under right checksums."""
    if not data.startswith(b"PK"):
        magic = [pickle.dumps(value, 2) for value in (torch.serialization.MAGIC_NUMBER, 1001)]
        start = len(magic[0]) + len(magic[1])
        return data[:start] + change_operations(data[start:], rng)
    return write_entries(
        [(name, change_operations(content, rng) if name.endswith("data.pkl") else content)
         for name, content in read_entries(data)])  # fmt: skip


def change_operations(pickled: bytes, rng: Rng) -> bytes:
    """Drop, repeat, exchange and insert operations of the first pickle; the rest stays."""
    places = [place for _, _, place in pickletools.genops(pickled) if place is not None]
    end = places[-1] + 1
    operations = [pickled[a:b] for a, b in zip(places, [*places[1:], end], strict=True)]
    for _ in range(int(rng.choice([1, 1, 2, 5]))):
        one, other = (int(rng.integers(1, len(operations) - 1)) for _ in range(2))
        match int(rng.integers(7)):
            case 0:
                del operations[one]
            case 1:
                operations.insert(one, operations[other])
            case 2:
                operations[one], operations[other] = operations[other], operations[one]
            case 3 | 4:
                operations.insert(one, SNIPPETS[int(rng.integers(len(SNIPPETS)))])
            case 5:
                operations[one] = _other_argument(operations[one], rng)
            case _:
                numbers = [i for i, code in enumerate(operations) if code[:1] in (b"K", b"M", b"J")]
                chosen = int(rng.choice(numbers)) if numbers else one
                operations[chosen] = b"J" + struct.pack("<I", int(rng.choice(INTS)))
        if len(operations) < 4:
            break
    return b"".join(operations) + pickled[end:]


def _other_argument(operation: bytes, rng: Rng) -> bytes:
    if operation[:1] == b"X":
        text = TEXTS[int(rng.integers(len(TEXTS)))].encode(errors="surrogatepass")
        return b"X" + struct.pack("<I", len(text)) + text
    if operation[:1] == b"c":
        names = (
            b"torch\nFloatStorage",
            b"torch\nQInt8Storage",
            b"torch._utils\n_rebuild_qtensor",
            b"builtins\nset",
            b"torch._utils\n_rebuild_tensor",
            b"collections\nCounter",
            b"torch\nSize",
            b"builtins\ngetattr",
            b"torch._utils\n_rebuild_parameter_with_state",
            b"argparse\nNamespace",
            b"torch\nfloat8_e4m3fn",
            b"torch._tensor\n_rebuild_from_type_v2",
            b"numpy\nndarray",
            b"torch\nTensor",
            b"torch\nDoubleStorage",
        )
        return b"c" + names[int(rng.integers(len(names)))] + b"\n"
    return operation[:1] + rng.bytes(len(operation) - 1)


# Contents
def _self_containing() -> dict[str, Any]:
    own: dict[str, Any] = {"a": 1}
    own["state_dict"] = own["own"] = own
    return own


def _laughs() -> list[Any]:
    own: list[Any] = [1]
    for _ in range(60):
        own = [own, own]
    return own


def _deep(make: Callable[[Any], Any], levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = make(value)
    return value


def _with_attributes() -> Tensor:
    value = torch.ones(3)
    value.untyped_storage, value.shape_of = 5, "x"  # type: ignore[attr-defined, method-assign, assignment]
    return value


def _history() -> Any:
    from mmengine.logging.history_buffer import HistoryBuffer

    return HistoryBuffer([1.0, 2.0], [1, 1])


VALUES: tuple[Callable[[], Any], ...] = (
    lambda: torch.empty(3, device="meta"),
    lambda: torch.eye(3).to_sparse(),
    lambda: torch.eye(3).to_sparse_csr(),
    lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    lambda: torch.ones(3, 4) * 1j,
    lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    lambda: (torch.ones(3) * 1j).conj(),
    lambda: torch._neg_view(torch.ones(3)),
    lambda: torch.ones(()),
    lambda: torch.ones(0),
    lambda: torch.ones(0, 8, 3, 3),
    lambda: torch.ones(3).to(torch.float8_e4m3fn),
    lambda: torch.ones(3, dtype=torch.uint16),
    lambda: torch.ones(1, 1, 1, 1),
    lambda: torch.ones(3, dtype=torch.bool),
    lambda: torch.ones(1).expand(1000, 1000),
    lambda: torch.ones((1,) * 70),
    lambda: torch.full((8, 2, 3, 3), float("nan")),
    lambda: torch.ones(8, 8, 3, 3),
    lambda: torch.ones(3, 4, 1, 1),
    lambda: torch.ones(9).as_strided((3, 3), (1, 1)),
    lambda: torch.ones(8)[::2],
    lambda: torch.ones(4, 3).t(),
    lambda: nn.Parameter(torch.ones(3)),
    lambda: nn.Buffer(torch.ones(3)),
    _with_attributes,
    _history,
    _self_containing,
    _laughs,
    lambda: _deep(lambda v: [v], 500),
    lambda: _deep(lambda v: {"a": v}, 300),
    lambda: _deep(lambda v: (v,), 40),
    lambda: 2**70,
    lambda: 10**300,
    lambda: float("nan"),
    lambda: None,
    lambda: "\x1b[31m\n",
    lambda: "\ud800",
    lambda: b"ab",
    lambda: np.float64(1.5),
    lambda: np.ones(3),
    lambda: {1, 2},
    lambda: frozenset([(1, 2)]),
    lambda: Counter("aab"),
    lambda: torch.Size([1, 2]),
    lambda: torch.device("cpu"),
    lambda: torch.float32,
    lambda: {},
    lambda: [],
    lambda: "x" * 10**6,
    lambda: {"type": "os.system", "command": "touch ran"},
    lambda: {"state_dict": {"model": {"net": small_weights()}}},
    lambda: {i: torch.ones(1) for i in range(3)},
    lambda: {f"layer1.{i}.conv2.weight": torch.ones(1) for i in range(12_000)},
)
KEYS: tuple[Any, ...] = (
    *TEXTS,
    0,
    1.5,
    None,
    True,
    (1, 2),
    ("a", (3,)),
    "head",
    "arch",
    "model",
    "state_dict_ema",
    "params",
)


def other_value(rng: Rng) -> Any:
    return VALUES[int(rng.integers(len(VALUES)))]()


def change_content(rng: Rng) -> bytes:
    """A run whose content has other values or keys in a few places, saved by torch itself."""
    chosen = rng.random()
    content: dict[Any, Any] = training_run() if chosen < 0.6 else {"state_dict": dict(weights())}
    if chosen > 0.95:
        content = {"state_dict": dict(exits())}
    for _ in range(int(rng.choice([1, 1, 2, 4]))):
        place = _place(content, rng)
        key = list(place)[int(rng.integers(len(place)))] if place and rng.random() < 0.7 else _key(rng)
        match int(rng.integers(6)):
            case 0:
                place.pop(key, None)
            case 1:
                place[_key(rng)] = place.pop(key, 1)
            case 2:
                place[_key(rng)] = place[key] = next(iter(small_weights().values()))  # shared
            case _:
                place[key] = other_value(rng)
    for protocol in (2, 4):
        try:
            return torch_bytes(content, bool(rng.random() < 0.8), int(rng.choice([2, 2, 2, protocol])))
        except Exception:  # not every content can be saved
            content = {"state_dict": small_weights()}
    return torch_bytes(content)


def _key(rng: Rng) -> Any:
    return KEYS[int(rng.integers(len(KEYS)))]


def _place(content: dict[Any, Any], rng: Rng) -> dict[Any, Any]:
    inner = [value for value in content.values() if isinstance(value, dict)]
    inner += [value for value in content.get("meta", {}).values() if isinstance(value, dict)] if isinstance(
        content.get("meta"), dict) else []  # fmt: skip
    return inner[int(rng.integers(len(inner)))] if inner and rng.random() < 0.85 else content


def sound_meta() -> dict[str, Any]:
    """What ``mmms convert`` and ``mmms train`` write beside the weights."""
    pixels = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "bgr_to_rgb": True}
    backbone = {"type": "mmms_plugin.DLA", "arch": "46_c"}
    anchors = {"type": "AnchorGenerator", "scales": [8], "ratios": [0.5, 1.0, 2.0], "strides": [4, 8, 16, 32, 64]}
    trained = {
        "type": "FasterRCNN", "backbone": backbone, "data_preprocessor": pixels, "pipeline": [{"type": "Normalize"}],
        "rpn_head": {"type": "RPNHead", "anchor_generator": anchors, "bbox_coder": {"target_stds": [1.0] * 4}},
        "roi_head": {"bbox_head": [{"type": "BBoxHead", "num_classes": 2}] * 2},
    }  # fmt: skip
    converted = {
        "source": "dla", "arch": "dla46_c", "sha256": "0" * 64, "input": "x.pth", "backbone": backbone, "prefix": "",
        "model": {"head": {"type": "mmms_plugin.MultiExitHead", "num_classes": 2, "in_channels": [4]}},
        "components": {"RoIAlign": {"aligned": False, "sampling_ratio": 2}}, "data_preprocessor": pixels,
    }  # fmt: skip
    return {**converted, "trained": trained, "epoch": 3, "iter": 9, "seed": 1, "cfg": "model = dict(type='X')\n",
            "dataset_meta": {"classes": ("a", "b"), "palette": [(1, 2, 3), (4, 5, 6)]}}  # fmt: skip


def change_meta(rng: Rng) -> bytes:
    """The weights of DLA-46-C with a ``meta`` whose values, at any depth, are others."""
    meta = sound_meta()
    if rng.random() < 0.5:
        for key in ("backbone", "sha256", "model", "components"):
            meta.pop(key)
    for _ in range(int(rng.choice([1, 2, 5]))):
        place: Any = meta
        while rng.random() < 0.8:
            inner = list(place.values() if isinstance(place, dict) else place)
            inner = [part for part in inner if isinstance(part, dict | list) and part]
            if not inner:
                break
            place = inner[int(rng.integers(len(inner)))]
        key = list(place)[int(rng.integers(len(place)))] if isinstance(place, dict) else int(rng.integers(len(place)))
        chosen = int(rng.integers(5))
        if chosen == 0 and isinstance(place, dict):
            place[_key(rng)] = place.pop(key)
        elif chosen == 1:
            place[key] = [-1, 0, 1e308, -0.5, 2**40, True, "", "os.system", [[]], {"type": "x"}][int(rng.integers(10))]
        elif chosen == 2 and isinstance(place, dict):
            place[key] = {f"k{i}": [i] * 10 for i in range(int(rng.choice([5, 5_000])))}
        else:
            place[key] = other_value(rng)
    content = {"state_dict": dict(weights()), "meta": meta, "optimizer": {}, "message_hub": {}}
    try:
        return torch_bytes(content, bool(rng.random() < 0.8))
    except Exception:  # not every content can be saved
        return torch_bytes(content | {"meta": sound_meta()})


# Safetensors
def change_header(data: bytes, rng: Rng) -> bytes:
    """Another header over the same values."""
    (length,) = struct.unpack("<Q", data[:8])
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    name = list(header)[int(rng.integers(len(header)))]
    entry = header[name]
    match int(rng.integers(9)):
        case 0:
            header[TEXTS[int(rng.integers(len(TEXTS)))]] = header.pop(name)
        case 1:
            entry["shape"] = [[], [0], [-1], [2**63], [1.5], ["3"], None, [1] * 100, [2**32, 2**32]][
                int(rng.integers(9))
            ]
        case 2:
            entry["dtype"] = ["F64", "BOOL", "F8_E4M3", "", None, "I64", "C64", "U16"][int(rng.integers(8))]
        case 3:
            entry["data_offsets"] = [int(rng.choice([0, 1, 8, 2**31, 2**63, -1])) for _ in range(2)]
        case 4:
            count = int(rng.choice([300, 12_000, 200_000], p=[0.8, 0.1, 0.1]))
            header |= {f"layer{i}.weight": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(count)}
        case 5:
            values = (
                "{",
                "[" * 100_000,
                "[]",
                '{"backbone": 1, "sha256": 2}',
                '{"cfg": "\\ud800"}',
                '{"a": NaN}',
                "9" * 9999,
                json.dumps(sound_meta() | {"functions": {"a": [{}], "level5": {"dilation_pattern": [[1]] * 99}}}),
                json.dumps({"backbone": {"type": "mmms_plugin.DLA", "arch": ["46_c"]}, "trained": {"type": 1}}),
            )
            header["__metadata__"] = {"mmms_meta": values[int(rng.integers(len(values)))]}
        case 6:
            header["__metadata__"] = [1, {"a": 1}, None, {"a": None}][int(rng.integers(4))]
        case 7:
            text = json.dumps(header).encode()
            text = change_bytes(text, rng)
            return struct.pack("<Q", len(text)) + text + rest
        case _:
            text = b'{"a":' + b"[" * 100_000
            return struct.pack("<Q", len(text)) + text + rest
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def make(rng: Rng) -> tuple[str, bytes]:
    """A kind of damage with the kind of file, and the bytes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _make(rng)


def _make(rng: Rng) -> tuple[str, bytes]:
    kind = str(rng.choice(list(bases()), p=[0.1, 0.05, 0.05, 0.4, 0.2, 0.2]))
    data = bases()[kind]
    choice = rng.random()
    if choice < 0.02:
        return "tar", tarred(rng)
    if choice < 0.12:
        return "meta", change_meta(rng)
    if choice < 0.3:
        return f"bytes of {kind}", change_bytes(data, rng)
    if choice < 0.5:
        return "content", change_content(rng)
    if "safetensors" in kind:
        return f"header of {kind}", change_header(data, rng)
    if choice < 0.6 and "old" not in kind:
        return f"zip64 of {kind}", as_zip64(data, rng)
    if choice < 0.8 and "old" not in kind:
        lying = rng.random() < 0.4
        return (
            (f"directory of {kind}", _lying_directory(data, rng))
            if lying
            else (f"zip of {kind}", change_zip(data, rng))
        )
    return f"pickle of {kind}", change_pickle(data, rng)


def make_reference(rng: Rng) -> bytes:
    """Arrays for ``--reference``: names, types and shapes that do not fit, then perhaps changed bytes."""
    image = rng.standard_normal((1, 3, 64, 64)).astype(np.float32)
    arrays: dict[str, Any] = {"input": image, "level5": np.ones((1, 256, 2, 2), np.float32)}
    values = (
        np.ones(3),
        np.array("a"),
        np.array({}),
        np.ones((1, 3, 0, 4)),
        np.ones((1, 3, 1, 1)),
        np.array(1.0),
        np.ones((1, 3, 64, 64)) * 1e300,
        np.ones((1, 256, 2, 2), bool),
        np.ones((1, 256, 2, 2)) * 1j,
        np.full((1, 256, 2, 2), np.nan),
        np.zeros((1, 256, 2, 2)),
        np.ones((1, 1000)),
        np.ones((3, 3, 33, 65)),
    )
    for _ in range(int(rng.integers(3))):
        name = str(rng.choice(["input", "level5", "output", "base.level5", "level9", "", "\x1b[31m", "level0"]))
        arrays[name] = values[int(rng.integers(len(values)))]
    stream = io.BytesIO()
    (np.savez if rng.random() < 0.6 else np.savez_compressed)(stream, **arrays)
    data = stream.getvalue()
    choice = rng.random()
    return change_bytes(data, rng) if choice < 0.5 else _lying_directory(data, rng) if choice < 0.7 else data


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
