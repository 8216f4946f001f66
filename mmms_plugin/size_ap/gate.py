"""Conditions for CI: ``--fail-if "small.AP < 0.20"``, and no bin significantly worse than an earlier ``results.json``.

Earlier results are compared by the paired bootstrap, without the earlier predictions: a draw of images depends only on
their number, the seed and the draw's number, so figures of the same draw, which ``results.json`` keeps for every run of
a group, belong together. Groups are compared over images and seeds (`kernel.bootstrap`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from mmms_plugin.errors import UserError
from mmms_plugin.size_ap.kernel.bootstrap import Levels, combined, interval, levels
from mmms_plugin.size_ap.results import ERROR_TYPES, METRICS, RunResult, SizeAPResults

OPERATORS = {
    "<": lambda value, limit: value < limit,
    "<=": lambda value, limit: value <= limit,
    ">": lambda value, limit: value > limit,
    ">=": lambda value, limit: value >= limit,
}
CONDITION = re.compile(r"\s*(?P<bin>.+?)\.(?P<figure>\w+)\s*(?P<operator><=|>=|<|>)\s*(?P<limit>\S+)\s*")
FORM = 'must be BIN.FIGURE < NUMBER (or <=, >, >=), such as "small.AP < 0.20" or "all.missed > 0.1"'
# must be the same in both
SETTINGS = ("seen", "iou_type", "area", "bins", "max_dets", "iou_thresholds", "replicates", "seed", "data")
SAID = {"data": "the annotations", "seen": "--resize, --tiles or --bin-unit"}
ROUNDING = 1e-9  # by which a mean of precisions may exceed 1


@dataclass(frozen=True)
class Condition:
    """A figure that fails the run: ``figure`` is a name of `METRICS`, or of `ERROR_TYPES` (the AP50 gained)."""

    text: str
    bin: str
    figure: str
    operator: str
    limit: float

    def failure(self, run: RunResult) -> str | None:
        """The reason if the run fails: the condition holds, or the figure is undefined."""
        result = next(result for result in run.bins if result.bin.name == self.bin)
        value = result.errors[self.figure].gain if self.figure in ERROR_TYPES else getattr(result, self.figure)
        if value is None:
            return f"{self.text}: n/a, the bin has no objects"
        return f"{self.text}: it is {100 * value:.2f} (× 100)" if OPERATORS[self.operator](value, self.limit) else None


def parse_conditions(texts: Sequence[str]) -> tuple[Condition, ...]:
    """Conditions from texts such as ``"small.AP < 0.20"``.

    Raises:
        UserError: another form, an unknown figure, or a limit that is not a number.
    """
    conditions = []
    for text in texts:
        parts = CONDITION.fullmatch(text)
        if not parts:
            raise UserError(f"--fail-if {text!r}: {FORM}")
        figure = parts["figure"].lower()
        if figure not in (*METRICS, *ERROR_TYPES):
            allowed = ", ".join((*(name.upper() for name in METRICS), *ERROR_TYPES))
            raise UserError(f"--fail-if {text!r}: {parts['figure']!r} is not a figure; allowed are {allowed}")
        number, hundredths = parts["limit"].removesuffix("%"), parts["limit"].endswith("%")
        try:
            limit = float(number) / (100 if hundredths else 1)
        except ValueError:
            limit = math.nan
        if math.isnan(limit):
            raise UserError(f"--fail-if {text!r}: {parts['limit']!r} is not a number")
        if abs(limit) > 1:
            raise UserError(f"--fail-if {text!r}: must be a share from -1 to 1; 20.0 in the tables is 0.20 or 20% here")
        conditions.append(Condition(text.strip(), parts["bin"].strip(), figure, parts["operator"], limit))
    return tuple(conditions)


def check_bins(conditions: Sequence[Condition], bins: Sequence[str], errors: bool) -> None:
    """Refuse conditions on bins or figures that this evaluation lacks.

    Raises:
        UserError: for the first such condition.
    """
    for condition in conditions:
        at_fault = f"--fail-if {condition.text!r}"
        if condition.bin not in bins:
            raise UserError(f"{at_fault}: {condition.bin!r} is not a bin; there are {', '.join(bins)}")
        if condition.figure in ERROR_TYPES and not errors:
            raise UserError(f"{at_fault}: error types are left out by --no-errors")


@dataclass(frozen=True)
class Baseline:
    """Earlier results: their settings, the name of their last run, and its AP by bin."""

    path: str
    name: str
    settings: dict[str, Any]
    bins: dict[str, tuple[float, Levels]]

    def check_bins(self, names: Sequence[str]) -> None:
        """Raise UserError if these are not its bins, before figures are computed."""
        if list(self.bins) != list(names):
            self._refuse("bins")

    def failures(self, results: SizeAPResults) -> tuple[str, ...]:
        """A line for every bin in which the last run is significantly worse.

        Raises:
            UserError: the earlier results have other data or settings.
        """
        content = results.to_json()
        differ = [name for name in SETTINGS if content[name] != self.settings[name]]
        if differ:
            self._refuse(SAID.get(differ[0], differ[0].replace("_", " ")))
        last_run = _last_run(content).items()
        lines = (self._failure(name, *self.bins[name], *now, results.confidence) for name, now in last_run)
        return tuple(filter(None, lines))

    def _refuse(self, what: str) -> NoReturn:
        raise UserError(f"--baseline {self.path}: {what} differ from this run's; both must be evaluated the same way")

    def _failure(
        self, name: str, earlier: float, before: Levels, ap: float, after: Levels, confidence: float
    ) -> str | None:
        if math.isnan(earlier) or math.isnan(ap):
            return None
        around = interval(combined([before, after], confidence), ap - earlier, confidence)
        if around.high is None or around.low is None or around.high >= 0:
            return None
        low, high, change = (f"{100 * value:+.2f}" for value in (around.low, around.high, ap - earlier))
        both = f"{name}.AP {100 * ap:.2f} is below the baseline's {100 * earlier:.2f} ({self.name}, × 100)"
        return f"{both}: {change}, {confidence:.0%} interval {low} to {high}"


def read_baseline(path: str) -> Baseline:
    """The last run of a ``results.json`` that ``mmms size-ap`` wrote with a bootstrap.

    Raises:
        UserError: another file, or one without a bootstrap.
    """
    wanted = "must be a results.json that `mmms size-ap --bootstrap N` wrote"
    try:
        content = json.loads(Path(path).read_bytes(), parse_constant=_refuse)
        content.setdefault("seen", "")  # 0.1.0 knew sizes on disk only
        settings, name = {key: content[key] for key in SETTINGS}, str(content["runs"][-1]["name"])
        bins = _last_run(content) if settings["replicates"] else None
    except OSError as error:
        raise UserError(f"--baseline {path}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError):
        raise UserError(f"--baseline {path}: {wanted}") from None
    if bins is None:
        raise UserError(f"--baseline {path}: no bootstrap in it; {wanted}")
    return Baseline(path, name, settings, bins)


def _last_run(content: dict[str, Any]) -> dict[str, tuple[float, Levels]]:
    """AP of the last run by bin, NaN if undefined, and how it varies with images and seeds.

    Raises:
        ValueError and others of `read_baseline`: the content is not what `SizeAPResults.to_json` gives.
    """
    run, by_bin = content["runs"][-1], {}
    for i, result in enumerate(run["bins"]):
        seeds = [(seed["ap"][i], seed["ap_draws"][i]) for seed in run["seeds"]]
        seeds = seeds or [(result["ap"], result["ap_draws"])]
        points, draws = (np.array(figures, np.float64) for figures in zip(*seeds, strict=True))
        every = np.append(draws, [*points, math.nan if result["ap"] is None else result["ap"]])
        if draws.shape != (len(seeds), content["replicates"]) or ((every < 0) | (every > 1 + ROUNDING)).any():
            raise ValueError(result["bin"]["name"])
        by_bin[result["bin"]["name"]] = (float(every[-1]), levels(points, draws, content["seed"]))
    if list(by_bin) != [bin_["name"] for bin_ in content["bins"]]:
        raise ValueError("bins")
    return by_bin


def _refuse(word: str) -> float:
    """Refuse NaN and Infinity, which are not JSON; undefined figures are null."""
    raise ValueError(word)
