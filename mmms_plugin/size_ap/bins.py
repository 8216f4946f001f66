"""Named ranges of object size: published presets, quantiles of a data set, or custom limits; always checked.

The edge rule, for the whole project: a bin is half-open, ``[low, high)``, so that every object is counted once. The
only exception is the preset 'coco', whose bins are closed, ``[low, high]``, because pycocotools' are: an object of
exactly 1024 px² counts as small and as medium there. ``Bin.closed`` records this, and every output states the rule.

Internally, sizes are areas in px²; they are given and shown as side (square root of the area, px) or as area (px²).
Relative sizes are areas as shares of the picture's, given and shown as the square root of that share
(`mmms_plugin.size_ap.resizing`).

Deviations:
1. TinyPerson, AI-TOD and SODA publish their limits without an edge rule or with ``(low, high]``; here ``[low, high)``.
2. TinyPerson's 'tiny' (2 to 20 px) and 'all' are unions of other bins and left out, so that bins do not overlap.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.errors import LONGEST, UserError, printable
from mmms_plugin.size_ap import RELATIVE, UNITS

HALF_OPEN = "bins are half-open [low, high): an object exactly on a limit counts in the upper bin only"
CLOSED = (
    "bins are closed [low, high], as pycocotools' are: "
    "an object exactly on a limit (1024 or 9216 px²) counts in both neighbours"
)
Limits = tuple[tuple[str, float, float], ...]

# name: (unit, closed, (name, low, high) of each bin, publication)
PRESETS: dict[str, tuple[str, bool, Limits, str]] = {
    "coco": (
        "side",
        True,
        (("small", 0, 32), ("medium", 32, 96), ("large", 96, 1e5)),
        "Lin et al., Microsoft COCO, ECCV 2014; limits as in pycocotools",
    ),
    "tinyperson": (
        "side",
        False,
        (("tiny1", 2, 8), ("tiny2", 8, 12), ("tiny3", 12, 20), ("small", 20, 32), ("reasonable", 32, math.inf)),
        "Yu et al., Scale Match for Tiny Person Detection, WACV 2020, section 3",
    ),
    "ai-tod": (
        "side",
        False,
        (("very_tiny", 2, 8), ("tiny", 8, 16), ("small", 16, 32), ("medium", 32, 64)),
        "Wang et al., Tiny Object Detection in Aerial Images, ICPR 2020, section III",
    ),
    "soda": (
        "area",
        False,
        (
            ("extremely_small", 0, 144),
            ("relatively_small", 144, 400),
            ("generally_small", 400, 1024),
            ("normal", 1024, 2000),
        ),
        "Cheng et al., Towards Large-Scale Small Object Detection, TPAMI 2023, section 3",
    ),
}
ALIASES = {"tiny": "tinyperson", "aitod": "ai-tod"}
RELATIVE_LIMITS: Limits = (("small", 0, 0.05), ("medium", 0.05, 0.2), ("large", 0.2, math.inf))
ALLOWED = f"{', '.join(PRESETS)}, tiny (= tinyperson), quantiles:N, LIMIT,LIMIT,..., or NAME=LOW:HIGH,..."
MOST_BINS = 100
HUGE = 1e10  # px²; pycocotools' stand-in for no upper limit
_ENTRY = re.compile(r"\s*([^=:,\s][^=:,]*?)\s*=\s*([^:,]+?)\s*:\s*([^:,]*?)\s*")


def readable(value: float) -> float:
    """Rounded to three significant digits; from 100 up, to an integer."""
    if value <= 0 or not math.isfinite(value):
        return value
    return float(round(value)) if value >= 100 else float(f"{value:.3g}")


@dataclass(frozen=True)
class Bin:
    """A range of object sizes.

    Attributes:
        name: as in tables.
        low, high: limits of the area in px², or as shares of the picture's; ``high`` may be infinite.
        closed: True also counts an object of area exactly ``high`` (as pycocotools does), False is ``[low, high)``.
        unit: 'side' (square root of the area, px), 'area' (px²) or 'relative' (square root of the share of the
            picture's area): how limits are shown.
    """

    name: str
    low: float
    high: float
    closed: bool = False
    unit: str = "side"

    @property
    def limits(self) -> tuple[float, float]:
        """``low`` and ``high`` in the bin's own unit."""
        return (self.low, self.high) if self.unit == "area" else (math.sqrt(self.low), math.sqrt(self.high))

    @property
    def label(self) -> str:
        """The range for narrow columns, with its unit, to three digits: ``32–96 px``, ``≥ 96 px``, ``all sizes``."""
        low, high = (readable(limit) for limit in self.limits)
        unit = {"side": " px", "area": " px²", "relative": ""}[self.unit]
        if math.isinf(high) or self.high >= HUGE:
            return "all sizes" if low == 0 else f"≥ {low:g}{unit}"
        return f"< {high:g}{unit}" if low == 0 else f"{low:g}–{high:g}{unit}"


@dataclass(frozen=True)
class BinSet:
    """Bins and their origin.

    Attributes:
        bins: the bins, 'all' first.
        source: the option, as given.
        reference: publication of a preset, or how the limits were determined.
        edge_rule: the sentence about objects on a limit.
    """

    bins: tuple[Bin, ...]
    source: str
    reference: str
    edge_rule: str


def contains(bins: tuple[Bin, ...], areas: NDArray[np.float64]) -> NDArray[np.bool_]:
    """``(bins, n)``: whether each of ``n`` areas (px²) lies in each bin."""
    low = np.array([b.low for b in bins])[:, None]
    high = np.array([b.high for b in bins])[:, None]
    closed = np.array([b.closed for b in bins])[:, None]
    return (areas >= low) & ((areas < high) | (closed & (areas == high)))


def resolve_bins(
    text: str = "coco",
    unit: str = "side",
    areas: NDArray[np.float64] | None = None,
    allow_gaps: bool = False,
    allow_overlaps: bool = False,
) -> BinSet:
    """The bins that ``text`` names.

    Args:
        text: a preset, ``quantiles:N``, rising limits such as ``0,16,32,inf``, or ``name=low:high,...`` with ``inf`` or
            nothing for no upper limit.
        unit: of custom limits, and of how quantiles are shown: 'side' or 'pixels' (px), 'area' (px²), or 'relative'
            (share of the picture, at most 1). Presets are in px; for relative sizes 'coco', the default, stands for
            small below 0.05, medium below 0.2, and large.
        areas: ``(n,)`` areas of the data set's objects, px² or shares; quantiles need them.
        allow_gaps, allow_overlaps: accept sizes between bins that no bin holds, or that several hold.

    Raises:
        UserError: not one of these, or limits that leave gaps or overlap.
    """
    if unit not in UNITS:
        raise UserError(f"--bin-unit {unit!r}: allowed are {', '.join(UNITS)}")
    unit = UNITS[unit]
    key = ALIASES.get(text.strip().lower(), text.strip().lower())
    if unit == RELATIVE and key == "coco":
        return BinSet(_with_all(RELATIVE_LIMITS, unit), "relative", "default of relative sizes", HALF_OPEN)
    if unit == RELATIVE and key in PRESETS:
        raise UserError(f"--bins {text!r}: its limits are in px, not relative; give limits such as 0,0.05,0.2,1")
    if key in PRESETS:
        unit, closed, limits, reference = PRESETS[key]
        return BinSet(_with_all(limits, unit, closed), key, reference, CLOSED if closed else HALF_OPEN)
    if key.startswith("quantiles"):
        return _quantiles(text, key, unit, areas)
    text = text if "=" in text else _named(text)
    entries = _parse(text, unit)
    _check(entries, text, unit, allow_gaps, allow_overlaps)
    return BinSet(_with_all(entries, unit), printable(text, LONGEST), f"as given, {_unit_text(unit)}", HALF_OPEN)


def _with_all(entries: Limits, unit: str, closed: bool = False) -> tuple[Bin, ...]:
    power = 1 if unit == "area" else 2
    # pycocotools' 'all' ends at 1e5², and so does its 'large'
    everything = Bin("all", 0.0, 1e10 if closed else math.inf, closed, unit)
    return (everything, *(Bin(n, float(low) ** power, float(high) ** power, closed, unit) for n, low, high in entries))


def _quantiles(text: str, key: str, unit: str, areas: NDArray[np.float64] | None) -> BinSet:
    match = re.fullmatch(r"quantiles:(\d{1,6})", key)
    count = int(match[1]) if match else 0
    if not 2 <= count <= MOST_BINS:
        raise UserError(f"--bins {text!r}: allowed is quantiles:N with an integer N from 2 to {MOST_BINS}")
    if areas is None or len(areas) < count:
        raise UserError(
            f"--bins {text!r}: the data set has {0 if areas is None else len(areas)} objects, fewer than bins"
        )
    ordered = np.sort(areas)
    edges = [float(ordered[round(i * len(ordered) / count)]) for i in range(1, count)]
    limits = [0.0, *edges, math.inf]
    if any(low >= high for low, high in pairwise(limits)):
        raise UserError(f"--bins {text!r}: too many objects have the same size to tell {count} bins apart; use fewer")
    bins = tuple(Bin(f"q{i + 1}", limits[i], limits[i + 1], False, unit) for i in range(count))
    reference = f"{count} bins of equal count of the data set's {len(areas)} objects (crowds left out)"
    return BinSet((Bin("all", 0.0, math.inf, False, unit), *bins), key, reference, HALF_OPEN)


def _named(text: str) -> str:
    """Rising limits such as ``0,16,32,inf`` as bins with names: ``0-16=0:16,16-32=16:32,32-inf=32:inf``."""
    limits = [limit.strip() for limit in text.split(",")]
    try:
        rising = all(low < high for low, high in pairwise(map(float, limits)))
    except ValueError:
        rising = False
    if len(limits) < 2 or not rising:
        raise UserError(f"--bins {text!r}: allowed are {ALLOWED}; limits must rise")
    return ",".join(f"{low}-{high}={low}:{high}" for low, high in pairwise(limits))


def _parse(text: str, unit: str) -> Limits:
    entries: list[tuple[str, float, float]] = []
    if text.count("=") > MOST_BINS:
        raise UserError(f"--bins: more than {MOST_BINS} bins")
    for part in text.strip().rstrip(",").split(","):
        match = _ENTRY.fullmatch(part)
        if not match:
            raise UserError(f"--bins: {part.strip()!r} is not NAME=LOW:HIGH (such as small=16:32 or large=32:inf)")
        try:
            low, high = float(match[2]), float(match[3] or "inf")
        except ValueError:
            raise UserError(f"--bins: the limits of {part.strip()!r} are not numbers") from None
        if math.isinf(high * high) and not math.isinf(high):
            raise UserError(f"--bins: the upper limit of {part.strip()!r} is too large; inf is without limit")
        if not 0 <= low < high:
            raise UserError(f"--bins: {part.strip()!r} needs 0 <= LOW < HIGH")
        if unit == RELATIVE and (low >= 1 or 1 < high < math.inf):
            raise UserError(f"--bins: {part.strip()!r}: relative limits are shares of the picture's side, from 0 to 1")
        high = math.inf if unit == RELATIVE and high >= 1 else high  # an object can be as large as the picture
        entries.append((printable(match[1]), low, high))
    names = [name for name, _, _ in entries]
    twice = next((name for name in names if names.count(name) > 1 or name == "all"), None)
    if twice:
        raise UserError(f"--bins: the name {twice!r} is taken; every bin needs its own, and 'all' is always there")
    return tuple(sorted(entries, key=lambda entry: entry[1:]))


def _check(entries: Limits, text: str, unit: str, allow_gaps: bool, allow_overlaps: bool) -> None:
    reach = entries[0]
    for entry in entries[1:]:
        between = f"--bins {text!r}: between {reach[0]!r} and {entry[0]!r}, {_unit_text(unit)}"
        if entry[1] > reach[2] and not allow_gaps:
            raise UserError(f"{between}, {reach[2]:g} to {entry[1]:g} is in no bin (--allow-gaps accepts that)")
        if entry[1] < reach[2] and not allow_overlaps:
            shared = min(reach[2], entry[2])
            raise UserError(f"{between}, {entry[1]:g} to {shared:g} is in both (--allow-overlaps accepts that)")
        reach = max(reach, entry, key=lambda e: e[2])


def _unit_text(unit: str) -> str:
    return {
        "side": "side = sqrt(area) in px",
        "area": "area in px²",
        "relative": "side = sqrt(area) as a share of the picture's or tile's",
    }[unit]
