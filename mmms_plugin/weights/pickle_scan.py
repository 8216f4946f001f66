"""What a pickle would build, found without building it: run before ``torch.load(weights_only=True)`` sees the file.

``weights_only`` stops foreign code, but not a pickle that takes for ever or more memory than there is: a tuple that
contains the same tuple twice, thirty levels deep, is hashed a thousand million times when it becomes a dict's key; ten
bytes ask for a tensor of a terabyte; a tensor may point behind the end of its storage. The scan goes through the
operations that torch's reader knows with stand-ins for the values, and refuses

1. operations, and functions of torch's, that no file of plain tensors needs (sparse, nested, quantised, meta tensors);
2. more than ``MAX_OPERATIONS``, tuples nested deeper than ``MAX_DEPTH``, and keys that take long to hash;
3. tensors that lie outside of their storage. The storages asked for are returned, to be compared with the file.

Classes and functions that are not torch's are left to the allow-list of ``compat.checkpoints``.
"""

from __future__ import annotations

import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from mmap import mmap
from pickle import decode_long
from struct import unpack_from
from typing import Any

MAX_OPERATIONS = 3_000_000  # about three seconds of torch's reader; a detector's checkpoint has some 30,000
MAX_DEPTH = 50  # of tuples in tuples
MAX_WEIGHT = 1_000_000  # values in a tuple, repeated ones counted each time
MAX_HASHED = 20_000  # values in all tuples that become keys, and huge numbers: both can be chosen to collide
HUGE = 2**60
MAX_DIMENSIONS = 16
BYTES = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1,
    "Bool": 1, "ComplexDouble": 16, "ComplexFloat": 8, "ComplexHalf": 4, "Untyped": 1,
}  # fmt: skip
STORAGE = re.compile(r"torch\.(?:cuda\.|storage\.)?(\w+)Storage")
TENSORS = {f"torch._utils._rebuild_tensor{version}" for version in ("", "_v2", "_v3")}
PARAMETERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
# What else of torch's a reduced value may be; the rest is refused with the word that describes it best.
HARMLESS = {"torch.Size", "torch.device", "torch.serialization._get_layout"}
KINDS = ("sparse", "nested", "quantised", "meta")


class ScanError(ValueError):
    """What is wrong with a pickle; the message completes 'checkpoint x.pth: '."""


@dataclass(frozen=True)
class Name:
    """A class or function by its dotted name."""

    text: str


@dataclass(frozen=True)
class Tuple:
    """Its items, the levels of tuples in it, and how many values hashing it visits."""

    items: tuple[Any, ...]
    depth: int
    weight: int


@dataclass(eq=False)
class Box:
    """Anything that changes or is not looked into: a 'dict', 'list', 'tensor', or 'object'.

    Attributes:
        items: of a list, what is in it; of a dict, its keys that take time to hash.
    """

    kind: str
    items: list[Any] = field(default_factory=list)


@dataclass(eq=False)
class Storage:
    """A storage that the file should hold: number of elements and bytes for each."""

    key: str
    kind: str
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * BYTES[self.kind]


@dataclass
class Scanned:
    """The stand-in for a pickle's value, where the pickle ends, and the storages it asks for, by their key."""

    value: Any
    end: int
    storages: dict[str, Storage] = field(default_factory=dict)


def scan(data: bytes | mmap, start: int = 0) -> Scanned:
    """Scan one pickle of the kind that ``torch.save`` writes.

    Raises: ScanError if it must not be loaded, or is none.
    """
    scanner = _Scanner(data, start)
    try:
        return scanner.run()
    except ScanError:
        raise
    except (LookupError, ValueError, TypeError, AttributeError, EOFError) as error:
        raise ScanError(f"damaged: its pickle cannot be read at byte {scanner.position}") from error


def unsupported(operation: int) -> ScanError:
    """For operations that ``torch.save`` never writes; ``files`` looks for a better explanation."""
    return ScanError(f"Unsupported operand {operation}")


class _Scanner:
    """torch's reader with stand-ins: a stack, marks, a memo."""

    def __init__(self, data: bytes | mmap, start: int) -> None:
        self.data, self.position = data, start
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self.hashed = 0
        self.steps: dict[int, Callable[[], None]] = {
            ord(code): getattr(self, f"_{name}") for code, name in OPERATIONS.items()
        }

    def run(self) -> Scanned:
        data, steps = self.data, self.steps
        for _ in range(MAX_OPERATIONS):
            operation = data[self.position]
            self.position += 1
            if operation == 0x2E:  # STOP
                return Scanned(self.stack.pop(), self.position, self.storages)
            step = steps.get(operation)
            if step is None:
                raise unsupported(operation)
            step()
        raise ScanError(f"its pickle has more than {MAX_OPERATIONS:,} operations; a checkpoint of tensors has fewer")

    def _take(self, count: int) -> bytes:
        taken = self.data[self.position : self.position + count]
        if len(taken) != count:
            raise EOFError
        self.position += count
        return taken

    def _number(self, form: str, size: int) -> Any:
        (value,) = unpack_from(form, self._take(size))
        return value

    def _line(self) -> str:
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise EOFError
        line = self.data[self.position : end].decode()
        self.position = end + 1
        return line

    # Values
    def _global(self) -> None:
        module, name = self._line(), self._line()
        if (module, name) in NAME_MAPPING:
            module, name = NAME_MAPPING[module, name]
        else:
            module = IMPORT_MAPPING.get(module, module)
        self.stack.append(Name(f"{module}.{name}"))

    def _none(self) -> None:
        self.stack.append(None)

    def _true(self) -> None:
        self.stack.append(True)

    def _false(self) -> None:
        self.stack.append(False)

    def _int4(self) -> None:
        self.stack.append(self._number("<i", 4))

    def _int1(self) -> None:
        self.stack.append(self._number("<B", 1))

    def _int2(self) -> None:
        self.stack.append(self._number("<H", 2))

    def _long(self) -> None:
        self.stack.append(decode_long(self._take(self._number("<B", 1))))

    def _float(self) -> None:
        self.stack.append(self._number(">d", 8))

    def _text(self) -> None:
        self.stack.append(str(self._take(self._number("<I", 4)), "utf-8", "surrogatepass"))

    def _short_text(self) -> None:
        self.stack.append(self._take(self._number("<B", 1)).decode())  # torch decodes it so, too

    # Containers
    def _empty_tuple(self) -> None:
        self.stack.append(_tuple(()))

    def _empty_list(self) -> None:
        self.stack.append(Box("list"))

    def _empty_dict(self) -> None:
        self.stack.append(Box("dict"))

    def _empty_set(self) -> None:
        self.stack.append(Box("object"))

    def _tuple(self) -> None:
        items = self._marked()
        self.stack.append(_tuple(items))

    def _tuple1(self) -> None:
        self._last(1)

    def _tuple2(self) -> None:
        self._last(2)

    def _tuple3(self) -> None:
        self._last(3)

    def _last(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError
        self.stack[-count:] = [_tuple(self.stack[-count:])]

    def _append(self) -> None:
        self._extend([self.stack.pop()])

    def _appends(self) -> None:
        self._extend(self._marked())

    def _extend(self, items: list[Any]) -> None:
        self._box("list").items.extend(items)

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put([key, value])

    def _setitems(self) -> None:
        self._put(self._marked())

    def _put(self, items: list[Any]) -> None:
        box = self._box("dict")
        costly = [key for key in items[::2] if type(key) is not str and _hash_cost(key)]
        box.items.extend(costly)
        self._charge(costly)

    def _box(self, kind: str) -> Box:
        box = self.stack[-1]
        if not isinstance(box, Box) or box.kind != kind:
            raise ScanError(f"damaged: items for a {_describe(box)}, where a {kind} is expected")
        return box

    def _charge(self, hashed: Iterable[Any]) -> None:
        for value in hashed:
            self.hashed += _hash_cost(value)
            if self.hashed > MAX_HASHED:
                raise ScanError(f"its keys hold more than {MAX_HASHED:,} values; a checkpoint's keys are short texts")

    # Stack and memo
    def _mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _marked(self) -> list[Any]:
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def _get1(self) -> None:
        self.stack.append(self.memo[self._number("<B", 1)])

    def _get4(self) -> None:
        self.stack.append(self.memo[self._number("<I", 4)])

    def _put1(self) -> None:
        self.memo[self._number("<B", 1)] = self.stack[-1]

    def _put4(self) -> None:
        self.memo[self._number("<I", 4)] = self.stack[-1]

    def _proto(self) -> None:
        self._take(1)

    # Objects
    def _persistent(self) -> None:
        """A storage: ``('storage', type, key, location, numel)``, in the older format with a view behind it."""
        match self.stack.pop():
            case Tuple(items=("storage", Name(text=name), str(key), str(), int(numel), *view)) if numel >= 0:
                pass
            case _:
                raise ScanError("damaged: a reference to something that is no storage")
        found = STORAGE.fullmatch(name)
        if found is None or found[1] not in BYTES:
            raise ScanError(_refused(name))
        storage = self.storages.setdefault(key, Storage(key, found[1], numel))
        if (storage.kind, storage.numel) != (found[1], numel):
            raise ScanError(f"damaged: storage {key[:40]} has two sizes or types")
        self.stack.append(_view(storage, view[0]) if view and view[0] is not None else storage)

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._called(self.stack[-1], arguments)

    def _called(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Name) or not isinstance(arguments, Tuple):
            raise ScanError("damaged: a call of what is no function")
        name, items = function.text, arguments.items
        if name in TENSORS:
            _check_tensor(items, name)
            return Box("tensor")
        if name in PARAMETERS:
            _check_kind(items[0], "tensor")
            return Box("tensor")
        if (
            name == "torch._tensor._rebuild_from_type_v2"
        ):  # a tensor with attributes: (function, type, arguments, state)
            result = self._called(items[0], items[2])
            _check_kind(result, "tensor")
            return result
        if name == "torch.Size":
            return items[0] if isinstance(items[0], Tuple) else _tuple(items)
        if name.startswith("torch.") and name not in HARMLESS:
            raise ScanError(_refused(name))
        return self._called_outside(name, items)

    def _called_outside(self, name: str, items: tuple[Any, ...]) -> Any:
        """Of a function that is not torch's: the standard library's here, others in the allow-list."""
        if name.startswith(("builtins.", "collections.")):
            self._charge(_hashed_by(items))  # sets and dicts hash what they are given
        if name == "builtins.bytearray" and not all(isinstance(item, (str, Box)) for item in items):
            raise ScanError("damaged: a bytearray that is not made of bytes")
        if name == "_codecs.encode" and (len(items) != 2 or items[1] not in ("latin1", "latin-1")):
            raise ScanError("damaged: bytes in a form that pickle does not write")
        return Box("dict" if name.startswith("collections.") else "object")

    def _new_object(self) -> None:
        if not isinstance(self.stack.pop(), Tuple):
            raise ScanError("damaged: arguments that are no tuple")
        name = self.stack[-1]
        if not isinstance(name, Name) or name.text.startswith(("torch.", "builtins.", "collections.", "_codecs.")):
            raise ScanError(_refused(name.text) if isinstance(name, Name) else "damaged: an object without a class")
        self.stack[-1] = Box("object")

    def _build(self) -> None:
        """Attributes of an OrderedDict (``_metadata``) or of an object on the allow-list."""
        state, owner = self.stack.pop(), self.stack[-1]
        if not isinstance(owner, Box) or owner.kind not in ("dict", "object"):
            raise ScanError(f"it holds a {_describe(owner)} with a state of its own; plain tensors are expected")
        if owner.kind == "dict":
            _check_kind(state, "dict")


def _tuple(items: Iterable[Any]) -> Tuple:
    kept = tuple(items)
    inner = [item for item in kept if isinstance(item, Tuple)]
    found = Tuple(kept, 1 + max((t.depth for t in inner), default=0), 1 + len(kept) + sum(t.weight for t in inner))
    if found.depth > MAX_DEPTH or found.weight > MAX_WEIGHT:
        raise ScanError(f"tuples nested more than {MAX_DEPTH} deep, or one of more than {MAX_WEIGHT:,} values")
    return found


def _hash_cost(value: Any) -> int:
    if isinstance(value, Tuple):
        return value.weight
    return int(isinstance(value, int) and not -HUGE < value < HUGE)


def _hashed_by(arguments: Iterable[Any]) -> Iterator[Any]:
    """What ``set(...)``, ``OrderedDict(...)`` and the like hash: items, and items of the pairs that are lists."""
    for argument in arguments:
        for item in argument.items if isinstance(argument, (Box, Tuple)) else ():
            yield item
            if isinstance(item, Box):
                yield from item.items[:2]


def _view(storage: Storage, view: Any) -> Storage:
    """Part of a storage as the older format has it: ``(key, offset, numel)``."""
    match view:
        case Tuple(items=(str(key), int(offset), int(numel))) if (
            offset >= 0 <= numel and offset + numel <= storage.numel
        ):
            return Storage(key, storage.kind, numel)
    raise ScanError("damaged: a part of a storage that lies outside of it")


def _check_tensor(items: tuple[Any, ...], name: str) -> None:
    """Raises: ScanError unless a tensor lies in its storage; other arguments are left to torch."""
    storage, offset, size, stride = items[:4]
    _check_kind(storage, "storage")
    lengths = [sides.items for sides in (size, stride) if isinstance(sides, Tuple)]
    numbers = [number for sides in lengths for number in sides] + [offset]
    if len(lengths) != 2 or any(type(number) is not int or number < 0 for number in numbers):
        raise ScanError("damaged: a tensor whose size, stride or offset is not made of whole numbers")
    if len(lengths[0]) != len(lengths[1]) or len(lengths[0]) > MAX_DIMENSIONS:
        raise ScanError(f"damaged: a tensor of {len(lengths[0])} dimensions; allowed are {MAX_DIMENSIONS}")
    if 0 in lengths[0]:
        return
    last = offset + sum((side - 1) * step for side, step in zip(*lengths, strict=True))
    if last >= storage.numel:
        raise ScanError(
            f"damaged: a tensor of shape {lengths[0]} reaches behind the {storage.numel} values of its storage"
        )


def _check_kind(value: Any, kind: str) -> None:
    if kind != ("storage" if isinstance(value, Storage) else value.kind if isinstance(value, Box) else ""):
        raise ScanError(f"damaged: a {_describe(value)} where a {kind} is expected")


def _describe(value: Any) -> str:
    return value.kind if isinstance(value, Box) else type(value).__name__.lower()


def _refused(name: str) -> str:
    """Why a class or function of torch's is refused."""
    spelt = name.lower().replace("qtensor", "quantised").replace("qint", "quantised").replace("wrapper", "nested")
    kind = next((kind for kind in KINDS if kind in spelt), None)
    what = f"a {kind} tensor ({name})" if kind else name
    return f"cannot be read safely: it holds {what}, and only plain tensors and plain containers are accepted"


OPERATIONS = {
    "c": "global", "N": "none", "\x88": "true", "\x89": "false", "J": "int4", "K": "int1", "M": "int2", "\x8a": "long",
    "G": "float", "X": "text", "U": "short_text", ")": "empty_tuple", "]": "empty_list", "}": "empty_dict",
    "\x8f": "empty_set", "t": "tuple", "\x85": "tuple1", "\x86": "tuple2", "\x87": "tuple3", "a": "append",
    "e": "appends", "s": "setitem", "u": "setitems", "(": "mark", "h": "get1", "j": "get4", "q": "put1", "r": "put4",
    "\x80": "proto", "Q": "persistent", "R": "reduce", "\x81": "new_object", "b": "build",
}  # fmt: skip
