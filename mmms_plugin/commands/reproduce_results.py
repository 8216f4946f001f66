"""The tables of ``mmms reproduce``: figures of trainings beside the published ones."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from mmms_plugin.coco.json_files import read_typed
from mmms_plugin.commands.compare_seeds_records import read_evaluations
from mmms_plugin.errors import RunError
from mmms_plugin.report.tables import Column, Table, Value
from mmms_plugin.reproduction.items import Item, Measure, Row

Metrics = Mapping[str, float | None]
Measured = Mapping[str, Sequence[Metrics]]  # of the trainings of a row, one for each seed, by the row's folder
STRESS_TEST = "stress_test.json"


def trained_metrics(item: Item, work_dirs: Path) -> dict[str, list[Metrics]]:
    """Metrics of the trainings that exist.

    Args:
        item: the table or figure.
        work_dirs: folder that holds the work folders.
    """
    measured: dict[str, list[Metrics]] = {}
    for row in item.trainings:
        by_size = stress_metrics(work_dirs / item.name / row.folder)
        for name in item.folders(row):
            with suppress(RunError):  # not trained yet, or not evaluated
                measured.setdefault(row.folder, []).append({**read_metrics(item, work_dirs / name), **by_size})
    return measured


def read_metrics(item: Item, work_dir: Path) -> Metrics:
    """Metrics of a training's last evaluation, or of its best.

    Raises:
        RunError: the training logged none.
    """
    evaluations, _ = read_evaluations(work_dir)
    if not item.best:
        return evaluations[-1]
    metric = next(measure.metric for measure in item.measures if not measure.counted)

    def quality(metrics: Metrics) -> float:
        value = metrics.get(metric)
        return -math.inf if value is None else value

    return max(evaluations, key=quality)


def stress_metrics(folder: Path, sizes: Mapping[str, str] | None = None) -> Metrics:
    """What ``mmms stress-test`` measured, by picture size: ``224/labels/F1_overall``; empty if it did not run.

    Args:
        folder: its ``--out``.
        sizes: other names for the sizes.
    """
    if not (folder / STRESS_TEST).is_file():
        return {}
    by_size = read_typed(folder / STRESS_TEST, "stress-test", dict[str, dict[str, float | None]], "measure it again")
    return {
        f"{(sizes or {}).get(size, size)}/{name}": value
        for size, metrics in by_size.items()
        for name, value in metrics.items()
    }


def count_costs(item: Item, measured: Mapping[str, Sequence[Metrics]]) -> dict[str, list[Metrics]]:
    """Add parameters and multiply-adds, if the item has a column for them."""
    counted = {folder: list(metrics) for folder, metrics in measured.items()}
    if not any(measure.counted for measure in item.measures):
        return counted
    from mmms_plugin.reproduction.costs import count_row

    for row in item.rows:
        if row.config or row.layer:
            costs = count_row(item, row).metrics
            counted[row.folder] = [{**metrics, **costs} for metrics in measured.get(row.folder) or [{}]]
    return counted


def figures_of(item: Item, row: Row, measure: Measure, measured: Measured) -> list[float]:
    """The measured figures of a cell: none, one, or one for each seed; of a comparison the improvement in per cent."""
    if item.compared:
        plain, other = (_figures(training, row.part, measure, measured) for training in item.compared)
        return [100 * (second / first - 1) for first, second in zip(plain, other, strict=False) if first]
    return _figures(row, row.part, measure, measured)


def _figures(training: Row, part: str, measure: Measure, measured: Measured) -> list[float]:
    figures = (measure.figure(metrics, part) for metrics in measured.get(training.folder, ()))
    return [figure for figure in figures if figure is not None]


def result(item: Item, measured: Measured, note: str) -> Table:
    """The item in its final form: each figure as published, if any of its column is, and as measured.

    Args:
        item: the table.
        measured: metrics of the trainings.
        note: where the measured figures come from.
    """
    columns = [Column("", left=True)]
    quoted = [any(row.published[i] is not None for row in item.rows) for i in range(len(item.measures))]
    for measure, is_quoted in zip(item.measures, quoted, strict=True):
        titles = (f"{measure.title}\npublished", "\nhere") if is_quoted else (f"{measure.title}\nhere",)
        columns += [Column(title, measure.form) for title in titles]
    rows: list[list[Value]] = []
    for row in item.rows:
        cells: list[Value] = [row.name]
        for measure, published, is_quoted in zip(item.measures, row.cells, quoted, strict=True):
            known = row.config or row.layer or item.compared
            cells += [published] if is_quoted else []
            cells.append(_cell(figures_of(item, row, measure, measured), measure) if known else "–")
        rows.append(cells)
    notes = "; ".join(filter(None, (item.remark.rstrip("."), note)))
    return Table(item.name, f"{item.source}, {item.number}: {item.title}", columns, rows, note=notes)


def _cell(figures: Sequence[float], measure: Measure) -> Value:
    if len(figures) < 2:
        return figures[0] if figures else None
    mean, deviation = statistics.mean(figures), statistics.stdev(figures)
    return f"{mean:{measure.form}} ± {deviation:{measure.form}}"
