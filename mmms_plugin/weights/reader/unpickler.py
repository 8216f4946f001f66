"""A pickle of ``torch.save``, read operation by operation with a budget for time and memory; nothing in it is run.

Names of classes and functions stay names: a call looks up how such a value is made here (``objects``, ``tensors``), or
is refused. Beyond what ``torch.load(weights_only=True)`` refuses:

1. A tuple that contains the same tuple twice, thirty levels deep, takes a billion steps to hash as a dict's key, and
   keys can be chosen to collide. Tuples are limited in depth and weight, and all keys together in what hashing and
   comparing them costs (``MAX_HASHED``).
2. Ten bytes may ask for a tensor of a terabyte, or copy a text a million times. Storages must be in the file, tensors
   inside their storages, and what is copied may not exceed a few times the pickle (``MAX_COPIES``).
"""

from __future__ import annotations

from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import Counter, OrderedDict
from collections.abc import Iterable
from mmap import mmap
from pickle import decode_long
from struct import calcsize, unpack
from typing import Any

import torch
from torch import Tensor, nn
from torch.storage import TypedStorage

from mmms_plugin.errors import first_line
from mmms_plugin.weights.reader.archive import Refusal
from mmms_plugin.weights.reader.objects import CALLED, NEW, Name, Unfinished
from mmms_plugin.weights.reader.tensors import DTYPES, STORAGE, TENSORS, Storages, part_of, refused, set_attributes

MAX_OPERATIONS = 3_000_000  # about three seconds; a detector's checkpoint has some 30,000
MAX_CALLS = 150_000  # tensors, dicts, ... made; about five seconds of tensors
MAX_DEPTH = 50  # of tuples in tuples
MAX_WEIGHT = 1_000_000  # values in a tuple, repeated ones counted each time
MAX_HASHED = 20_000  # values in all keys that can be chosen to collide: comparing them all takes seconds
COLLIDING = 4  # values that such a number counts for
HUGE = 2**60  # smaller integers are their own hash
MAX_COPIES = 4  # bytes and items copied into new objects, in sizes of the pickle
TYPED = "torch._tensor._rebuild_from_type_v2"
TENSOR_CLASSES: dict[str, type] = {"torch.Tensor": Tensor, "torch.nn.parameter.Parameter": nn.Parameter}


def unpickle(data: bytes | mmap, storages: Storages, start: int = 0) -> tuple[Any, int]:
    """The value of one pickle, and where the pickle ends.

    Raises: Refusal if it is damaged, holds more than data, or takes too long.
    """
    reader = _Reader(data, storages, start)
    try:
        return reader.run(), reader.position
    except (Refusal, OSError):
        raise
    except Exception as error:  # wrong operations may raise anything here, or in torch
        detail = f"at byte {reader.position}: {type(error).__name__}: {first_line(error)[:100]}"
        raise Refusal(f"damaged: its pickle cannot be read {detail}") from error


class _Reader:
    """The machine of pickle: a stack, marks, a memo."""

    def __init__(self, data: bytes | mmap, storages: Storages, start: int) -> None:
        self.data, self.position, self.storages = data, start, storages
        self.unfinished: dict[int, Unfinished] = {}  # by the id of the value
        self.tuples: dict[int, tuple[int, int]] = {}  # depth and weight, by the id of the tuple
        self.dicts: list[OrderedDict[Any, Any]] = []  # those with attributes
        self.hashed = self.calls = 0
        self.copies = MAX_COPIES * (len(data) - start) + 1000
        # What the process allows by torch.serialization.add_safe_globals.
        allowed = (entry if isinstance(entry, tuple) else (entry, f"{entry.__module__}.{entry.__qualname__}")
                   for entry in torch.serialization.get_safe_globals())  # fmt: skip
        self.allowed: dict[str, Any] = {name: function for function, name in allowed}

    def run(self) -> Any:
        """Execute operations, the most frequent first, until the pickle ends; its value."""
        stack: list[Any] = []
        marks: list[list[Any]] = []
        memo: dict[int, Any] = {}
        for _ in range(MAX_OPERATIONS):
            match self._take(1):
                case b"q":  # BINPUT
                    memo[self._number("<B")] = stack[-1]
                case b"r":  # LONG_BINPUT
                    memo[self._number("<I")] = stack[-1]
                case b"h":  # BINGET
                    stack.append(memo[self._number("<B")])
                case b"j":  # LONG_BINGET
                    stack.append(memo[self._number("<I")])
                case b"K":  # BININT1
                    stack.append(self._number("<B"))
                case b"M":  # BININT2
                    stack.append(self._number("<H"))
                case b"J":  # BININT
                    stack.append(self._number("<i"))
                case b"(":  # MARK
                    marks.append(stack)
                    stack = []
                case b"t":  # TUPLE
                    items, stack = stack, marks.pop()
                    stack.append(self._tuple_of(items))
                case b"\x85" | b"\x86" | b"\x87" as code:  # TUPLE1, TUPLE2, TUPLE3
                    count = code[0] - 0x84
                    if len(stack) < count:
                        raise IndexError
                    stack[-count:] = [self._tuple_of(stack[-count:])]
                case b"X":  # BINUNICODE
                    stack.append(str(self._take(self._number("<I")), "utf-8", "surrogatepass"))
                case b"c":  # GLOBAL
                    stack.append(self._named(self._line(), self._line()))
                case b"R":  # REDUCE
                    arguments = stack.pop()
                    stack[-1] = self._started(self._called(stack[-1], arguments))
                case b"Q":  # BINPERSID
                    stack.append(self._storage(stack.pop()))
                case b"\x89":  # NEWFALSE
                    stack.append(False)
                case b"\x88":  # NEWTRUE
                    stack.append(True)
                case b"N":  # NONE
                    stack.append(None)
                case b")":  # EMPTY_TUPLE
                    stack.append(self._tuple_of(()))
                case b"G":  # BINFLOAT
                    stack.append(self._number(">d"))
                case b"\x8a":  # LONG1
                    stack.append(decode_long(self._take(self._number("<B"))))
                case b"U":  # SHORT_BINSTRING
                    stack.append(self._take(self._number("<B")).decode())  # as torch decodes it
                case b"]":  # EMPTY_LIST
                    stack.append([])
                case b"}":  # EMPTY_DICT
                    stack.append({})
                case b"\x8f":  # EMPTY_SET
                    stack.append(set())
                case b"a":  # APPEND
                    item = stack.pop()
                    self._extend(stack[-1], [item])
                case b"e":  # APPENDS
                    items, stack = stack, marks.pop()
                    self._extend(stack[-1], items)
                case b"s":  # SETITEM
                    value, key = stack.pop(), stack.pop()
                    self._update(stack[-1], [key, value])
                case b"u":  # SETITEMS
                    items, stack = stack, marks.pop()
                    self._update(stack[-1], items)
                case b"\x81":  # NEWOBJ
                    arguments = stack.pop()
                    stack[-1] = self._started(self._new(stack[-1], arguments))
                case b"b":  # BUILD
                    state = stack.pop()
                    self._build(stack[-1], state)
                case b"\x80":  # PROTO
                    self._take(1)
                case b".":  # STOP
                    if names := [waiting.name for waiting in self.unfinished.values() if waiting.name]:
                        raise Refusal(f"damaged: a {names[0]} without its state")
                    for owner in self.dicts:
                        _check_metadata(owner)
                    return stack.pop()
                case code:
                    raise Refusal(f"Unsupported operand {code[0]}")
        raise Refusal(f"its pickle has more than {MAX_OPERATIONS:,} operations; a checkpoint of tensors has fewer")

    def _take(self, count: int) -> bytes:
        taken = self.data[self.position : self.position + count]
        if len(taken) != count:
            raise EOFError
        self.position += count
        return taken

    def _number(self, form: str) -> Any:
        return unpack(form, self._take(calcsize(form)))[0]

    def _line(self) -> str:
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise EOFError
        line = self.data[self.position : end].decode()
        self.position = end + 1
        return line

    def _tuple_of(self, items: Iterable[Any]) -> tuple[Any, ...]:
        value = tuple(items)
        depth, weight = 0, 1 + len(value)
        for item in value:
            if type(item) is tuple:
                inner_depth, inner_weight = self._size_of(item)
                depth, weight = max(depth, inner_depth), weight + inner_weight
            elif isinstance(item, frozenset | torch.Size):
                weight += len(item)
        if depth >= MAX_DEPTH or weight > MAX_WEIGHT:
            raise Refusal(f"tuples nested more than {MAX_DEPTH} deep, or one of more than {MAX_WEIGHT:,} values")
        self.tuples[id(value)] = depth + 1, weight
        return value

    def _size_of(self, value: tuple[Any, ...]) -> tuple[int, int]:
        """Depth and weight of a tuple; those not made here do not hold others."""
        return self.tuples.get(id(value), (1, 1 + len(value)))

    @staticmethod
    def _extend(owner: Any, items: list[Any]) -> None:
        if type(owner) is not list:
            raise Refusal(f"damaged: items for a {type(owner).__name__}, where a list is expected")
        owner.extend(items)

    def _update(self, owner: Any, items: list[Any]) -> None:
        if type(owner) not in (dict, OrderedDict, Counter):
            raise Refusal(f"damaged: items for a {type(owner).__name__}, where a dict is expected")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str:
                self._charge(key, len(owner))
            owner[key] = value

    def _charge(self, key: Any, held: int = 0) -> None:
        """Count what hashing a key costs, and comparing it with others of the same hash.

        The hash of strings and bytes is secret. A small integer is its own hash: one that is not larger than the number
        of keys has a place of its own in their table; larger ones can be chosen to walk past all others.

        Args:
            held: number of keys that are there already.
        """
        if isinstance(key, str | bytes | None) or (isinstance(key, int) and 0 <= key <= held):
            return
        if isinstance(key, int) and -HUGE < key < HUGE:
            self.hashed += 1
        elif type(key) is tuple:
            self.hashed += self._size_of(key)[1]
        else:
            self.hashed += COLLIDING + (len(key) if isinstance(key, frozenset | torch.Size) else 0)
        if self.hashed > MAX_HASHED:
            raise Refusal(f"its keys hold more than {MAX_HASHED:,} values; a checkpoint's keys are short texts")

    def _named(self, module: str, name: str) -> Any:
        """A dtype, or the name of a class or function that is known here."""
        if (module, name) in NAME_MAPPING:
            module, name = NAME_MAPPING[module, name]
        else:
            module = IMPORT_MAPPING.get(module, module)
        text = f"{module}.{name}"
        if module == "torch" and isinstance(value := getattr(torch, name, None), torch.dtype):
            return value
        if (
            text in CALLED
            or text in TENSORS
            or text in TENSOR_CLASSES
            or text == TYPED
            or text in self.allowed
            or ((storage := STORAGE.fullmatch(text)) and storage[1] in DTYPES)
        ):
            return Name(text)
        raise refused(text)

    def _storage(self, reference: Any) -> TypedStorage:
        """For ``('storage', type, key, location, numel)``, in the older format followed by a view."""
        match reference:
            case ("storage", Name(text=name), str(key), str(location), int(count), *view) if count >= 0:
                kind = STORAGE.fullmatch(name)
                if kind is None or len(view) > 1:
                    raise Refusal("damaged: a reference to something that is not a storage")
                storage = self.storages.find(kind[1], key, location, count)
                return part_of(storage, view[0]) if view and view[0] is not None else storage
            case _:
                raise Refusal("damaged: a reference to something that is not a storage")

    def _called(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Name) or type(arguments) is not tuple:
            raise Refusal("damaged: a call of something that is not a function")
        name = function.text
        self.calls += 1
        if self.calls > MAX_CALLS:
            raise Refusal(f"its pickle makes more than {MAX_CALLS:,} objects; a checkpoint has fewer")
        self._count_copies(arguments)
        if name in TENSORS:
            return TENSORS[name](*arguments)
        if name == TYPED:
            return self._typed(*arguments)
        if name in CALLED:
            self._count_hashes(name, arguments)
            return CALLED[name](*arguments)
        if name in self.allowed:
            return self.allowed[name](*arguments)
        raise refused(name)

    def _typed(self, function: Any, cls: Any, arguments: Any, state: Any) -> Tensor:
        """A tensor of another class, or with attributes."""
        name = cls.text if isinstance(cls, Name) else ""
        known = TENSOR_CLASSES.get(name) or self.allowed.get(name)
        if not isinstance(function, Name) or function.text not in TENSORS or not isinstance(known, type):
            raise Refusal("damaged: a tensor of something that is not a class")
        tensor = self._called(function, arguments)
        return set_attributes(tensor if type(tensor) is known else tensor.as_subclass(known), state, known)

    def _count_copies(self, values: tuple[Any, ...]) -> None:
        self.copies -= sum(len(value) for value in values if isinstance(value, str | bytes | list | tuple | dict))
        if self.copies < 0:
            raise Refusal("its objects repeat the values of the file many times; those of a checkpoint do not")

    def _count_hashes(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Charge the keys of sets and dicts that are made from lists and dicts."""
        for argument in arguments:
            if name == "collections.OrderedDict" and type(argument) is list:
                if not all(type(pair) in (list, tuple) and len(pair) == 2 for pair in argument):
                    raise Refusal("damaged: a dict that is not made of pairs")
                argument = [pair[0] for pair in argument]
            for key in argument if isinstance(argument, list | dict) else ():
                self._charge(key)

    def _new(self, function: Any, arguments: Any) -> Any:
        """An object of a class, made without calling its ``__init__``."""
        if type(arguments) is not tuple:
            raise Refusal("damaged: arguments that are not a tuple")
        if not isinstance(function, Name):
            raise Refusal("damaged: an object without a class")
        name = function.text
        if name in NEW:
            return NEW[name](*arguments)
        if name in self.allowed and name not in CALLED:
            return self.allowed[name].__new__(self.allowed[name], *arguments)
        raise refused(name)

    def _started(self, value: Any) -> Any:
        if not isinstance(value, Unfinished):
            return value
        self.unfinished[id(value.value)] = value
        return value.value

    def _build(self, owner: Any, state: Any) -> None:
        """Give an object its state, or an OrderedDict its attributes (``_metadata``)."""
        self._count_copies(state if isinstance(state, tuple) else (state,))
        waiting = self.unfinished.pop(id(owner), None)
        if waiting is not None:
            if isinstance(state, dict) and any(id(part) in self.unfinished for part in state.values()):
                raise Refusal("damaged: an object with a state that is not complete")
            waiting.fill(owner, state)
        elif type(owner) is OrderedDict:
            if not isinstance(state, dict):
                raise Refusal(f"damaged: a {type(state).__name__} where a dict is expected")
            set_attributes(owner, state, OrderedDict)
            self.dicts.append(owner)
        elif type(owner) in self.allowed.values():
            owner.__setstate__(state) if hasattr(owner, "__setstate__") else vars(owner).update(state)
        else:
            kind = "tensor" if isinstance(owner, Tensor) else type(owner).__name__
            raise Refusal(f"it holds a {kind} with a state of its own; plain tensors are expected")


def _check_metadata(state: OrderedDict[Any, Any]) -> None:
    """Refuse notes beside weights, ``_metadata``, that ``load_state_dict`` would stumble over."""
    metadata = getattr(state, "_metadata", {})
    notes = metadata.values() if isinstance(metadata, dict) else [None]
    if not all(isinstance(note, dict) and isinstance(note.get("version"), int | None) for note in notes):
        raise Refusal("damaged: its _metadata is not one of a state dict: a dict for each module, with its version")
