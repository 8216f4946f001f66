"""Methods between counting and results: runs (one, or one a seed) matched, with their figures and bootstrap draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco.objects import Detections, GroundTruth, Method
from mmms_plugin.size_ap.kernel.accumulate import Accumulator, Scores
from mmms_plugin.size_ap.kernel.bootstrap import Replicates, bin_figures, bootstrap, class_figures
from mmms_plugin.size_ap.kernel.error_types import MATCH, ErrorGains, error_gains
from mmms_plugin.size_ap.kernel.levels import Levels, levels
from mmms_plugin.size_ap.kernel.matching import Candidates, Matches, find_candidates, match
from mmms_plugin.size_ap.options import Options
from mmms_plugin.size_ap.results import Bin

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One prediction file, matched; ``errors`` is one a bin, or empty."""

    name: str
    candidates: Candidates
    matches: Matches
    accumulator: Accumulator
    errors: tuple[ErrorGains, ...] = ()

    @cached_property
    def scores(self) -> Scores:
        return self.accumulator.scores()

    @cached_property
    def by_class(self) -> Floats:
        """``(bins, classes, 4)`` AP, AP50, AP75, AR."""
        return class_figures(self.scores, self.candidates.thresholds)

    @property
    def gains(self) -> Floats:
        """``(bins, types)`` AP50 gained if errors were mended; no bins if that was not asked for."""
        return np.array([errors.gains for errors in self.errors])


@dataclass(frozen=True)
class Measured:
    """One method; figures are means over its runs.

    Attributes:
        name: of the method.
        runs: one, or one a seed.
        replicates: of each run, in the same draws of images; empty without bootstrap.
        seed: of the draws of seeds.
    """

    name: str
    runs: tuple[Run, ...]
    replicates: tuple[Replicates, ...]
    seed: int

    @cached_property
    def by_run(self) -> Floats:
        """``(runs, bins, 4)``."""
        return np.stack([bin_figures(run.scores, run.candidates.thresholds) for run in self.runs])

    @cached_property
    def by_bin(self) -> Floats:
        """``(bins, 4)``."""
        return self.by_run.mean(0)

    @cached_property
    def by_class(self) -> Floats:
        """``(bins, classes, 4)``."""
        return np.stack([run.by_class for run in self.runs]).mean(0)

    @cached_property
    def gains(self) -> Floats:
        """``(bins, types)``, as those of runs."""
        return np.stack([run.gains for run in self.runs]).mean(0)

    @cached_property
    def bin_levels(self) -> Levels | None:
        """Of ``by_bin``."""
        if not self.replicates:
            return None
        return levels(self.by_run, np.stack([draws.bins for draws in self.replicates]), self.seed)

    @cached_property
    def class_levels(self) -> Levels | None:
        """Of AP in ``by_class``."""
        if not self.replicates:
            return None
        points = np.stack([run.by_class[..., 0] for run in self.runs])
        return levels(points, np.stack([draws.class_ap for draws in self.replicates]), self.seed)

    @cached_property
    def error_levels(self) -> Levels | None:
        """Of ``gains``."""
        if not self.replicates or not self.runs[0].errors:
            return None
        draws = [np.stack([errors.draws for errors in run.errors], 1) for run in self.runs]
        return levels(np.stack([run.gains for run in self.runs]), np.stack(draws), self.seed)


def measure(truth: GroundTruth, methods: Sequence[Method], bins: tuple[Bin, ...], options: Options) -> list[Measured]:
    """Every method's runs matched, and all of them bootstrapped with the same draws of images."""
    runs = [[_match(truth, run, bins, options) for run in method.runs] for method in methods]
    every = [run for own in runs for run in own]
    replicates = iter(
        bootstrap(
            [run.accumulator for run in every], np.asarray(options.thresholds), every[0].candidates.images,
            options.replicates, options.seed, progress=options.progress,
        ) if options.replicates else ()
    )  # fmt: skip
    return [
        Measured(method.name, tuple(own), tuple(islice(replicates, len(own))), options.seed)
        for method, own in zip(methods, runs, strict=True)
    ]


def _match(truth: GroundTruth, run: Detections, bins: tuple[Bin, ...], options: Options) -> Run:
    how = (truth, run, options.iou_type, options.area, options.max_dets)
    candidates = find_candidates(*how, options.thresholds)
    matches = match(candidates, bins)
    errors: tuple[ErrorGains, ...] = ()
    if options.errors:  # whose candidates may have a lower IoU than those that match
        near = find_candidates(*how, (MATCH,)) if min(options.thresholds) > MATCH else candidates
        errors = tuple(error_gains(near, bins, options.iou_type, options.replicates, options.seed))
    return Run(run.name, candidates, matches, Accumulator(matches), errors)
