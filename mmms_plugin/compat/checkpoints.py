"""Checkpoints of OpenMMLab runs under torch >= 2.6, which loads with ``weights_only=True``.

mmengine 0.10.7 keeps its log beside the weights (``HistoryBuffer`` and NumPy numbers, in ``message_hub``) and cannot
resume or test what it saved itself. ``load`` reads such files. Nothing of NumPy or mmengine is opened to the pickle
for that: each name that these files hold is bound to a class or function of this module, which checks what it is given
and builds the object itself.

1. NumPy arrays: raw bytes under a crafted dtype are pointers, and ``ndarray.__setstate__`` frees memory that others may
   look at. A ``_StoredArray`` collects the checked pieces; the array is made afterwards, numbers only, from a copy.
2. ``HistoryBuffer`` pickles its statistics methods by way of ``getattr``. Here that name returns nothing that could be
   called: mmengine registers the four methods by itself. ``OneCycleLR`` pickles its function in the same way; it is
   put in when the pickle has been read.
3. ``argparse.Namespace`` and ``frozenset``, which training scripts keep their options in, hold plain data only.

The names count during ``load`` and nowhere else: ``torch.load`` of other code is as strict as before.
"""

from __future__ import annotations

import argparse
import math
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer

STATISTICS = ("min", "max", "current", "mean")
# Of NumPy's type characters: booleans, integers and floats; keyed as a pickle names them: b1, i8, f4, ...
NUMERIC = {code: np.dtype(code) for code in (np.dtype(char).str[1:] for char in "?bBhHiIlLqQefd")}
ANNEALING = ("_annealing_cos", "_annealing_linear")  # of mmengine's OneCycleParamScheduler
MAX_DIMENSIONS = 32
MAX_NESTED = 64  # tuples inside tuples


class _StoredDtype:
    """A NumPy dtype on its way out of a pickle: one of ``NUMERIC`` and its byte order."""

    __hash__ = None  # type: ignore[assignment]  # a key of a dict would stay what it is

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if not isinstance(code, str) or code not in NUMERIC:
            raise pickle.UnpicklingError(f"NumPy dtype {code!r}: allowed are booleans, integers and floats")
        self.value = NUMERIC[code]

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 8 or state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"NumPy dtype {self.value}: its state is none of NumPy's")
        if any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError(f"NumPy dtype {self.value} with fields: allowed are plain numbers")
        self.value = self.value.newbyteorder(state[1])


def _numbers(dtype: object, data: object, count: int) -> np.ndarray:
    """``count`` numbers of a stored dtype out of raw bytes, in this machine's byte order; a copy."""
    if not isinstance(dtype, _StoredDtype) or type(data) is not bytes:
        raise pickle.UnpicklingError("NumPy numbers: expected a numeric dtype and bytes")
    if len(data) != count * dtype.value.itemsize:
        raise pickle.UnpicklingError(f"NumPy numbers: {len(data)} bytes for {count} of type {dtype.value}")
    if dtype.value.kind == "b":
        return np.frombuffer(data, np.uint8) != 0  # a boolean is 0 or 1, whatever the byte
    return np.frombuffer(data, dtype.value).astype(dtype.value.newbyteorder("="))


class _StoredArray:
    """A NumPy array on its way out of a pickle; also stands for the class ``numpy.ndarray`` there."""

    __hash__ = None  # type: ignore[assignment]  # as of an array

    def __init__(self) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[1], tuple):
            raise pickle.UnpicklingError("NumPy array: its state is none of NumPy's")
        _, shape, dtype, fortran, data = state
        if len(shape) > MAX_DIMENSIONS or any(type(size) is not int or size < 0 for size in shape):
            raise pickle.UnpicklingError(f"NumPy array of shape {shape!r}: allowed are sizes >= 0")
        self.array = _numbers(dtype, data, math.prod(shape)).reshape(shape, order="F" if fortran else "C")


def _new_array(kind: object, shape: object, code: object) -> _StoredArray:
    """For ``numpy._core.multiarray._reconstruct``; shape and contents come with the state."""
    if kind is not _StoredArray:
        raise pickle.UnpicklingError("NumPy array of a class of its own: allowed is numpy.ndarray")
    return _StoredArray()


def _scalar(dtype: object, data: object) -> np.generic:
    """For ``numpy._core.multiarray.scalar``."""
    return _numbers(dtype, data, 1)[0]


class _StoredHistory(HistoryBuffer):
    """A HistoryBuffer on its way out of a pickle; becomes a plain one with its state."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        raise pickle.UnpicklingError("HistoryBuffer: allowed is one with the state that mmengine saves")

    def __setstate__(self, state: object) -> None:
        state = state if isinstance(state, dict) else {}
        logs, counts = (_one_dimensional(state.get(name)) for name in ("_log_history", "_count_history"))
        longest = state.get("max_length")
        if logs is None or counts is None or len(logs) != len(counts) or type(longest) is not int or longest < 1:
            raise pickle.UnpicklingError("HistoryBuffer: its state is none of mmengine's")
        super().__setstate__(dict(max_length=longest, _log_history=logs, _count_history=counts))
        self.__class__ = HistoryBuffer  # type: ignore[assignment]


def _one_dimensional(value: object) -> np.ndarray | None:
    array = value.array if isinstance(value, _StoredArray) else None
    return array if array is not None and array.ndim == 1 else None


class _OneCycle:
    """Stands for the class ``OneCycleParamScheduler`` in a pickle."""

    def __init__(self) -> None:
        raise pickle.UnpicklingError("OneCycleParamScheduler: allowed is its state, a dict")


class _StoredAnnealing:
    """A function of ``OneCycleParamScheduler`` on its way out of a pickle."""

    def __init__(self, name: str) -> None:
        self.name = name

    def function(self) -> Callable[..., float]:
        from mmengine.optim import OneCycleParamScheduler

        return getattr(OneCycleParamScheduler, self.name)


def _known_method(owner: object, name: object) -> str | _StoredAnnealing:
    """For ``getattr(HistoryBuffer, name)``: the name alone; for ``OneCycleParamScheduler``: what stands for a function.

    Raises: UnpicklingError for any other ``getattr``.
    """
    if owner is _StoredHistory and isinstance(name, str) and name in STATISTICS:
        return name
    if owner is _OneCycle and isinstance(name, str) and name in ANNEALING:
        return _StoredAnnealing(name)
    known: dict[type, str] = {_StoredHistory: "HistoryBuffer", _OneCycle: "OneCycleParamScheduler"}
    shown = known[owner] if isinstance(owner, type) and owner in known else type(owner).__name__
    raise pickle.UnpicklingError(f"getattr({shown}, {name!r}): allowed are {STATISTICS} of HistoryBuffer")


class _StoredOptions(argparse.Namespace):
    """An ``argparse.Namespace`` on its way out of a pickle."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
            raise pickle.UnpicklingError("argparse.Namespace: its state is no dict of names")
        self.__dict__.update(state)
        self.__class__ = argparse.Namespace  # type: ignore[assignment]


def _frozen(items: object = None) -> frozenset:
    """For ``frozenset``."""
    if type(items) is not list:
        raise pickle.UnpicklingError("frozenset: allowed is one of a list")
    return frozenset(items)


def _no_bytes() -> bytes:
    """For ``bytes()``, which is how an empty array's contents are pickled."""
    return b""


_ALLOWED: list[Any] = [
    (_StoredHistory, "mmengine.logging.history_buffer.HistoryBuffer"),
    (_known_method, "builtins.getattr"),
    (_OneCycle, "mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler"),
    (_StoredArray, "numpy.ndarray"),
    (_StoredDtype, "numpy.dtype"),
    *((_new_array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),  # NumPy 1 and 2
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    (_StoredOptions, "argparse.Namespace"),
    (_frozen, "builtins.frozenset"),
    (_no_bytes, "builtins.bytes"),
]
_NAMES = {name for _, name in _ALLOWED}
_LOCK = threading.RLock()


@contextmanager
def _names_bound() -> Iterator[None]:
    """Bind the names for the time of a load, before all that the process allowed under them itself."""
    with _LOCK:
        known = torch.serialization.get_safe_globals()
        replaced = [entry for entry in known if _name(entry) in _NAMES]
        if replaced:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals([entry for entry in known if _name(entry) not in _NAMES])
        try:
            with torch.serialization.safe_globals(_ALLOWED):
                yield
        finally:
            torch.serialization.add_safe_globals(replaced)


def _name(entry: Any) -> str:
    return entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}"


def load(file: Any, map_location: Any = None, mmap: bool | None = None) -> Any:
    """``torch.load`` of a checkpoint with ``weights_only=True`` that also reads what mmengine keeps beside weights.

    Raises: pickle.UnpicklingError for anything but tensors, plain containers and the objects named above, and what
        ``torch.load`` raises for files that are damaged.
    """
    return load_by(lambda: torch.load(file, map_location=map_location, weights_only=True, mmap=mmap))


def load_by(read: Callable[[], Any]) -> Any:
    """As ``load``, by a function that calls ``torch.load`` with ``weights_only=True``."""
    with _names_bound():
        content = read()
    return _finished(content)


def _finished(content: Any) -> Any:
    """Put arrays and dtypes in the place of what stands for them; containers are changed in place."""
    made: dict[int, tuple[Any, Any]] = {}
    content = _replaced(content, made)
    waiting, seen = [content], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, argparse.Namespace):
            node = vars(node)
        if isinstance(node, dict):
            for key, value in list(node.items()):
                node[key] = _replaced(value, made)
            waiting += node.values()
        elif type(node) is list:
            node[:] = [_replaced(value, made) for value in node]
            waiting += node
        elif type(node) is tuple:
            waiting += node
    return content


def _replaced(value: Any, made: dict[int, tuple[Any, Any]], depth: int = 0) -> Any:
    """A value for what stands for it. Tuples cannot be changed: one that holds such a thing is made anew, once.

    Args:
        made: ``id of a tuple -> (the tuple, what it became)``; a file may hold one tuple at any number of places.
    """
    if type(value) is tuple:
        if depth > MAX_NESTED:
            raise pickle.UnpicklingError(f"tuples are nested more than {MAX_NESTED} deep")
        if id(value) not in made:
            parts = tuple(_replaced(part, made, depth + 1) for part in value)
            same = all(new is old for new, old in zip(parts, value, strict=True))
            made[id(value)] = (value, value if same else parts)
        return made[id(value)][1]
    if isinstance(value, _StoredArray) and value.array is not None:
        return value.array
    if isinstance(value, _StoredDtype):
        return value.value
    if isinstance(value, _StoredAnnealing):
        return value.function()
    if isinstance(value, _StoredArray | _StoredHistory | _StoredOptions):
        raise pickle.UnpicklingError(f"{type(value).__name__.removeprefix('_Stored')} without its state")
    return value
