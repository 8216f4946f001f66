"""Checkpoints of our own runs under torch >= 2.6, which loads with ``weights_only=True``.

mmengine 0.10.7 keeps its log (``HistoryBuffer`` and NumPy scalars, in ``message_hub``) beside the weights, and
cannot resume or test what it saved itself. The cure is an allow-list of just these things, kept so narrow that no
file can run code through it:

1. HistoryBuffer pickles its statistics methods by way of ``getattr``, which must never be allowed: the name is bound
   to a function that knows those four methods and nothing else.
2. A NumPy dtype restored with a crafted state can pass bytes off as pointers. The name ``numpy.dtype`` is bound to a
   function that returns NumPy's built-in numeric dtypes, on which restoring a state has no effect. Hence arrays saved
   in foreign byte order are not told apart; mmengine writes none.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer

STATISTICS = ("min", "max", "current", "mean")
NUMERIC = "?bBhHiIlLqQefd"  # NumPy's type characters


def _statistics_method(owner: object, name: str) -> Callable:
    """``getattr(HistoryBuffer, name)`` for the methods that a HistoryBuffer is saved with, else UnpicklingError."""
    if owner is not HistoryBuffer or name not in STATISTICS:
        raise pickle.UnpicklingError(f"getattr({owner!r}, {name!r}): allowed are {STATISTICS} of HistoryBuffer")
    return getattr(HistoryBuffer, name)


def _numeric_dtype(code: str, align: bool = False, copy: bool = False) -> np.dtype:
    """Built-in numeric dtype of a code such as 'f8'; ``align`` and ``copy``, which a pickle holds, have no effect."""
    dtype = np.dtype(code) if isinstance(code, str) else None
    if dtype is None or dtype.char not in NUMERIC or not dtype.isnative:
        raise pickle.UnpicklingError(f"NumPy dtype {code!r}: allowed are booleans, integers and floats")
    return np.dtype(dtype.type)


def allow_own_checkpoints() -> None:
    """Let ``torch.load(..., weights_only=True)`` accept what mmengine's checkpoints hold beside tensors.

    To be called before a checkpoint is loaded. Does nothing on torch < 2.6, which does not restrict mmengine's loading.
    """
    if torch.__version__ < "2.6":
        return
    functions: dict[str, Any] = {"_reconstruct": np.zeros(1).__reduce__()[0], "scalar": np.float64(0).__reduce__()[0]}
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            np.ndarray,
            *{type(_numeric_dtype(char)) for char in NUMERIC},
            *((function, f"numpy._core.multiarray.{name}") for name, function in functions.items()),  # NumPy 2
            *((function, f"numpy.core.multiarray.{name}") for name, function in functions.items()),  # NumPy 1
            (_numeric_dtype, "numpy.dtype"),
            (_statistics_method, "builtins.getattr"),
        ]
    )
