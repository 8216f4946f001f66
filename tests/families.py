"""Parametrised families of tests whose members share their code: ``make test`` runs some, ``.ci/run`` all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def members(cases: Iterable[Any], is_kept: Callable[[str], bool]) -> list[Any]:
    """The cases, all but the kept ones marked ``thorough``.

    Args:
        cases: names, or ``pytest.param`` with an id.
        is_kept: whether ``make test`` runs the case of an id.
    """
    params = [case if hasattr(case, "id") else pytest.param(case, id=str(case)) for case in cases]
    return [
        param
        if is_kept(param.id)
        else pytest.param(*param.values, id=param.id, marks=(*param.marks, pytest.mark.thorough))
        for param in params
    ]


def is_first(name: str) -> bool:
    """Whether a case is the first of its class, as in ``PSResNet-0``."""
    return name.endswith("-0")
