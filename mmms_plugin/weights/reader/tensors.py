"""Storages and tensors, built from a pickle's description of them once it is known to fit the file."""

from __future__ import annotations

import mmap
import re
import struct
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.storage import TypedStorage

from mmms_plugin.errors import first_line
from mmms_plugin.weights.reader.archive import Refusal

MAX_DIMENSIONS = 16
BLOCK = 1 << 26  # bytes copied at once
ALIGNMENT = 16  # bytes, of the largest type; torch.save aligns to 64
DTYPES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64,
    "ComplexHalf": torch.complex32, "Untyped": torch.uint8,
}  # fmt: skip
STORAGE = re.compile(r"torch\.(?:cuda\.|storage\.)?(\w+)Storage")
QUANTISED = re.compile(r"torch\.qu?int.+")  # a type alone is a harmless value; a tensor of it needs a scale
UNUSUAL = ("sparse", "nested", "quantised", "meta")  # kinds of tensors that a refusal names


class Storages:
    """The storages of one file, by key.

    Args:
        map_location: where they go, as ``torch.load`` takes it.
    """

    def __init__(self, map_location: Any) -> None:
        self._restore = torch.serialization._get_restore_location(map_location)
        self._stored: dict[str, tuple[str, int, TypedStorage]] = {}

    def find(self, kind: str, key: str, location: str, count: int) -> TypedStorage:
        """``count`` values of a type such as 'Float'; the same object for the same key.

        Raises: Refusal if the file does not hold them, or holds others under this key.
        """
        if key in self._stored:
            known_kind, known_count, storage = self._stored[key]
            if (known_kind, known_count) != (kind, count):
                raise Refusal(f"damaged: storage {key[:40]} has two sizes or types")
            return storage
        dtype = DTYPES[kind]
        untyped = self._read(key, count * dtype.itemsize, kind)
        try:
            untyped = self._restore(untyped, location)
        except RuntimeError as error:  # a device that this machine does not have
            raise Refusal(f"cannot be put where it should be ({first_line(error)[:200]})") from error
        storage = TypedStorage(wrap_storage=untyped, dtype=dtype, _internal=True)
        self._stored[key] = kind, count, storage
        return storage

    def _read(self, key: str, size: int, kind: str) -> torch.UntypedStorage:
        raise NotImplementedError


class NoStorages(Storages):
    """For a pickle without storages."""

    def __init__(self) -> None:
        super().__init__("cpu")

    def _read(self, key: str, size: int, kind: str) -> torch.UntypedStorage:
        raise Refusal("damaged: a tensor where plain numbers belong")


class ZippedStorages(Storages):
    """Storages in the entries ``data/0``, ``data/1``, ... of a zip.

    Args:
        data: the file, mapped for private writing.
        entries: name -> place and size.
        mapped: leave the values in the file until they are used.
    """

    def __init__(
        self, data: mmap.mmap, entries: Mapping[str, tuple[int, int]], map_location: Any, mapped: bool
    ) -> None:
        super().__init__(map_location)
        self._data, self._file = data, torch.frombuffer(data, dtype=torch.uint8)
        self._entries, self._mapped = entries, mapped
        order = data[slice(*_span(entries["byteorder"]))] if "byteorder" in entries else b"little"
        if order not in (b"little", b"big"):
            raise Refusal(f"damaged: its byte order is {order[:20]!r}")
        self._swapped = order.decode() != sys.byteorder

    def _read(self, key: str, size: int, kind: str) -> torch.UntypedStorage:
        place, held = self._entries.get(f"data/{key}", (0, None))
        if held != size:
            detail = "does not hold it" if held is None else f"has {held}"
            raise Refusal(f"damaged: storage {key[:40]} should have {size} bytes, the file {detail}")
        if not size:
            return torch.UntypedStorage(0)
        if self._mapped and not self._swapped and place % ALIGNMENT == 0:
            return self._file.untyped_storage()[place : place + size]
        if self._swapped and kind == "Untyped":
            raise Refusal(f"cannot be read here: storage {key[:40]} has another byte order and no type")
        storage = torch.UntypedStorage(size)
        _copy(self._data, place, storage, forget=not self._mapped)
        if self._swapped:
            storage.byteswap(DTYPES[kind])
        return storage


class RowOfStorages(Storages):
    """Storages of the older format, which follow the pickles in an order that is known last.

    They are allocated first, no more than the file can hold, and filled by ``fill``.
    """

    def __init__(self, data: mmap.mmap, map_location: Any) -> None:
        super().__init__(map_location)
        self._data, self._left = data, len(data)

    def _read(self, key: str, size: int, kind: str) -> torch.UntypedStorage:
        self._left -= size
        if self._left < 0:
            raise Refusal(
                f"damaged or cut off: storage {key[:40]} has {size} bytes, more than the file; fetch it again"
            )
        return torch.UntypedStorage(size)

    def fill(self, keys: object, position: int) -> None:
        """Read for each storage the number of elements (8 bytes) and the elements; the last one ends the file.

        Args:
            keys: of the storages, in the order of the file.
            position: where the first begins.
        Raises: Refusal if anything is not where it should be.
        """
        names = keys if isinstance(keys, list) and all(isinstance(key, str) for key in keys) else []
        if set(names) != set(self._stored) or len(names) != len(self._stored):
            raise Refusal("damaged: its list of storages is not that of its tensors")
        for key in names:
            _, count, storage = self._stored[key]
            stated, size = self._data[position : position + 8], count * storage.dtype.itemsize
            if len(stated) < 8 or struct.unpack("<q", stated)[0] != count:
                raise Refusal(f"damaged or cut off: storage {key[:40]} is not where it should be; fetch it again")
            position += 8
            if position + size <= len(self._data):
                _copy(self._data, position, storage._untyped_storage, forget=True)
            position += size
        if position != len(self._data):
            held = len(self._data)
            raise Refusal(f"damaged or cut off: {position} bytes expected, the file has {held}; fetch it again")


def _copy(data: mmap.mmap, place: int, storage: torch.UntypedStorage, forget: bool) -> None:
    """Fill a storage with bytes of the file.

    Args:
        forget: release the file's pages from this process's memory; not if tensors are mapped.
    """
    values = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)  # type: ignore[call-overload]
    for start in range(0, len(values), BLOCK):
        part = values[start : start + BLOCK]
        part.copy_(torch.frombuffer(data, dtype=torch.uint8, offset=place + start, count=len(part)))
        if forget and hasattr(data, "madvise"):
            data.madvise(mmap.MADV_DONTNEED)


def _span(entry: tuple[int, int]) -> tuple[int, int]:
    return entry[0], entry[0] + entry[1]


def part_of(storage: TypedStorage, view: object) -> TypedStorage:
    """Part of a storage as the older format has it: ``(key, offset, number of values)``."""
    untyped, size = storage._untyped_storage, storage.dtype.itemsize
    match view:
        case (str(), int(offset), int(count)) if offset >= 0 <= count and (offset + count) * size <= untyped.nbytes():
            part = untyped[offset * size : (offset + count) * size]
            return TypedStorage(wrap_storage=part, dtype=storage.dtype, _internal=True)
    raise Refusal("damaged: a part of a storage that lies outside of it")


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *options: Any) -> Tensor:
    """``torch._utils._rebuild_tensor`` and its second version: options are requires_grad, hooks and metadata."""
    return _tensor(storage, offset, size, stride, storage.dtype, *options)


def rebuild_typed_tensor(storage: Any, offset: Any, size: Any, stride: Any, *options: Any) -> Tensor:
    """The third version, with the dtype after the hooks, for dtypes without a storage class."""
    requires_grad, hooks, dtype, *metadata = options
    if not isinstance(dtype, torch.dtype):
        raise Refusal("damaged: a tensor without a type")
    if QUANTISED.fullmatch(str(dtype)):
        raise refused(str(dtype))
    return _tensor(storage, offset, size, stride, dtype, requires_grad, hooks, *metadata)


def _tensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    dtype: torch.dtype,
    requires_grad: object = False,
    hooks: object = None,  # always empty: torch does not save hooks
    metadata: Any = None,
) -> Tensor:
    """A view of a storage. Raises: Refusal unless it lies inside."""
    if not isinstance(storage, TypedStorage):
        raise Refusal(f"damaged: a {type(storage).__name__} where a storage is expected")
    if not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise Refusal("damaged: a tensor whose size, stride or offset is not made of whole numbers")
    if any(type(number) is not int or number < 0 for number in (*size, *stride, offset)):
        raise Refusal("damaged: a tensor whose size, stride or offset is not made of whole numbers")
    if len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
        raise Refusal(f"damaged: a tensor of {len(size)} dimensions; allowed are {MAX_DIMENSIONS}")
    held = storage._untyped_storage.nbytes() // dtype.itemsize
    if 0 not in size and offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True)) >= held:
        raise Refusal(f"damaged: a tensor of shape {size} reaches behind the {held} values of its storage")
    tensor = torch.empty(0, dtype=dtype, device=storage._untyped_storage.device)
    tensor.set_(storage._untyped_storage, offset, size, stride)  # type: ignore[call-overload]
    if metadata:
        if (
            not isinstance(metadata, dict)
            or not set(metadata) <= {"conj", "neg"}
            or ("conj" in metadata and not dtype.is_complex)
        ):
            raise Refusal("damaged: a tensor with notes that torch does not write")
        torch._utils.set_tensor_metadata(tensor, metadata)
    return tensor.requires_grad_(_flag(requires_grad))


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise Refusal("damaged: a tensor whose requires_grad is not a boolean")
    return value


def rebuild_parameter(tensor: Any, requires_grad: Any, hooks: Any, state: Any = None) -> nn.Parameter:
    if not isinstance(tensor, Tensor):
        raise Refusal(f"damaged: a {type(tensor).__name__} where a tensor is expected")
    return set_attributes(nn.Parameter(tensor, _flag(requires_grad)), state, nn.Parameter)


def set_attributes(value: Any, state: object, cls: type) -> Any:
    """Give a tensor or container the attributes saved with it, except those that would hide one of its class."""
    for attributes in state if isinstance(state, tuple) else (state,):
        if attributes is None:
            continue
        if not isinstance(attributes, dict):
            raise Refusal("damaged: attributes that are not a dict")
        kept = {name: item for name, item in attributes.items() if isinstance(name, str) and not hasattr(cls, name)}
        value.__dict__.update(kept)
    return value


def refused(name: str) -> Refusal:
    """Refuse a class or function, described by the kind of tensor if it makes one."""
    spelt = re.sub("qu?int|qtensor", "quantised", name.lower()).replace("wrapper", "nested")
    kind = next((kind for kind in UNUSUAL if kind in spelt), None) if name.startswith("torch.") else None
    what = f"a {kind} tensor ({name})" if kind else name
    return Refusal(f"cannot be read safely: it holds {what}, and only plain tensors and plain containers are accepted")


TENSORS: dict[str, Callable[..., Tensor]] = {
    "torch._utils._rebuild_tensor": rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": rebuild_typed_tensor,
    "torch._utils._rebuild_parameter": rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": rebuild_parameter,
}
