"""Checkpoint files of strangers: read without running anything in them, written whole or not at all.

Formats: ``torch.save`` (zip and the older plain pickle) and single-file safetensors. A pickle may hold tensors, plain
containers, NumPy numbers and arrays (``compat.checkpoints`` says how narrowly) and ``argparse.Namespace``, which is a
plain container too (training scripts keep their options in it). All else is refused by name.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmms_plugin.compat.checkpoints import load
from mmms_plugin.errors import UserError

SUFFIXES = (".pth", ".safetensors")
# What files of the trade call the dict of weights, best first: averaged weights only where there are no others.
WRAPPERS = ("state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights", "params",
            "state_dict_ema", "model_ema", "ema_state_dict")  # fmt: skip
META_KEY = "mmms_meta"
PICKLE, ZIP = b"\x80", b"PK\x03\x04"
TORCH_GLOBALS = re.compile(r"torch\._utils\..+|torch\.nn\.parameter\..+|torch\.\w+Storage|collections\.OrderedDict")
MAX_HEADER = 100_000_000  # of safetensors, as its own reader has it


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        state: key -> tensor, memory-mapped where the format allows, keys as in the file.
        wrapper: where in the file it was found, such as 'state_dict', or '' for a bare state dict.
        meta: the ``meta`` beside it (mmengine's, ours), {} if none.
        head: tensors of the classifier that ``mmms convert`` keeps beside a backbone.
        beside: names of all else in the file.
        arch: an architecture's name that the file states itself, or None.
    """

    path: Path
    state: dict[str, Tensor]
    wrapper: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Tensor] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    arch: str | None = None


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint.

    Raises: UserError, in one line, for anything that is not a checkpoint or holds more than data.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise UserError(f"checkpoint {path}: it is a directory, give a file")
        if not path.is_file():
            raise UserError(f"checkpoint {path}: {'not a regular file' if path.exists() else 'no such file'}")
        return _read_safetensors(path) if _is_safetensors(path) else _unwrap(path, _read_pickle(path))
    except OSError as error:
        raise UserError(f"checkpoint {path}: cannot be read ({error.strerror or error})") from error


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _is_safetensors(path: Path) -> bool:
    """By name, or by the ``{`` behind the length of the header: hubs rename files."""
    with path.open("rb") as file:
        return path.suffix.lower() == ".safetensors" or file.read(9)[8:] == b"{"


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise UserError(f"checkpoint {path}: the file is empty")
    if not start.startswith((ZIP, PICKLE)):
        name = _foreign_global(path)
        detail = f"it begins with {start!r}" if name is None else f"a bare pickle that holds {name}"
        raise UserError(f"checkpoint {path}: not a checkpoint ({detail}): torch.save writes zip or pickle")
    zipped = start == ZIP
    if zipped:
        _check_zip(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about the pickle's version
            return load(path, map_location="cpu", mmap=zipped)
    except Exception as error:  # a hostile or damaged file may raise anything here
        raise UserError(f"checkpoint {path}: {_refusal(error, path)}") from error


def _check_zip(path: Path) -> None:
    """Refuse what torch.save never writes: compressed or overlapping entries, which could unpack to any size."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, struct.error) as error:
        raise UserError(f"checkpoint {path}: damaged or cut off ({error}); fetch it again") from error
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise UserError(f"checkpoint {path}: a TorchScript archive holds a program; save its state_dict() instead")
    size = path.stat().st_size
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or sum(e.file_size for e in entries) > size:
        raise UserError(f"checkpoint {path}: a zip whose entries unpack to more than the file, not one of torch.save")


def _refusal(error: Exception, path: Path) -> str:
    text = str(error)
    found = re.search(r"GLOBAL `?([\w.<>]+)", text)
    unreadable = "Unsupported operand" in text  # of a newer pickle protocol than torch.save's
    if name := found[1] if found else _foreign_global(path) if unreadable else None:
        return f"cannot be read safely: it holds {name}, and only tensors and plain containers are accepted"
    if unreadable and zipfile.is_zipfile(path):
        return (
            "cannot be read safely: its pickle protocol is not torch.save's own; save it again without pickle_protocol"
        )
    if found := re.search(r"WeightsUnpickler error:\s*(.+)", text):
        return f"cannot be read safely: it holds more than tensors and plain containers ({found[1].strip()[:200]})"
    return f"damaged or not a checkpoint ({(text.strip().splitlines() or [type(error).__name__])[0][:200]})"


def _foreign_global(path: Path) -> str | None:
    """The first class or function in a pickle that is not of torch's own making; nothing is unpickled."""
    return next((name for name in _globals(_pickle_start(path)) if not TORCH_GLOBALS.fullmatch(name)), None)


def _pickle_start(path: Path) -> bytes:
    with path.open("rb") as file:
        if file.read(4) != ZIP:
            file.seek(0)
            return file.read(1 << 20)
    with zipfile.ZipFile(path) as archive:
        name = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if name is None:
            return b""
        with archive.open(name) as entry:
            return entry.read(1 << 20)


def _globals(pickled: bytes) -> Iterator[str]:
    """Names of the classes and functions in a pickle, as far as it can be read."""
    strings: list[str] = []
    memo: list[str] = []
    top = ""
    with suppress(ValueError):
        for operation, argument, _ in pickletools.genops(pickled):
            if operation.name == "GLOBAL":
                yield str(argument).replace(" ", ".")
            elif operation.name == "STACK_GLOBAL":
                yield ".".join(strings[-2:])
            elif operation.name == "MEMOIZE":
                memo.append(top)
            if operation.name in ("BINGET", "LONG_BINGET") and isinstance(argument, int) and argument < len(memo):
                strings.append(memo[argument])
            elif operation.name != "MEMOIZE":
                top = argument if isinstance(argument, str) else ""
                strings += [top] if top else []


def _read_safetensors(path: Path) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
    declared = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
    if not 2 <= declared <= min(MAX_HEADER, size - 8):
        raise UserError(f"checkpoint {path}: not a safetensors file (header of {declared} bytes in a file of {size})")
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            notes = file.metadata() or {}
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise UserError(f"checkpoint {path}: damaged or not safetensors ({str(error).splitlines()[0]})") from error
    if not state:
        raise UserError(f"checkpoint {path}: no tensors in it")
    return Checkpoint(path, state, meta=_json_object(notes.get(META_KEY, "{}")))


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _unwrap(path: Path, data: Any) -> Checkpoint:
    """Find the state dict in what was loaded: itself, or under one of the usual names, to any depth."""
    trail: list[str] = []
    beside: list[str] = []
    outer = data if isinstance(data, Mapping) else {}
    while isinstance(data, Mapping) and (name := next((w for w in WRAPPERS if isinstance(data.get(w), Mapping)), None)):
        beside += [str(key) for key in data if key not in (name, "meta", "head")]
        trail, data = [*trail, name], data[name]
    if not isinstance(data, Mapping):
        raise UserError(f"checkpoint {path}: it holds a {type(data).__name__}, not a dict of tensors")
    state = {str(key): value for key, value in data.items() if isinstance(value, Tensor)}
    beside += [str(key) for key, value in data.items() if not isinstance(value, Tensor)]
    if not state:
        raise UserError(
            f"checkpoint {path}: no state dict of tensors in it (it holds {', '.join(beside[:5]) or 'nothing'})"
        )
    for key, tensor in state.items():
        _check_plain(path, key, tensor)
    meta, head, arch = (outer.get(name) if trail else None for name in ("meta", "head", "arch"))
    head = {str(k): v for k, v in head.items() if isinstance(v, Tensor)} if isinstance(head, Mapping) else {}
    return Checkpoint(path, state, ".".join(trail), dict(meta) if isinstance(meta, Mapping) else {}, head,
                      tuple(beside), arch if isinstance(arch, str) else None)  # fmt: skip


def _check_plain(path: Path, key: str, tensor: Tensor) -> None:
    """Refuse tensors that are not what they seem: sparse or quantised, or views that repeat a few stored values."""
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise UserError(f"checkpoint {path}: {key} is sparse or quantised; plain tensors are expected")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UserError(
            f"checkpoint {path}: {key} has shape {tuple(tensor.shape)}, more values than the file holds for it"
        )


def check_output(path: str | Path, force: bool, source: Path | None = None) -> Path:
    """Refuse an output that cannot be written, before any work is done.

    Raises: UserError.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"output {path}: its name must end in {' or '.join(SUFFIXES)}")
    if path.is_dir():
        raise UserError(f"output {path}: it is a directory, give a file name")
    if source is not None and path.exists() and path.samefile(source):
        raise UserError(f"output {path}: it is the input itself, give another name")
    if path.exists() and not force:
        raise UserError(f"output {path}: it exists already; give --force to overwrite it")
    return path


def check_report(path: str | Path, *others: str | Path) -> None:
    """Refuse a report that cannot be written or would replace one of the other files, before any work is done.

    Raises: UserError.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"--report {path}: it is a directory, give a file name")
    if path.resolve() in [Path(other).resolve() for other in others] or any(
        path.exists() and Path(other).exists() and path.samefile(other) for other in others
    ):
        raise UserError(f"--report {path}: it is the input or the output, give another name")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise UserError(f"--report {path}: {parent} is no folder that can be written")


def _own(tensor: Tensor) -> Tensor:
    """A copy where the tensor is part of a larger storage, all of which torch.save would write."""
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size() else tensor


def save_checkpoint(
    file: Path, state: Mapping[str, Tensor], meta: Mapping[str, Any], head: Mapping[str, Tensor], safe: bool
) -> None:
    """Write tensors and ``meta`` as safetensors (``safe``; the head is left out) or by ``torch.save``.

    Raises: OSError where the disk is full and the like.
    """
    if safe:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        plain = {key: _own(value).contiguous() for key, value in state.items()}
        try:
            save_file(plain, file, metadata={"format": "pt", META_KEY: json.dumps(meta, default=str)})
        except SafetensorError as error:
            raise OSError(str(error)) from error
        return
    content: dict[str, Any] = dict(meta=dict(meta), state_dict={key: _own(value) for key, value in state.items()})
    if head:
        content["head"] = {key: _own(value) for key, value in head.items()}
    with file.open("wb") as stream:  # a stream: torch.save keeps a file's name in the file, and names are not content
        try:
            torch.save(content, stream)
        except RuntimeError as error:  # torch cannot finish its zip, and says so instead of why
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
