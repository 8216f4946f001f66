"""Files of ``torch.save``, the zip and the older row of pickles, checked before torch reads them with ``weights_only``.

The zip's entries, checksums and sizes are checked by ``zip_check``, what the pickle would build by ``pickle_scan``. The
older format has no checksums: its storages must have the sizes that its pickle states, and end where the file ends.
"""

from __future__ import annotations

import mmap
import pickletools
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from mmms_plugin.compat.checkpoints import load
from mmms_plugin.errors import UserError, first_line
from mmms_plugin.weights.pickle_scan import BYTES, Box, ScanError, Scanned, Storage, scan
from mmms_plugin.weights.zip_check import ZipError, read_zip

PICKLE, ZIP = b"\x80", b"PK\x03\x04"
TORCH_GLOBALS = re.compile(r"torch\._utils\..+|torch\.nn\.parameter\..+|torch\.\w+Storage|collections\.OrderedDict")


def load_torch(path: Path, map_location: Any = "cpu", mapped: bool = True) -> Any:
    """What a file of ``torch.save`` holds.

    Every byte is checked first, and that torch's reader will come to an end.

    Args:
        path: of the file.
        map_location: as ``torch.load`` takes it.
        mapped: leave tensors in the file until they are used, where the format allows; the file must stay.

    Raises: UserError, in one line, for anything that is not such a file or holds more than data; OSError.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise UserError(f"checkpoint {path}: the file is empty")
    zipped = start == ZIP
    pickled = b""
    try:
        if zipped:
            pickled, sizes = read_zip(path)
            _check_sizes(scan(pickled).storages, sizes)
        else:
            pickled = _check_pickles(path, start)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about the pickle's version
            return load(path, map_location=map_location, mmap=zipped and mapped)
    except (OSError, UserError):
        raise
    except (ScanError, ZipError) as error:
        raise UserError(f"checkpoint {path}: {_explained(str(error), pickled or _beginning(path))}") from error
    except Exception as error:  # what torch's reader makes of a damaged pickle may be anything
        raise UserError(f"checkpoint {path}: {_refusal(error, pickled)}") from error


def _check_sizes(storages: dict[str, Storage], sizes: dict[str, int]) -> None:
    for key, storage in storages.items():
        if sizes.get(key) != storage.nbytes:
            held = f"has {sizes[key]}" if key in sizes else "does not hold it"
            raise ScanError(f"damaged: storage {key[:40]} should have {storage.nbytes} bytes, the file {held}")


def _check_pickles(path: Path, start: bytes) -> bytes:
    """Check the older format: magic number, protocol, system, the content, the storages' keys, then the storages.

    Returns the bytes of the pickles. Raises: ScanError.
    """
    if not start.startswith(PICKLE):
        raise _not_of_torch(path, start)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        pickles: list[Scanned] = []
        for _ in range(5):
            pickles.append(scan(data, pickles[-1].end if pickles else 0))
            if pickles[0].value != torch.serialization.MAGIC_NUMBER:
                raise _not_of_torch(path, start)
        _check_storages(data, pickles[3].storages, pickles[4])
        return data[: pickles[4].end]


def _not_of_torch(path: Path, start: bytes) -> ScanError:
    name = _foreign_global(_beginning(path))
    detail = f"it begins with {start!r}" if name is None else f"a bare pickle that holds {name}"
    return ScanError(f"not a checkpoint ({detail}): torch.save writes zip or pickle")


def _check_storages(data: mmap.mmap, storages: dict[str, Storage], keys: Scanned) -> None:
    """Each storage is its number of elements (8 bytes), then its values; the last one ends the file."""
    held = keys.value.items if isinstance(keys.value, Box) and keys.value.kind == "list" else []
    listed = [key for key in held if isinstance(key, str) and key in storages]
    if not len(held) == len(listed) == len(set(listed)) == len(storages):
        raise ScanError("damaged: its list of storages is not that of its tensors")
    position = keys.end
    for key in listed:
        storage, stated = storages[key], data[position : position + 8]
        if len(stated) < 8 or struct.unpack("<q", stated)[0] * BYTES[storage.kind] != storage.nbytes:
            raise ScanError(f"damaged or cut off: storage {key[:40]} is not where it should be; fetch it again")
        position += 8 + storage.nbytes
    if position != len(data):
        raise ScanError(f"damaged or cut off: {position} bytes expected, the file has {len(data)}; fetch it again")


def _refusal(error: Exception, pickled: bytes) -> str:
    text = str(error)
    if found := re.search(r"GLOBAL `?([\w.<>]+)", text):
        return f"cannot be read safely: it holds {found[1]}, and only tensors and plain containers are accepted"
    if found := re.search(r"WeightsUnpickler error:\s*(.+)", text):
        return f"cannot be read safely: it holds more than tensors and plain containers ({found[1].strip()[:200]})"
    return _explained(f"damaged or not a checkpoint ({first_line(error)[:200]})", pickled)


def _explained(text: str, pickled: bytes) -> str:
    """For operations of a newer pickle protocol than torch.save's: what the pickle holds, or what to do about it."""
    if "Unsupported operand" not in text:
        return text
    if name := _foreign_global(pickled):
        return f"cannot be read safely: it holds {name}, and only tensors and plain containers are accepted"
    return "cannot be read safely: its pickle protocol is not torch.save's own; save it again without pickle_protocol"


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1 << 20)


def _foreign_global(pickled: bytes) -> str | None:
    """The first class or function in a pickle that is not of torch's own making; nothing is unpickled."""
    return next((name for name in _globals(pickled) if not TORCH_GLOBALS.fullmatch(name)), None)


def _globals(pickled: bytes) -> Iterator[str]:
    """Names of the classes and functions in a pickle, as far as it can be read."""
    strings: list[str] = []
    memo: list[str] = []
    top = ""
    with suppress(Exception):  # of a damaged pickle; this is only to explain a refusal
        for operation, argument, _ in pickletools.genops(pickled[: 1 << 20]):
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
