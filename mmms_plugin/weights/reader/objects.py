"""What a checkpoint may hold besides tensors and plain containers, and how it is made from checked arguments.

mmengine keeps its log beside the weights (``HistoryBuffer`` and NumPy numbers, in ``message_hub``), training scripts
their options (``argparse.Namespace``). The pickle calls nothing of NumPy or mmengine for that:

1. NumPy arrays hold numbers only, from as many bytes as their shape needs: raw bytes under a crafted dtype are
   pointers. An array gets its contents once, before anything could look at it.
2. ``HistoryBuffer`` pickles its statistics methods as calls of ``getattr``. Here these return the method's name, since
   mmengine registers the four methods anyway. ``OneCycleLR`` pickles its function in the same way.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mmms_plugin.weights.reader.archive import Refusal

HISTORY = "mmengine.logging.history_buffer.HistoryBuffer"
ONE_CYCLE = "mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler"
STATISTICS = ("min", "max", "current", "mean")
ANNEALING = ("_annealing_cos", "_annealing_linear")  # functions of OneCycleParamScheduler
# Booleans, integers and floats, by their names in a pickle: b1, i8, f4, ...
NUMERIC = {code: np.dtype(code) for code in (np.dtype(char).str[1:] for char in "?bBhHiIlLqQefd")}
MAX_DIMENSIONS = 32


@dataclass(frozen=True)
class Name:
    """A class or function by its dotted name, never the object itself."""

    text: str


@dataclass(frozen=True)
class Unfinished:
    """A value whose state comes later, once.

    Attributes:
        fill: puts a state into the value.
        name: for the message if no state comes; '' if the value is complete without one.
    """

    value: Any
    fill: Callable[[Any, Any], None]
    name: str = ""


def unusual(text: str) -> Refusal:
    return Refusal(f"cannot be read safely: it holds more than tensors and plain containers ({text})")


def _dtype(code: object, align: object = False, copy: object = False) -> Unfinished:
    if not isinstance(code, str) or code not in NUMERIC:
        raise unusual(f"NumPy dtype {code!r}: allowed are booleans, integers and floats"[:200])
    return Unfinished(np.dtype(code, align=False, copy=True), _fill_dtype)  # a copy: its byte order is changed


def _fill_dtype(dtype: np.dtype, state: object) -> None:
    if not isinstance(state, tuple) or len(state) != 8 or state[1] not in ("<", ">", "|", "="):
        raise unusual(f"NumPy dtype {dtype}: its state is not one of NumPy's")
    if any(part is not None for part in state[2:5]):
        raise unusual(f"NumPy dtype {dtype} with fields: allowed are plain numbers")
    dtype.__setstate__((3, state[1], None, None, None, -1, -1, 0))  # type: ignore[attr-defined]


def _numbers(dtype: object, data: object, count: int) -> np.ndarray:
    """``count`` numbers of a dtype out of raw bytes, in this machine's byte order; a copy."""
    if not isinstance(dtype, np.dtype) or type(data) is not bytes:
        raise unusual("NumPy numbers: expected a numeric dtype and bytes")
    if len(data) != count * dtype.itemsize:
        raise unusual(f"NumPy numbers: {len(data)} bytes for {count} of type {dtype}")
    if dtype.kind == "b":
        return np.frombuffer(data, np.uint8) != 0  # a boolean is 0 or 1, whatever the byte
    return np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))


def _array(kind: object, shape: object, code: object) -> Unfinished:
    """For ``numpy._core.multiarray._reconstruct``; shape and contents come with the state."""
    if kind != Name("numpy.ndarray"):
        raise unusual("NumPy array of a class of its own: allowed is numpy.ndarray")
    return Unfinished(np.empty(0), _fill_array, "NumPy array")


def _fill_array(array: np.ndarray, state: object) -> None:
    if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[1], tuple):
        raise unusual("NumPy array: its state is not one of NumPy's")
    _, shape, dtype, fortran, data = state
    if len(shape) > MAX_DIMENSIONS or any(type(size) is not int or size < 0 for size in shape):
        raise unusual(f"NumPy array of shape {shape!r}: allowed are sizes >= 0"[:200])
    numbers = _numbers(dtype, data, math.prod(shape))
    array.__setstate__((1, shape, numbers.dtype, bool(fortran), numbers.tobytes()))  # type: ignore[arg-type]


def _scalar(dtype: object, data: object) -> np.generic:
    """For ``numpy._core.multiarray.scalar``."""
    return _numbers(dtype, data, 1)[0]


def _history() -> Unfinished:
    try:
        from mmengine.logging.history_buffer import HistoryBuffer
    except ModuleNotFoundError:
        from mmms_plugin.compat.without_mmengine import HistoryBuffer
    return Unfinished(HistoryBuffer.__new__(HistoryBuffer), _fill_history, "HistoryBuffer")


def _fill_history(history: Any, state: object) -> None:
    state = state if isinstance(state, dict) else {}
    logs, counts, longest = (state.get(name) for name in ("_log_history", "_count_history", "max_length"))
    lines = [array for array in (logs, counts) if isinstance(array, np.ndarray) and array.ndim == 1]
    if len(lines) != 2 or len(lines[0]) != len(lines[1]) or type(longest) is not int or longest < 1:
        raise unusual("HistoryBuffer: its state is not one of mmengine's")
    history.__setstate__(dict(max_length=longest, _log_history=logs, _count_history=counts))


def _options() -> Unfinished:
    return Unfinished(argparse.Namespace(), _fill_options, "argparse.Namespace")


def _fill_options(options: argparse.Namespace, state: object) -> None:
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise unusual("argparse.Namespace: its state is not a dict of names")
    vars(options).update(state)


def _method(owner: object, name: object) -> Any:
    """For ``getattr(HistoryBuffer, name)``: the name alone; for ``OneCycleParamScheduler``: its function."""
    if owner == Name(HISTORY) and name in STATISTICS:
        return name
    if owner == Name(ONE_CYCLE) and name in ANNEALING:
        try:
            from mmengine.optim import OneCycleParamScheduler
        except ModuleNotFoundError:  # nothing resumes without mmengine
            return name
        return getattr(OneCycleParamScheduler, str(name))
    shown = owner.text.rpartition(".")[2] if isinstance(owner, Name) else type(owner).__name__
    raise unusual(f"getattr({shown}, {name!r}): allowed are {STATISTICS} of HistoryBuffer"[:200])


def _frozen(*arguments: Any) -> frozenset:
    """A set of values without parts: two nested sets, equal ones, take 2 ** depth steps to compare."""
    if len(arguments) != 1 or type(arguments[0]) is not list:
        raise unusual("frozenset: allowed is one of a list")
    if any(isinstance(item, frozenset | tuple) for item in arguments[0]):
        raise unusual("frozenset: allowed is one of texts and numbers")
    return frozenset(arguments[0])


def _set(*arguments: Any) -> set:
    if arguments and type(arguments[0]) is not list:
        raise unusual("set: allowed is one of a list")
    return set(*arguments)


def _bytes(*arguments: Any) -> bytes:
    """For ``bytes()``, which is how empty bytes are pickled."""
    if arguments:
        raise unusual("bytes: allowed are none")
    return b""


def _encoded(text: Any, encoding: Any = None) -> bytes:
    """For ``_codecs.encode``, which is how bytes are pickled."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Refusal("damaged: bytes in a form that pickle does not write")
    return text.encode("latin-1")


def _bytearray(data: Any = b"", encoding: Any = "latin-1") -> bytearray:
    if isinstance(data, str):
        data = _encoded(data, encoding)
    if not isinstance(data, bytes):
        raise Refusal("damaged: a bytearray that is not made of bytes")
    return bytearray(data)


def _counter(*arguments: Any) -> Counter:
    return Counter(*_made_of(dict, arguments, "Counter"))


def _ordered(*arguments: Any) -> OrderedDict:
    return OrderedDict(*_made_of((list, dict), arguments, "OrderedDict"))


def _size(*arguments: Any) -> torch.Size:
    return torch.Size(*_made_of((list, tuple), arguments, "torch.Size"))


def _made_of(kinds: type | tuple[type, ...], arguments: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    """Arguments whose number of values is known: a tensor of a few bytes may have 2 ** 60 of them."""
    if len(arguments) > 1 or not all(isinstance(argument, kinds) for argument in arguments):
        raise unusual(f"{name} of a {type(arguments[0]).__name__}: allowed is what torch.save writes")
    return arguments


def _only_with_state(*arguments: Any) -> Any:
    raise unusual("HistoryBuffer, OneCycleParamScheduler, numpy.ndarray: allowed is one with its state, as saved")


# Called with a tuple of arguments: name -> maker of the value.
CALLED: dict[str, Callable[..., Any]] = {
    "builtins.bytearray": _bytearray,
    "builtins.bytes": _bytes,
    "builtins.complex": complex,
    "builtins.frozenset": _frozen,
    "builtins.getattr": _method,
    "builtins.set": _set,
    "collections.Counter": _counter,
    "collections.OrderedDict": _ordered,
    "_codecs.encode": _encoded,
    "argparse.Namespace": _options,
    "numpy.dtype": _dtype,
    "numpy.ndarray": _only_with_state,
    HISTORY: _only_with_state,
    ONE_CYCLE: _only_with_state,
    "torch.Size": _size,
    "torch.device": torch.device,
    "torch.serialization._get_layout": torch.serialization._get_layout,
}
for _core in ("core", "_core"):  # NumPy 1 and 2
    CALLED[f"numpy.{_core}.multiarray._reconstruct"] = _array
    CALLED[f"numpy.{_core}.multiarray.scalar"] = _scalar
# Made without arguments before their state is known.
NEW: dict[str, Callable[[], Unfinished]] = {"argparse.Namespace": _options, HISTORY: _history}
