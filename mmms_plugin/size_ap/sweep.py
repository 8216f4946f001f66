"""AP against continuous size: windows one octave of side wide, a quarter octave apart, with a band of intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmms_plugin.size_ap.kernel.accumulate import Accumulator
from mmms_plugin.size_ap.kernel.bootstrap import bin_figures, bootstrap, interval
from mmms_plugin.size_ap.kernel.levels import combined, levels
from mmms_plugin.size_ap.kernel.matching import Candidates, match
from mmms_plugin.size_ap.options import Options
from mmms_plugin.size_ap.results import Bin, SizePoint, figure

SMALLEST_OCTAVE = -2.0  # a quarter of a pixel
AT_ONCE = 8  # windows; more need more memory
MOST_REPLICATES = 200  # enough for a band: its windows together hold every object four times, which takes long


def sweep(runs: Sequence[Candidates], options: Options) -> tuple[SizePoint, ...]:
    """AP and AR in every window that holds sizes of objects, means over the runs of a method; empty without objects.

    The band comes from the draws of images of `kernel.bootstrap`, at most `MOST_REPLICATES`.
    """
    truths, thresholds, images = runs[0].truths, runs[0].thresholds, runs[0].images
    area = truths.area[~truths.crowd & (truths.area > 0)]
    if not len(area):
        return ()
    octave = np.log2(np.sqrt(area)).clip(min=SMALLEST_OCTAVE)
    centres = np.arange(np.floor(octave.min() * 4), np.ceil(octave.max() * 4) + 1) / 4
    windows = tuple(Bin(f"{c:g}", float(4 ** (c - 0.5)), float(4 ** (c + 0.5))) for c in centres)
    replicates = min(options.replicates, MOST_REPLICATES)
    figures, draws = [], []  # of every run: (windows, 4), (replicates, windows)
    for run in runs:
        own_figures, objects, own_draws = [], [], []
        for start in range(0, len(windows), AT_ONCE):
            accumulator = Accumulator(match(run, windows[start : start + AT_ONCE]))
            scores = accumulator.scores()
            own_figures.append(bin_figures(scores, thresholds))
            objects += scores.objects.sum(1).astype(int).tolist()
            if replicates:
                drawn = bootstrap([accumulator], thresholds, images, replicates, options.seed)
                own_draws.append(drawn[0].bins[..., 0])
        figures.append(np.concatenate(own_figures))
        draws.append(np.concatenate(own_draws, 1) if replicates else np.zeros((0, 0)))
    means = np.mean(figures, 0)
    band = None
    if replicates:
        ap = np.stack(figures)[..., 0]
        band = combined([levels(ap, np.stack(draws), options.seed)], options.confidence).clip(0, 1)
    return tuple(
        SizePoint(
            float(2.0**centre), *window.limits, figure(means[i, 0]), figure(means[i, 3]), objects[i],
            None if band is None else interval(band[:, i], means[i, 0], options.confidence),
        )
        for i, (centre, window) in enumerate(zip(centres, windows, strict=True))
    )  # fmt: skip
