"""Files of ``torch.save``, the zip and the older sequence of pickles: what is checked is what is loaded.

``read`` is the only entrance. It maps the file once, checks it from end to end (``archive``), walks its pickle
(``unpickler``) and builds the tensors itself from what it has checked (``tensors``, ``objects``). No second parser,
which might read the file differently, sees it. A pickle may hold tensors, plain containers, NumPy numbers and arrays,
mmengine's log and ``argparse.Namespace``. Everything else is refused by name.
"""

from __future__ import annotations

import mmap
import pickletools
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from mmms_plugin.errors import UserError, memory_checked
from mmms_plugin.weights.reader.archive import Refusal, read_archive
from mmms_plugin.weights.reader.tensors import NoStorages, RowOfStorages, ZippedStorages, refused
from mmms_plugin.weights.reader.unpickler import unpickle

PICKLE, ZIP = b"\x80", b"PK\x03\x04"
TORCH_GLOBALS = re.compile(r"torch\._utils\..+|torch\.nn\.parameter\..+|torch\.\w+Storage|collections\.OrderedDict")
EXPLAINED = 1 << 20  # bytes of a pickle that are searched for the reason of a refusal


def read(path: str | Path, map_location: Any = "cpu", mapped: bool = True) -> Any:
    """Read a file of ``torch.save``.

    Args:
        path: of the file.
        map_location: as ``torch.load`` takes it.
        mapped: leave tensors in the file until they are used, if the format allows it; the file must not change.

    Raises: UserError, in one line, for anything that is not such a file or holds more than data; RunError if there is
        not enough memory; OSError.
    """
    with memory_checked(f"checkpoint {path}"):
        with open(path, "rb") as file:
            start = file.read(4)
            if not start:
                raise UserError(f"checkpoint {path}: the file is empty")
            # Private: what is written to a tensor stays in memory. Closed when its last tensor is gone.
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        try:
            return _read_zip(data, map_location, mapped) if start == ZIP else _read_row(data, map_location)
        except Refusal as error:
            raise UserError(f"checkpoint {path}: {error}") from error


def _read_zip(data: mmap.mmap, map_location: Any, mapped: bool) -> Any:
    entries = read_archive(data)
    if "data.pkl" not in entries:
        raise Refusal("damaged or not a checkpoint (no data.pkl in it)")
    place, size = entries["data.pkl"]
    pickled = data[place : place + size]
    try:
        return unpickle(pickled, ZippedStorages(data, entries, map_location, mapped))[0]
    except Refusal as error:
        if explained := _explained(error, pickled):
            raise explained from error
        raise


def _read_row(data: mmap.mmap, map_location: Any) -> Any:
    """Read the older format: magic number, protocol, system, content, keys of the storages, then the storages."""
    if data[:1] != PICKLE:
        raise _not_of_torch(data)
    storages = RowOfStorages(data, map_location)
    try:
        magic, place = unpickle(data, NoStorages())
        if magic != torch.serialization.MAGIC_NUMBER:
            raise _not_of_torch(data)
        for _ in ("protocol", "system"):
            _, place = unpickle(data, NoStorages(), place)
        content, place = unpickle(data, storages, place)
        keys, place = unpickle(data, NoStorages(), place)
    except Refusal as error:
        if explained := _explained(error, data[:EXPLAINED]):
            raise explained from error
        raise
    storages.fill(keys, place)
    return content


def _not_of_torch(data: mmap.mmap) -> Refusal:
    name = _foreign_global(data[:EXPLAINED])
    detail = f"it begins with {data[:4]!r}" if name is None else f"a bare pickle that holds {name}"
    return Refusal(f"not a checkpoint ({detail}): torch.save writes zip or pickle")


def _explained(error: Refusal, pickled: bytes) -> Refusal | None:
    """For a pickle protocol newer than that of torch.save: name what the pickle holds, or what to do about it."""
    if "Unsupported operand" not in str(error):
        return None
    if name := _foreign_global(pickled[:EXPLAINED]):
        return refused(name)
    detail = "its pickle protocol is not the default of torch.save; save it again without pickle_protocol"
    return Refusal(f"cannot be read safely: {detail}")


def _foreign_global(pickled: bytes) -> str | None:
    """The first class or function in a pickle that is not one of torch's; nothing is unpickled."""
    return next((name for name in _globals(pickled) if not TORCH_GLOBALS.fullmatch(name)), None)


def _globals(pickled: bytes) -> Iterator[str]:
    """Names of the classes and functions in a pickle, as far as it can be read."""
    texts: list[str] = []
    memo: list[str] = []
    top = ""
    with suppress(Exception):  # a damaged pickle; this only explains a refusal
        for operation, argument, _ in pickletools.genops(pickled):
            if operation.name == "GLOBAL":
                yield str(argument).replace(" ", ".")
            elif operation.name == "STACK_GLOBAL":
                yield ".".join(texts[-2:])
            elif operation.name == "MEMOIZE":
                memo.append(top)
            if operation.name in ("BINGET", "LONG_BINGET") and isinstance(argument, int) and argument < len(memo):
                texts.append(memo[argument])
            elif operation.name != "MEMOIZE":
                top = argument if isinstance(argument, str) else ""
                texts += [top] if top else []
