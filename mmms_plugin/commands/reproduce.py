"""List and make the tables and figures of the four sources.

Without ITEM lists all; with ITEM shows what it needs, its commands and the published figures, beside those of the
trainings that exist. With --smoke runs it for one iteration on generated pictures, all items if none is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmms_plugin.errors import RunError
from mmms_plugin.options import CommandOptions, option, positional

if TYPE_CHECKING:
    from mmms_plugin.report.tables import Table, Value
    from mmms_plugin.reproduction.items import Item

Metrics = Mapping[str, float | None]
SMOKE_NOTE = "here: one iteration on generated pictures, which says nothing about accuracy"


@dataclass(kw_only=True)
class Options(CommandOptions):
    item: str | None = positional(
        default=None, metavar="ITEM", help="table or figure, such as psconv-table1 (default: list all)"
    )
    smoke: bool = option(default=False, help="run it small, on generated pictures, in a temporary folder")
    work_dirs: Path = option(
        default=Path("work_dirs"), metavar="DIR", help="folder that holds the work folders of the trainings"
    )


def run(options: Options) -> None:
    """List, show or run items.

    Raises:
        UserError: there is no such item.
    """
    from mmms_plugin.reproduction.index import INDEX, find_item

    items = list(INDEX.values()) if options.item is None else [find_item(options.item)]
    if options.smoke:
        _smoke(items)
    elif options.item is None:
        _list(items)
    else:
        _show(items[0], options.work_dirs)


def _list(items: list[Item]) -> None:
    from rich.console import Console

    from mmms_plugin.config.facts import read_facts
    from mmms_plugin.report.tables import Column, Table
    from mmms_plugin.report.terminal import print_table
    from mmms_plugin.reproduction.page import hours

    facts = read_facts()
    columns = ("item", Column("GPU\nhours"), Column("data", left=True), Column("shows", prose=True))
    rows = [
        (item.name, hours(item.gpu_hours(facts)), item.data.name if item.data else "–", item.title) for item in items
    ]
    print_table(Table("items", "tables and figures of the sources", columns, rows), Console())


def _show(item: Item, work_dirs: Path) -> None:
    from rich.console import Console

    from mmms_plugin.commands.compare_seeds_records import read_scalars
    from mmms_plugin.config.facts import read_facts
    from mmms_plugin.report.terminal import explain, print_table, say
    from mmms_plugin.reproduction.page import hours, needs, published

    measured: dict[str, Metrics] = {}
    for row in item.rows:
        with suppress(RunError):  # not trained yet, or not evaluated
            measured[row.folder] = read_scalars(work_dirs / row.folder)[0] if row.config else {}
    explain(f"needs {needs(item, hours(item.gpu_hours(read_facts())))}")
    for line in item.commands(str(work_dirs)):
        say(line)
    if item.data is None:
        print_table(published(item), Console())
        return
    note = f"here: the last evaluation in {work_dirs}, n/a where there is none"
    print_table(result(item, measured, note), Console())


def _smoke(items: list[Item]) -> None:
    import sys
    from tempfile import TemporaryDirectory

    from rich.console import Console
    from rich.progress import track

    from mmms_plugin.commands import main
    from mmms_plugin.commands.reproduce_smoke import draw_data, train_row
    from mmms_plugin.report.terminal import print_table
    from mmms_plugin.reproduction.page import published

    # the real streams, also while a training's output is kept back
    console, bar = Console(file=sys.stdout), Console(file=sys.stderr)
    measured: dict[str, Metrics] = {}
    with TemporaryDirectory() as scratch:
        pictures = draw_data(Path(scratch))
        for item in items:
            if item.data is None:
                print_table(published(item), console)
                if status := main([*item.command, *item.smoke]):
                    raise RunError(f"{item.name}: its command ended with status {status}")
                continue
            new = [row for row in item.rows if row.config and row.folder not in measured]
            for row in track(new, item.name, console=bar, transient=True, disable=not bar.is_terminal):
                measured[row.folder] = train_row(row, item.data, pictures, Path(scratch))
            print_table(result(item, measured, SMOKE_NOTE), console)


def result(item: Item, measured: Mapping[str, Metrics], note: str) -> Table:
    """The item in its final form: each figure as published, and as measured.

    Args:
        item: the table.
        measured: metrics of each row's training, by the name of its work folder.
        note: where the measured figures come from.
    """
    from mmms_plugin.report.tables import Column, Table

    columns = [Column("", left=True)]
    for measure in item.measures:
        columns += [Column(f"{measure.title}\npublished", measure.form), Column("\nhere", measure.form)]
    rows: list[list[Value]] = []
    for row in item.rows:
        metrics = measured.get(row.folder, {})
        figures = [measure.figure(metrics) if row.config else "–" for measure in item.measures]
        rows.append([row.name, *(value for pair in zip(row.cells, figures, strict=True) for value in pair)])
    notes = "; ".join(filter(None, (item.remark.rstrip("."), note)))
    return Table(item.name, f"{item.source}, {item.number}: {item.title}", columns, rows, note=notes)
