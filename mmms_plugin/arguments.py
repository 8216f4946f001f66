"""Checks of constructor arguments; each raises a ValueError with the argument, its value and the allowed ones."""

from __future__ import annotations

from collections.abc import Sequence


def is_integer(value: object, least: int) -> bool:
    """Whether ``value`` is an integer of at least ``least``; ``True`` and ``False`` are not integers here."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def check_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    """ValueError unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: allowed are {', '.join(map(repr, allowed))}")


def check_per_stage(name: str, values: Sequence[int], count: int, unit: str = "stage") -> tuple[int, ...]:
    """``values`` as a tuple; ValueError unless they are ``count`` integers >= 1, one for each ``unit``."""
    listed = tuple(values) if isinstance(values, Sequence) else ()
    if len(listed) != count or not all(is_integer(value, 1) for value in listed):
        raise ValueError(f"{name}={values!r}: allowed are {count} integers >= 1, one for each {unit}")
    return listed
