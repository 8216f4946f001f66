"""Random pickle programs over the names that a checkpoint may hold, for ``weights.reader.read``.

    python -m tests.fuzz.programs --seed 1 --count 5000

A case fails on a signal, more than 10 s of processor time, a file that was made, and anything in what was loaded that
is not a plain value: an array of objects or of borrowed memory.
"""

from __future__ import annotations

import argparse
import os
import random
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging.history_buffer import HistoryBuffer

from mmms_plugin.errors import UserError
from mmms_plugin.weights import reader
from mmms_plugin.weights.host_loading import disarmed
from mmms_plugin.weights.reader import objects
from tests.fuzz.watch import failures

DEEPEST = 5
NAMES = [
    *objects.CALLED, "torch._tensor._rebuild_from_type_v2", "torch._utils._rebuild_parameter_with_state",
    "torch.nn.parameter.Parameter", "torch.Tensor", "os.system", "builtins.eval", "numpy.dtypes.ObjectDType",
    "mmms_plugin.weights.reader.objects.Name",
]  # fmt: skip
WORDS = ["f8", "O", "O8", "V8", "<", "latin1", "abc", "min", "mean", "__init__", "", "_log_history", "max_length"]
NUMBERS = [0, 1, 2, 3, 8, 16, 99, -1, 2**31 - 1]


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def name(dotted: str) -> bytes:
    module, _, attribute = dotted.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def raw(count: int) -> bytes:
    """Bytes as ``torch.save`` has them."""
    if not count:
        return name("builtins.bytes") + b")R"
    return name("_codecs.encode") + text("A" * count) + text("latin1") + b"\x86R"


class Writer:
    """Writes one program; most of its pieces are in order, or nothing would get past the first."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def program(self) -> bytes:
        keys = ("state_dict", "message_hub", "meta")
        written = bytearray(b"\x80\x02}(" + b"".join(text(key) + self.value() for key in keys) + b"u.")
        for _ in range(self.rng.choice([0, 0, 0, 0, 1, 3])):
            place = self.rng.randrange(2, len(written))
            end = place + self.rng.choice([0, 0, 1, 8])
            start = self.rng.randrange(2, len(written))
            copied = bytes(written[start : start + self.rng.randrange(40)])
            written[place:end] = self.rng.choice([b"b", b"R", b"\x81", b"0", b"t", b"q\x00", b"h\x00", copied])
        return bytes(written)

    def value(self, depth: int = 0) -> bytes:
        kinds: list[Callable[[int], bytes]] = [self.atom, self.dtype, self.array, self.scalar, self.history]
        if depth < DEEPEST:
            kinds += [self.container, self.container] + [self.call] * (self.rng.random() < 0.3)
        return self.rng.choice(kinds)(depth + 1)

    def values(self, depth: int, most: int = 4) -> list[bytes]:
        return [self.value(depth) for _ in range(self.rng.randrange(most))]

    def atom(self, _depth: int = 0) -> bytes:
        plain = [b"N", b"\x88", b")", b"]", b"}", b"\x8f"] + [name(self.rng.choice(NAMES))] * (self.rng.random() < 0.2)
        return self.rng.choice([*plain, number(self.rng.choice(NUMBERS)), text(self.rng.choice(WORDS))])

    def often(self, sound: bytes, depth: int) -> bytes:
        return sound if self.rng.random() < 0.98 else self.value(depth)

    def dtype(self, depth: int, code: str | None = None) -> bytes:
        code = code or self.rng.choice([*objects.NUMERIC] * 9 + ["O", "O8", "V8", "U4"])
        state = [number(3), text("<"), b"N", b"N", b"N", number(-1), number(-1), number(self.rng.choice([0, 63]))]
        state = [self.often(part, DEEPEST) for part in state]
        return name("numpy.dtype") + tuple_of(text(code), b"\x89", b"\x88") + b"R" + tuple_of(*state) + b"b"

    def array(self, depth: int) -> bytes:
        count, core = self.rng.randrange(4), self.rng.choice(["core", "_core"])
        made = name(f"numpy.{core}.multiarray._reconstruct")
        made += tuple_of(self.often(name("numpy.ndarray"), DEEPEST), tuple_of(number(0)), raw(1)) + b"R"
        shape = tuple_of(
            number(count), *[number(self.rng.choice(NUMBERS)) for _ in range(self.rng.choice([0, 0, 1, 40]))]
        )
        state = [number(1), shape, self.dtype(depth, self.rng.choice(["f8", "i8"])), b"\x89", raw(8 * count)]
        built = tuple_of(*(self.often(part, depth + 1) for part in state)) + b"b"
        return made + built * self.rng.choice([1] * 30 + [0, 2])

    def scalar(self, depth: int) -> bytes:
        arguments = (self.dtype(depth, "f8"), raw(8))
        called = tuple_of(*(self.often(part, depth + 1) for part in arguments)) + b"R"
        return name("numpy._core.multiarray.scalar") + called

    def history(self, depth: int) -> bytes:
        state = {"_log_history": self.array(depth), "_count_history": self.array(depth), "max_length": number(99)}
        pairs = (text(key) + self.often(part, depth + 1) for key, part in state.items())
        made = name("mmengine.logging.history_buffer.HistoryBuffer") + self.often(b")", DEEPEST) + b"\x81"
        return made + b"}(" + b"".join(pairs) + b"ub"

    def container(self, depth: int) -> bytes:
        kind = self.rng.randrange(3)
        if kind == 0:
            return b"](" + b"".join(self.values(depth)) + b"e"
        if kind == 1:
            return tuple_of(*self.values(depth))
        return b"}(" + b"".join(text(f"k{i}") + part for i, part in enumerate(self.values(depth))) + b"u"

    def call(self, depth: int) -> bytes:
        made = name(self.rng.choice(NAMES)) + tuple_of(*self.values(depth)) + self.rng.choice([b"R", b"R", b"\x81"])
        return made + (self.value(depth) + b"b" if self.rng.random() < 0.4 else b"")


def check(case: int, seed: int) -> str | None:
    """Load one program; returns what is wrong with the outcome, or None."""
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "x.pth")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", Writer(random.Random(f"{seed} {case}")).program())
            archive.writestr("a/version", "3\n")
        here = os.getcwd()
        os.chdir(folder)
        try:
            loaded = disarmed(reader.read(path), Path(folder))
        except UserError:  # refused
            loaded = None
        finally:
            os.chdir(here)
        if os.listdir(folder) != ["x.pth"]:
            return "it made a file"
    return next(_complaints(loaded, set()), None)


def _complaints(value: Any, seen: set[int]) -> Iterator[str]:
    """Complaints about a value and everything in it; reads every number, which borrowed memory would not survive."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        if type(value) is not np.ndarray or value.dtype.kind not in "biuf" or not np.asarray(value).flags.writeable:
            yield f"{type(value).__name__} of {value.dtype}"
        repr(value)
    elif isinstance(value, HistoryBuffer):
        for part in value.data:
            yield from _complaints(part, seen)
    elif isinstance(value, dict):
        for part in (*value, *value.values()):
            yield from _complaints(part, seen)
    elif isinstance(value, list | tuple | set | frozenset):
        for part in value:
            yield from _complaints(part, seen)
    elif isinstance(value, argparse.Namespace):
        yield from _complaints(vars(value), seen)


def run(seed: int, count: int) -> Iterator[tuple[int, str]]:
    """Failures among ``count`` cases and what is wrong with each."""
    return failures(partial(check, seed=seed), range(count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    found = list(run(options.seed, options.count))
    for case, complaint in found:
        print(f"seed {options.seed} case {case}: {complaint}")
    print(f"{options.count} programs, {len(found)} failures")


if __name__ == "__main__":
    main()
