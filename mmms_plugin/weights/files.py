"""Untrusted checkpoints: read without running anything in them, written whole or not at all.

Formats: ``torch.save`` (zip and the older plain pickle, read by ``weights.reader``) and single-file safetensors.

What ``read_checkpoint`` returns is plain, whatever the file holds: tensors of torch's own class with values in the
file, under names that are strings, and ``meta`` of strings, numbers, lists and dicts, without cycles.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmms_plugin.errors import UserError, first_line, memory_checked, shown
from mmms_plugin.files import check_path, checkpoint_file, refuse_existing
from mmms_plugin.layers.function import FUNCTION
from mmms_plugin.weights.reader import read

SUFFIXES = (".pth", ".safetensors")
# Keys that usually hold the state dict, preferred first: averaged weights only if there are no others.
WRAPPERS = ("state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights", "params",
            "state_dict_ema", "model_ema", "ema_state_dict")  # fmt: skip
META_KEY = "mmms_meta"
TRAINED = "trained"  # key in the meta of a checkpoint of mmms train: what its weights are for
FUNCTIONS = "functions"  # in the meta of safetensors, which has no place for a state dict's metadata
MAX_HEADER = 20_000_000  # bytes of the names and shapes in safetensors
MAX_TENSORS = 5_000  # a Cascade Mask R-CNN of the largest backbone has 1,500
MAX_WRAPPERS = 8
MAX_NAME = 300  # characters
MAX_DIMENSIONS = 16
REPEATED = 4  # bytes of all tensors, in sizes of the file: shared weights are usual, views of views are not

MAX_DEPTH = 20  # of meta
MAX_VALUES = 200_000
MAX_TEXT = 20_000_000  # characters, of all texts together
SCALARS = (str, bool, int, float, type(None))


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        state: key -> tensor, memory-mapped where the format allows, keys as in the file.
        wrapper: where it stands in the file, such as 'state_dict', or '' for a bare state dict.
        meta: the ``meta`` beside it (mmengine's or ours), {} if there is none.
        head: tensors of the classifier that ``mmms convert`` keeps beside a backbone.
        beside: names of everything else in the file.
        left_out: names of entries of meta that are not plain data.
        arch: name of the architecture if the file states it, or None.
        functions: what layers compute with their weights, by the layer's name (``layers.function``).
    """

    path: Path
    state: dict[str, Tensor]
    wrapper: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Tensor] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    arch: str | None = None
    functions: Mapping[str, Any] = field(default_factory=dict)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint.

    Raises: UserError, in one line, for anything that is not a checkpoint or holds more than data; RunError if there is
        not enough memory.
    """
    path = checkpoint_file(path)
    try:
        with memory_checked(f"checkpoint {path}"):
            with path.open("rb") as file:  # safetensors by name, or by the { after its length: hubs rename files
                safe = path.suffix.lower() == ".safetensors" or file.read(9)[8:] == b"{"
            return _read_safetensors(path) if safe else _unwrap(path, read(path))
    except OSError as error:
        raise UserError(f"checkpoint {path}: cannot be read ({error.strerror or error})") from error


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_safetensors(path: Path) -> Checkpoint:
    from safetensors import safe_open

    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
    declared = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
    if not 2 <= declared <= min(MAX_HEADER, size - 8):
        raise UserError(f"checkpoint {path}: not a safetensors file (header of {declared} bytes in a file of {size})")
    try:
        with safe_open(path, framework="pt") as file:
            keys = list(file.keys())
            _check_names(path, keys)
            state = {key: file.get_tensor(key) for key in keys}
            notes = file.metadata() or {}
    except UserError:
        raise
    except Exception as error:  # a damaged header may raise anything, in the library or in torch
        raise UserError(f"checkpoint {path}: damaged or not safetensors ({first_line(error)[:200]})") from error
    if not state:
        raise UserError(f"checkpoint {path}: no tensors in it")
    _check_tensors(path, state)
    meta, left_out = plain_dict(_json_object(notes.get(META_KEY, "{}")))
    functions = meta.pop(FUNCTIONS, {})
    return Checkpoint(
        path, state, meta=meta, left_out=tuple(left_out), functions=functions if isinstance(functions, dict) else {}
    )


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _unwrap(path: Path, data: Any) -> Checkpoint:
    """Find the state dict: the loaded value itself, or under one of the usual names, at any depth.

    ``dict.get`` and ``dict.items`` instead of the methods: a pickle can put attributes of these names on a dict.
    """
    trail: list[str] = []
    beside: list[str] = []
    outer = data if isinstance(data, dict) else {}
    while isinstance(data, dict) and (name := next((w for w in WRAPPERS if isinstance(dict.get(data, w), dict)), None)):
        beside += [key_name(key) for key in dict.keys(data) if key not in (name, "meta", "head")]
        trail, data = [*trail, name], dict.get(data, name)
        if len(trail) > MAX_WRAPPERS:
            raise UserError(f"checkpoint {path}: its weights are wrapped more than {MAX_WRAPPERS} times")
    if not isinstance(data, dict):
        raise UserError(f"checkpoint {path}: it holds a {type(data).__name__}, not a dict of tensors")
    beside += [key_name(key) for key, value in dict.items(data) if not isinstance(value, Tensor)]
    state = _tensors(path, data)
    if not state:
        held = ", ".join(beside[:5]) or "nothing"
        raise UserError(f"checkpoint {path}: no state dict of tensors in it (it holds {held})")
    inner = (dict.get(outer, name) if trail else None for name in ("meta", "head", "arch"))
    meta, head, arch = inner
    plain, left_out = plain_dict(meta)
    return Checkpoint(path, state, ".".join(trail), plain, _tensors(path, head) if isinstance(head, dict) else {},
                      tuple(beside), tuple(left_out), arch if isinstance(arch, str) else None,
                      _functions(data))  # fmt: skip


def _functions(state: dict[Any, Any]) -> dict[str, Any]:
    """What layers wrote into the metadata of a state dict, plain, under names without DataParallel's prefix."""
    metadata = getattr(state, "_metadata", None)
    layers = dict.items(metadata) if isinstance(metadata, dict) else ()
    functions = {name: dict.get(entry, FUNCTION) for name, entry in layers if isinstance(entry, dict)}
    plain, _ = plain_dict({name: value for name, value in functions.items() if isinstance(value, dict)})
    return {name.removeprefix("module."): value for name, value in plain.items()}


def with_functions(state: Mapping[str, Tensor], functions: Mapping[str, Any]) -> dict[str, Tensor]:
    """A state dict with what its layers compute in ``_metadata``, where ``load_state_dict`` looks."""
    content: Any = OrderedDict(state)
    if functions:
        content._metadata = OrderedDict((name, {FUNCTION: function}) for name, function in functions.items())
    return content


def _tensors(path: Path, data: dict[Any, Any]) -> dict[str, Tensor]:
    """The tensors of a dict under their names, plain.

    Raises: UserError for tensors or names that are not what ``Checkpoint`` promises.
    """
    tensors = [(key, value) for key, value in dict.items(data) if isinstance(value, Tensor)]
    names = [key if isinstance(key, str) else key_name(key) for key, _ in tensors]
    _check_names(path, names)
    state = {name: plain_tensor(value) for name, (_, value) in zip(names, tensors, strict=True)}
    _check_tensors(path, state)
    return state


def _check_names(path: Path, names: list[str]) -> None:
    if len(names) > MAX_TENSORS:
        raise UserError(f"checkpoint {path}: it holds {len(names):,} tensors; allowed are {MAX_TENSORS:,}")
    seen: set[str] = set()
    for name in names:
        if len(name) > MAX_NAME:
            raise UserError(f"checkpoint {path}: a tensor's name has {len(name)} characters; allowed are {MAX_NAME}")
        if name in seen or name.encode(errors="replace").decode() != name:  # lone surrogates are not characters
            raise UserError(f"checkpoint {path}: {shown(name)}: a tensor's name must be a text that no other has")
        seen.add(name)


def _check_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not what they seem: sparse, without values, or views that repeat a few stored values."""
    total = 0
    for key, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
            raise UserError(f"checkpoint {path}: {key} is sparse, nested or quantised; plain tensors are expected")
        if tensor.device.type != "cpu" or tensor.dim() > MAX_DIMENSIONS:
            raise UserError(f"checkpoint {path}: {key} has no values, or more than {MAX_DIMENSIONS} dimensions")
        size = tensor.numel() * tensor.element_size()
        if size > tensor.untyped_storage().nbytes():
            raise UserError(
                f"checkpoint {path}: {key} has shape {tuple(tensor.shape)}, more values than the file holds for it"
            )
        total += size
    held = path.stat().st_size
    if total > REPEATED * held:
        raise UserError(
            f"checkpoint {path}: its tensors have {total:,} bytes in a file of {held:,}: they repeat values"
        )


class _Left(Exception):
    """A value that is not plain data, or one too many."""


class _Copier:
    """Copies plain values up to a limit; ``left_out`` has the names of all others."""

    def __init__(self) -> None:
        self.values, self.text = MAX_VALUES, MAX_TEXT
        self.left_out: list[str] = []

    def copy(self, value: Any, depth: int = 0) -> Any:
        self.values -= 1
        if depth > MAX_DEPTH or self.values < 0:
            raise _Left
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, dict):
            return self.mapping(value, depth)
        if isinstance(value, (list, tuple)):
            items = [self.copy(item, depth + 1) for item in list(value)]
            return tuple(items) if isinstance(value, tuple) else items
        if type(value) not in SCALARS or (type(value) is int and not -(2**63) <= value < 2**63):
            raise _Left
        if isinstance(value, str):
            self.text -= len(value)
            if self.text < 0:
                raise _Left
        return value

    def mapping(self, value: dict[Any, Any], depth: int) -> dict[Any, Any]:
        """Plain entries; only here a value may be left out, so that no list loses an item."""
        copied: dict[Any, Any] = {}
        for key, inner in dict.items(value):  # not value.items(): a pickle can put an attribute of that name on it
            try:
                if type(key) not in SCALARS:
                    raise _Left
                copied[self.copy(key)] = self.copy(inner, depth + 1)
            except _Left:
                self.left_out.append(key_name(key))
        return copied


def plain_dict(value: Any) -> tuple[dict[str, Any], list[str]]:
    """The plain data of a dict, copied, and the names of the entries left out; ``{}`` if it is not a dict.

    Plain data are strings, numbers (NumPy's become Python's), None, and lists, tuples and dicts of these. Also left out
    are values nested deeper than ``MAX_DEPTH`` (a dict that contains itself) or after the first ``MAX_VALUES``.
    """
    if not isinstance(value, dict):
        return {}, []
    copier = _Copier()
    copied = copier.mapping(value, 0)
    return {key: inner for key, inner in copied.items() if isinstance(key, str)}, copier.left_out[:100]


def key_name(key: Any) -> str:
    """The name of a key of any type, for a message or a report."""
    return str(key)[:200] if type(key) in SCALARS else f"<{type(key).__name__}>"


def plain_tensor(value: Tensor) -> Tensor:
    """The tensor without the class, attributes and gradient that a file may give it."""
    return Tensor.detach(value).as_subclass(Tensor)


def unviewed(value: Tensor) -> Tensor:
    """The tensor with conjugate and negative views, which safetensors cannot hold, computed."""
    return torch.resolve_neg(torch.resolve_conj(value))


def check_output(path: str | Path, force: bool, source: Path | None = None) -> Path:
    """Refuse an output that cannot be written, before any work is done.

    Raises: UserError.
    """
    path = check_path(path, "output")
    if path.suffix not in SUFFIXES:
        raise UserError(f"output {path}: its name must end in {' or '.join(SUFFIXES)}")
    if path.is_dir():
        raise UserError(f"output {path}: it is a directory, give a file name")
    if source is not None and path.exists() and path.samefile(source):
        raise UserError(f"output {path}: it is the input itself, give another name")
    refuse_existing(path, "output", force)
    return path


def check_report(path: str | Path, *others: str | Path) -> None:
    """Refuse a report that cannot be written or would replace one of the other files, before any work is done.

    Raises: UserError.
    """
    path = check_path(path, "--report")
    for other in others:
        check_path(other, "output")
    if path.is_dir():
        raise UserError(f"--report {path}: it is a directory, give a file name")
    if path.resolve() in [Path(other).resolve() for other in others] or any(
        path.exists() and Path(other).exists() and path.samefile(other) for other in others
    ):
        raise UserError(f"--report {path}: it is the input or the output, give another name")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise UserError(f"--report {path}: {parent} is not a folder that can be written to")


def _own(tensor: Tensor) -> Tensor:
    """A copy where the tensor is part of a larger storage, all of which torch.save would write."""
    if not tensor.numel():  # it may have the address of another
        return torch.empty_like(tensor)
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size() else tensor


def _owned(state: Mapping[str, Tensor], kinds: dict[int, torch.dtype]) -> dict[str, Tensor]:
    """Tensors as torch.save takes them: memory is shared by those of one type only (``kinds``: of each address)."""
    owned = {}
    for key, value in state.items():
        own = _own(value)
        known = kinds.setdefault(own.untyped_storage().data_ptr(), own.dtype)
        owned[key] = own if known == own.dtype else own.clone()
    return owned


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors that share no memory, as safetensors wants them: copies where they do."""
    seen: set[int] = set()
    apart = {}
    for key, value in state.items():
        plain = unviewed(_own(value)).contiguous()
        address = plain.untyped_storage().data_ptr()
        apart[key] = plain.clone() if address in seen and plain.numel() else plain
        seen.add(address)
    return apart


def save_checkpoint(
    file: Path,
    state: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    head: Mapping[str, Tensor],
    safe: bool,
    functions: Mapping[str, Any] | None = None,
) -> None:
    """Write tensors and ``meta`` as safetensors (``safe``; the head is left out) or by ``torch.save``.

    Args:
        functions: what layers compute with their weights, as in ``Checkpoint``.

    Raises: OSError if the disk is full and the like; UserError for a dtype that safetensors does not know.
    """
    if safe:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        notes = {**meta, **({FUNCTIONS: functions} if functions else {})}
        try:
            save_file(_apart(state), file, metadata={"format": "pt", META_KEY: json.dumps(notes)})
        except SafetensorError as error:
            raise OSError(str(error)) from error
        except (KeyError, ValueError) as error:
            types = sorted({str(value.dtype).removeprefix("torch.") for value in state.values()})
            raise UserError(f"output {file.suffix}: not all of these types fit in it: {', '.join(types)}") from error
        return
    kinds: dict[int, torch.dtype] = {}
    content: dict[str, Any] = dict(meta=dict(meta), state_dict=_owned(state, kinds))
    if functions:
        content["state_dict"] = with_functions(content["state_dict"], functions)
    if head:
        content["head"] = _owned(head, kinds)
    with file.open("wb") as stream:  # a stream: torch.save keeps a file's name in the file, and names are not content
        try:
            torch.save(content, stream)
        except RuntimeError as error:  # torch cannot finish its zip, and says so instead of why
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
