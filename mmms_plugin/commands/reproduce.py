"""List and make the tables and figures of the four sources.

Without ITEM lists all; with ITEM shows what it needs, its commands and the published figures, beside those of the
trainings that exist. With --smoke runs it for one iteration on generated pictures, all items if none is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmms_plugin.errors import UserError
from mmms_plugin.files import check_folder, make_folder, write_text
from mmms_plugin.options import CommandOptions, option, positional

if TYPE_CHECKING:
    from mmms_plugin.commands.reproduce_results import Measured
    from mmms_plugin.report.tables import Table
    from mmms_plugin.reproduction.items import Item


@dataclass(kw_only=True)
class Options(CommandOptions):
    item: str | None = positional(
        default=None, metavar="ITEM", help="table or figure, such as psconv-table1 (default: list all)"
    )
    smoke: bool = option(default=False, help="run it small, on generated pictures, in a temporary folder")
    work_dirs: Path = option(
        default=Path("work_dirs"), metavar="DIR", help="folder that holds the work folders of the trainings"
    )
    out: Path | None = option(
        metavar="DIR",
        help="write the table as CSV, a figure as PNG, PDF and SVG, and what the item's commands make in a smoke run",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out and self.item is None and not self.smoke:
            raise UserError("--out: give an ITEM, or --smoke")


def run(options: Options) -> None:
    """List, show or run items.

    Raises:
        UserError: there is no such item.
    """
    from mmms_plugin.reproduction.index import INDEX, find_item

    items = list(INDEX.values()) if options.item is None else [find_item(options.item)]
    if options.out:
        check_folder(options.out)
    if options.smoke:
        from mmms_plugin.commands.reproduce_smoke import smoke

        smoke(items, options.out, keep)
    elif options.item is None:
        _list(items)
    else:
        _show(items[0], options.work_dirs, options.out)


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


def _show(item: Item, work_dirs: Path, out: Path | None) -> None:
    from rich.console import Console

    from mmms_plugin.commands.reproduce_results import count_costs, result, trained_metrics
    from mmms_plugin.config.facts import read_facts
    from mmms_plugin.report.terminal import explain, print_table, say
    from mmms_plugin.reproduction.page import hours, needs, published

    explain(f"needs {needs(item, hours(item.gpu_hours(read_facts())))}")
    for line in item.commands(str(work_dirs)):
        say(line)
    measured = count_costs(item, trained_metrics(item, work_dirs))
    table = published(item)
    if item.data or item.counted:
        which = "best" if item.best else "last"
        note = "" if item.counted else f"here: the {which} evaluation in {work_dirs}, n/a where there is none"
        table = result(item, measured, note)
    if item.measures:
        print_table(table, Console())
    else:
        explain(table.caption)
        explain(item.remark)
    if out:
        for file in keep(item, table, measured, out):
            say(f"written to {file}")


def keep(item: Item, table: Table, measured: Measured, out: Path) -> list[Path]:
    """Write an item's table, and draw its figure; returns the files."""
    from mmms_plugin.report.tables import to_csv

    make_folder(out)
    header = [title.replace("\n", " ").strip() for title in table.header]
    files = [write_text(out / f"{item.name}.csv", to_csv(header, table.rows))] if item.measures else []
    if item.figure:
        from mmms_plugin.commands.reproduce_figures import draw

        files += draw(item, measured, out)
    return files
