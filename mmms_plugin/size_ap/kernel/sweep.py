"""AP against continuous size: windows one octave of side wide, a quarter octave apart, with their bootstrap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.size_ap.kernel.accumulate import Accumulator
from mmms_plugin.size_ap.kernel.bootstrap import bin_figures, bootstrap
from mmms_plugin.size_ap.kernel.matching import Candidates, match
from mmms_plugin.size_ap.results import Bin

SMALLEST_OCTAVE = -2.0  # a quarter of a pixel
AT_ONCE = 8  # windows; more need more memory
MOST_REPLICATES = 200  # enough for a band: its windows together hold every object four times, which takes long
Floats = NDArray[np.float64]


def size_windows(candidates: Candidates) -> list[tuple[float, Bin]]:
    """Centre and limits of the windows that cover the sizes of the objects."""
    area = candidates.truths.area[~candidates.truths.crowd & (candidates.truths.area > 0)]
    if not len(area):
        return []
    octave = np.log2(np.sqrt(area)).clip(min=SMALLEST_OCTAVE)
    centres = np.arange(np.floor(octave.min() * 4), np.ceil(octave.max() * 4) + 1) / 4
    return [(float(2.0**c), Bin(f"{c:g}", float(4 ** (c - 0.5)), float(4 ** (c + 0.5)))) for c in centres]


def sweep(candidates: Candidates, replicates: int, seed: int) -> tuple[Floats, NDArray[np.int64], Floats]:
    """AP and AR ``(windows, 2)``, objects ``(windows,)``, and AP in draws of images ``(replicates, windows)``.

    The draws are those of `kernel.bootstrap`, at most `MOST_REPLICATES`.
    """
    windows = [window for _, window in size_windows(candidates)]
    figures, objects, draws = [], [], []
    for start in range(0, len(windows), AT_ONCE):
        accumulator = Accumulator(match(candidates, tuple(windows[start : start + AT_ONCE])))
        scores = accumulator.scores()
        figures.append(bin_figures(scores, candidates.thresholds)[:, [0, 3]])
        objects.append(scores.objects.sum(1).astype(np.int64))
        if replicates:
            count = min(replicates, MOST_REPLICATES)
            found = bootstrap([accumulator], candidates.thresholds, candidates.images, count, seed)
            draws.append(found[0].bins[..., 0])
    return np.concatenate(figures), np.concatenate(objects), np.concatenate(draws, 1) if draws else np.zeros((0, 0))
