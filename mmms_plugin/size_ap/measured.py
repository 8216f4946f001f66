"""A method between counting and results: its runs (one, or one a seed), their figures and bootstrap draws."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.size_ap.kernel.accumulate import Accumulator, Scores
from mmms_plugin.size_ap.kernel.bootstrap import Replicates, bin_figures, class_figures
from mmms_plugin.size_ap.kernel.error_types import ErrorGains
from mmms_plugin.size_ap.kernel.levels import Levels, levels
from mmms_plugin.size_ap.kernel.matching import Candidates, Matches
from mmms_plugin.size_ap.results import Figure

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
        """``(bins, types)`` AP50 gained if errors were mended; no bins if that was not asked for."""
        return np.stack([[one.gains for one in run.errors] for run in self.runs]).mean(0)

    @cached_property
    def bin_levels(self) -> Levels | None:
        """Of ``by_bin``."""
        draws = [found.bins for found in self.replicates]
        return levels(self.by_run, np.stack(draws), self.seed) if draws else None

    @cached_property
    def class_levels(self) -> Levels | None:
        """Of AP in ``by_class``."""
        draws = [found.class_ap for found in self.replicates]
        points = np.stack([run.by_class[..., 0] for run in self.runs])
        return levels(points, np.stack(draws), self.seed) if draws else None

    @cached_property
    def error_levels(self) -> Levels | None:
        """Of ``gains``."""
        if not self.replicates or not self.runs[0].errors:
            return None
        points = np.stack([[one.gains for one in run.errors] for run in self.runs])
        draws = np.stack([np.stack([one.draws for one in run.errors], 1) for run in self.runs])
        return levels(points, draws, self.seed)


def figure(value: float) -> Figure:
    """NaN as None."""
    return None if np.isnan(value) else float(value)
