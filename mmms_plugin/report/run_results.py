"""What a training writes about itself into its work folder, and reads again: ``results.json``, ``.csv`` and ``.png``.

The JSON file has everything; the CSV file has a row for each evaluation, and the picture draws them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from mmms_plugin.coco.json_files import read_typed
from mmms_plugin.errors import UserError
from mmms_plugin.files import write_text
from mmms_plugin.report.tables import to_csv

NAME = "results"
FILES = (f"{NAME}.json", f"{NAME}.csv", f"{NAME}.png")
SAMPLES = "samples"  # folder of the pictures that are drawn after each evaluation
WANTED = "mmms train writes it"
Count = Annotated[int, Meta(ge=0, le=2**53)]
Figure = Annotated[float, Meta(ge=-1e30, le=1e30)]


@dataclass(frozen=True)
class Evaluated:
    """One evaluation of a training.

    Attributes:
        epoch, iteration: that were done; an epoch is a whole pass over the data.
        seconds: of training and evaluating so far, all runs of a resumed training together.
        rate: learning rate of the first group of parameters.
        loss: mean over the iterations since the evaluation before; None if unknown.
        metrics: None where there was nothing to measure.
    """

    epoch: Count
    iteration: Count
    seconds: Annotated[float, Meta(ge=0, le=1e12)]
    rate: Figure | None
    loss: Figure | None
    metrics: dict[str, Figure | None]


@dataclass
class RunResults:
    """A training and its evaluations.

    Attributes:
        config: as it was given.
        seed: of the training.
        length: of the training, in its unit.
        unit: what the training counts.
        metric: by which the best evaluation is chosen; '' if unknown.
        rule: which value of it is better.
        command: words of the command line, if it was started there.
        done: whether the training came to its end.
        evaluations: in order.
    """

    config: str
    seed: int
    length: Count
    unit: Literal["epochs", "iterations"]
    metric: str
    rule: Literal["greater", "less"] = "greater"
    command: tuple[str, ...] = ()
    done: bool = False
    evaluations: list[Evaluated] = field(default_factory=list)

    @classmethod
    def read(cls, file: Path) -> RunResults:
        """The results in a ``results.json``.

        Raises:
            UserError: the file is missing or damaged, or has no evaluation.
        """
        results = read_typed(file, "results", cls, WANTED)
        if not results.evaluations:
            raise UserError(f"results {file}: holds no evaluation; {WANTED}")
        return results

    def add(self, evaluation: Evaluated) -> None:
        """Add an evaluation, in place of those of the same iteration and later ones."""
        self.evaluations = [*self.before(evaluation.iteration), evaluation]

    def before(self, iteration: int) -> Iterator[Evaluated]:
        """The evaluations before an iteration."""
        return (evaluation for evaluation in self.evaluations if evaluation.iteration < iteration)

    def best(self, metric: str) -> Evaluated | None:
        """The first of the best evaluations by a metric; None if it was never measured."""
        measured = [e for e in self.evaluations if e.metrics.get(metric) is not None]
        sign = -1 if self.rule == "less" and metric == self.metric else 1
        return max(measured, key=lambda e: sign * (e.metrics[metric] or 0.0), default=None)

    def metrics(self) -> list[str]:
        """Names of the metrics, in their order."""
        return list(dict.fromkeys(name for evaluation in self.evaluations for name in evaluation.metrics))

    def progress(self, evaluation: Evaluated) -> int:
        """Where in the training an evaluation was, in its unit."""
        return evaluation.epoch if self.unit == "epochs" else evaluation.iteration

    def write(self, folder: Path) -> None:
        """Write the files, each completely or not at all; the picture from the second evaluation on.

        Raises:
            UserError: they cannot be written.
        """
        write_text(folder / f"{NAME}.json", json.dumps(asdict(self), indent=1) + "\n")
        names = self.metrics()
        rows = [[e.epoch, e.iteration, e.seconds, e.rate, e.loss, *(e.metrics.get(name) for name in names)]
                for e in self.evaluations]  # fmt: skip
        header = ["epoch", "iteration", "seconds", "learning rate", "loss", *names]
        write_text(folder / f"{NAME}.csv", to_csv(header, rows))
        if len(self.evaluations) > 1 and not self.done:  # at its end, nothing new is to be drawn
            self.draw(folder)

    def draw(self, folder: Path) -> None:
        """Draw loss and followed metric over the training, with the best value marked."""
        from matplotlib.ticker import MaxNLocator

        from mmms_plugin.report.figure_style import NEUTRAL, RUN_COLOURS, canvas, save, shorten

        with canvas(columns=2, height=2.6) as (figure, (left, right)):
            at = [self.progress(evaluation) for evaluation in self.evaluations]
            left.plot(at, _numbers([e.loss for e in self.evaluations]), ".-", color=RUN_COLOURS[0])
            left.set_title("loss, mean since the evaluation before")
            right.plot(at, _numbers([e.metrics.get(self.metric) for e in self.evaluations]), ".-", color=RUN_COLOURS[1])
            right.set_title(shorten(self.metric, 40))
            if best := self.best(self.metric):
                value = best.metrics[self.metric] or 0.0
                right.axhline(value, color=NEUTRAL, linewidth=0.8, linestyle=":")
                right.set_title(f"{shorten(self.metric, 28)}: best {value:.4g}")
            for axes in (left, right):
                axes.set_xlabel(self.unit)
                axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
                axes.grid(axis="y")
            save(figure, folder, NAME, formats=("png",))


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]
