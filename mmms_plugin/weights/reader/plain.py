"""Plain copies of what a checkpoint holds besides its tensors: data only, without cycles or endless nesting."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

MAX_DEPTH = 20
MAX_VALUES = 200_000
MAX_TEXT = 20_000_000  # characters, of all texts together
SCALARS = (str, bool, int, float, type(None))


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
