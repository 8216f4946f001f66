"""Compare trainings: config, best metric, length, time and seed.

    mmms runs work_dirs

Reads the results.json that mmms train writes after every evaluation. The best training comes first.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from mmms_plugin.errors import UserError, counted, one_line
from mmms_plugin.options import CommandOptions, option, positional


@dataclass(kw_only=True)
class Options(CommandOptions):
    folder: Path = positional(metavar="DIR", help="folder with the work folders of trainings, at any depth")
    metric: str | None = option(
        metavar="NAME", help="metric to compare, such as coco/segm_mAP (default: that of the best checkpoint)"
    )
    csv: Path | None = option("--csv", "--out", metavar="FILE", help="file to write the table to, as CSV")


def run(options: Options) -> None:
    """Print the table.

    Raises:
        UserError: there are no results, or none with that metric.
    """
    from rich.console import Console

    from mmms_plugin.files import write_text
    from mmms_plugin.report.run_results import NAME, RunResults
    from mmms_plugin.report.tables import Column, Table, Value, to_csv
    from mmms_plugin.report.terminal import print_table

    if not options.folder.is_dir():
        raise UserError(f"DIR {options.folder}: no such folder")
    runs = {}
    for file in sorted(options.folder.rglob(f"{NAME}.json")):
        try:
            runs[file.parent] = RunResults.read(file)
        except UserError as error:
            print(one_line(f"skipped: {error}"), file=sys.stderr)
    if not runs:
        raise UserError(f"DIR {options.folder}: no training has written {NAME}.json there or below")
    known = dict.fromkeys(name for results in runs.values() for name in results.metrics())
    if options.metric is not None and options.metric not in known:
        raise UserError(f"--metric {options.metric}: no training reports it; allowed are {', '.join(known)}")
    rows: dict[tuple[bool, str, float, int], list[Value]] = {}
    for folder, results in runs.items():
        metric, last = options.metric or results.metric, results.evaluations[-1]
        best = results.best(metric)
        value = None if best is None else best.metrics[metric]
        lower_first = 1 if results.rule == "less" and metric == results.metric else -1
        ended = "" if results.done else " (stopped)"
        rows[value is None, metric, lower_first * (value or 0.0), len(rows)] = [
            folder.relative_to(options.folder).as_posix(), results.config, metric, value,
            None if best is None else results.progress(best),
            f"{results.progress(last)} of {results.length} {results.unit}{ended}",
            str(timedelta(seconds=round(last.seconds))), str(results.seed),
        ]  # fmt: skip
    columns = [
        Column("run", left=True), Column("config", left=True), Column("metric", left=True), Column("best", ".4g"),
        Column("at", "d"), Column("done", left=True), Column("time"), Column("seed"),
    ]  # fmt: skip
    table = Table(
        "runs", f"{counted(len(runs), 'training')} in {options.folder}", columns, [rows[key] for key in sorted(rows)]
    )
    print_table(table, Console())
    if options.csv is not None:
        write_text(options.csv, to_csv(table.header, table.rows))
