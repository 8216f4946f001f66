"""Masks as COCO's compressed run lengths, all decoded together by NumPy: whether they are sound, and their areas.

The spelling is that of ``rleToString`` in pycocotools: letters of 5 bits, the lowest first, of which the sixth bit says
that the number goes on; from the fourth number on, each is the difference to the run two before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, overload

import msgspec
import numpy as np
from numpy.typing import NDArray

# One mask: {"size": [height, width], "counts": compressed run lengths}, what pycocotools.mask takes.
RLE = dict[str, Any]
MOST_PIXELS = 2**32 - 1  # pycocotools counts pixels in 32 bits
LETTERS = 7  # of one number: 5 bits each
AT_ONCE = 1 << 17  # letters that are decoded together, within the processor's cache
LAST = bytes(((((letter - 48) & 31) ^ 16) - 16) & 255 for letter in range(256))  # a number's, whose fifth bit is a sign
NOT_LAST = bytes(range(48 + 32, 48 + 64))
SPARE = "0"
Ints = NDArray[np.int64]


class RunLengths(msgspec.Struct, gc=False):
    """A mask as a file spells it: its ``[height, width]``, and counts as numbers or as compressed text."""

    size: tuple[int, int]
    counts: str | list[int]


@dataclass(frozen=True)
class Runs:
    """Of every mask's runs of pixels, background and foreground in turn, ``(n,)`` each.

    Attributes:
        pixels: sum of all.
        area: sum of the foreground.
        first: the first run, background.
        last: the last run if it is background; else 0.
        broken: whether the text cannot be read or a run is negative; the other figures are then of no use.
    """

    pixels: Ints
    area: Ints
    first: Ints
    last: Ints
    broken: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Masks(Sequence[RLE]):
    """Sound masks, of which each is made into an object only when it is asked for.

    Attributes:
        texts: ``(n,)`` compressed run lengths.
        sizes: ``(n, 2)`` height and width, px.
        areas: ``(n,)`` float64, px.
        columns: ``(n, 2)`` the first column of pixels with a pixel of the mask, and the one after the last.
    """

    texts: NDArray[np.object_]
    sizes: Ints
    areas: NDArray[np.float64]
    columns: Ints

    @classmethod
    def of(cls, rles: Sequence[RLE]) -> Masks:
        """From RLEs known to be sound."""
        if isinstance(rles, Masks):
            return rles
        texts = [text_of(rle["counts"]) for rle in rles]
        return cls.of_runs(texts, np.array([rle["size"] for rle in rles], np.int64).reshape(-1, 2), decode(texts))

    @classmethod
    def of_runs(cls, texts: Sequence[str], sizes: Ints, runs: Runs) -> Masks:
        """From texts, sizes, and what was decoded from the texts."""
        objects = np.empty(len(texts), np.object_)
        objects[:] = texts
        ends = runs.pixels - runs.last
        columns = np.stack((runs.first // sizes[:, 0], -(-ends // sizes[:, 0])), 1)
        return cls(objects, sizes, runs.area.astype(np.float64), columns)

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, place: int) -> RLE: ...

    @overload
    def __getitem__(self, place: slice) -> Masks: ...

    def __getitem__(self, place: int | slice) -> RLE | Masks:
        if isinstance(place, slice):
            return self.at(np.arange(len(self))[place])
        return {"size": self.sizes[place].tolist(), "counts": self.texts[place].encode()}

    def __iter__(self) -> Iterator[RLE]:
        return iter(self.rles(np.arange(len(self))))

    def rles(self, places: Ints) -> list[RLE]:
        """Some of the masks, in the order of ``places``."""
        sizes, texts = self.sizes[places].tolist(), self.texts[places].tolist()
        return [{"size": size, "counts": text.encode()} for size, text in zip(sizes, texts, strict=True)]

    def at(self, places: Ints) -> Masks:
        """The same as `rles`, without objects."""
        return Masks(self.texts[places], self.sizes[places], self.areas[places], self.columns[places])


def text_of(counts: str | bytes) -> str:
    """Compressed counts as a text; letters that no RLE contains stay invalid."""
    return counts if isinstance(counts, str) else counts.decode("latin-1")


def counts_of(text: str) -> Ints:
    """The runs of one mask, known to be sound: background and foreground in turn."""
    letters = text.encode()
    counts, _, _ = _numbers(letters, np.frombuffer(letters, np.uint8) - np.uint8(48), np.array([len(letters)]))
    for first in (1, 2):
        counts[first::2] = np.cumsum(counts[first::2])
    return counts


def decode(texts: Sequence[str]) -> Runs:
    """The runs of masks, from their compressed counts."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    if not (len(texts) and lengths.all() and all(map(str.isascii, texts))):
        whole = np.array([text != "" and text.isascii() for text in texts], np.bool_)
        pixels, area, first, last = np.zeros((4, len(texts)), np.int64)
        runs = Runs(pixels, area, first, last, ~whole)
        if whole.any():
            decoded = decode([text for text, readable in zip(texts, whole.tolist(), strict=True) if readable])
            for name, column in vars(decoded).items():
                getattr(runs, name)[whole] = column
        return runs
    ends = np.cumsum(lengths)
    cuts = np.searchsorted(ends, np.arange(0, ends[-1], AT_ONCE), side="right")
    parts = [_decode(texts[begin:end], lengths[begin:end]) for begin, end in pairwise([*np.unique(cuts), len(texts)])]
    return Runs(*map(np.concatenate, zip(*(vars(part).values() for part in parts), strict=True)))


def _decode(texts: Sequence[str], lengths: Ints) -> Runs:
    """The same of texts that are not empty, of ASCII."""
    text, ends = "".join(texts).encode(), np.cumsum(lengths)
    letters = np.frombuffer(text, np.uint8) - np.uint8(48)
    broken = np.zeros(len(ends), np.bool_)
    broken[np.searchsorted(ends, np.flatnonzero(letters > 63), side="right")] = True
    broken |= (letters[ends - 1] & 32) != 0  # the text ends within a number
    if broken.any():  # a text that ends within a number would go on in the next one
        runs = decode([SPARE if bad else text for text, bad in zip(texts, broken.tolist(), strict=True)])
        return replace(runs, broken=runs.broken | broken)
    numbers, ends, too_long = _numbers(text, letters, ends)
    broken[too_long] = True
    starts = np.append(0, ends[:-1])
    first = numbers[starts]
    broken |= first < 0
    sums, last = np.zeros((2, len(ends)), np.int64), np.zeros(len(ends), np.int64)
    sums[0] = first
    for parity in (0, 1):
        # every second number of a mask is of its background, the others are of its foreground
        total = np.zeros(len(numbers[parity::2]) + 1, np.int64)
        np.cumsum(numbers[parity::2].copy(), out=total[1:])  # a copy, as strided sums take twice as long
        begin, end = (starts - parity + 1) // 2, (ends - parity + 1) // 2
        some = np.flatnonzero(end > begin)
        begin, end, ground = begin[some], end[some], (starts[some] + parity) % 2
        before = total[begin + (ground == 0)]  # the first number, of the background, is added to no other
        lengths = total[1:]
        broken[some] |= np.minimum.reduceat(lengths, begin) < before
        broken[some] |= np.maximum.reduceat(lengths, begin) - before > MOST_PIXELS  # whose sum may exceed 64 bits
        sums[ground, some] += np.add.reduceat(lengths, begin) - (end - begin) * before
        last[some] = np.where((ends[some] - 1) % 2 == parity, total[end] - before, last[some])
    counts = ends - starts
    last = np.where(counts == 1, first, np.where(counts % 2 == 1, last, 0))
    return Runs(sums.sum(0), sums[1], first, last, broken)


def _numbers(text: bytes, letters: NDArray[np.uint8], ends: Ints) -> tuple[Ints, Ints, Ints]:
    """All numbers, where those of each text end, and the texts with a number that is too long."""
    numbers = np.frombuffer(text.translate(LAST, NOT_LAST), np.int8).astype(np.int64)
    more = letters > 31
    at = np.flatnonzero(more)
    longer = at - np.arange(len(at))  # the numbers that they belong to
    ends = ends - np.searchsorted(at, ends)
    nearest = np.append(longer[1:] != longer[:-1], True)[: len(at)]  # the letters before the last ones
    at, longer = at[nearest], longer[nearest]
    for _ in range(LETTERS - 1):
        numbers[longer] = (numbers[longer] << 5) + (letters[at] & 31)
        at = at - 1
        further = (at >= 0) & more[at]
        at, longer = at[further], longer[further]
    return numbers, ends, np.searchsorted(ends, longer, side="right")
