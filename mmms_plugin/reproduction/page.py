"""The page ``docs/reproduce.md``, written from the index by ``python -m mmms_plugin.reproduction.page``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from mmms_plugin.config.facts import read_facts
from mmms_plugin.files import write_text
from mmms_plugin.report.tables import Column, Table, to_markdown
from mmms_plugin.reproduction.index import INDEX, REMARKS
from mmms_plugin.reproduction.items import GPU_MACS, Item

LISTED = 12  # rows of an item that has more than twice as many
PAGE = Path(__file__).parents[2] / "docs/reproduce.md"
INTRODUCTION = f"""# Reproduce the sources

The tables and figures of the sources: what each needs, the commands that make it, and the published figures. None of
the trainings was run here. `mmms reproduce` lists this page; `mmms reproduce ITEM` shows an item and, once a training's
work folder exists, the figures of its last or best evaluation; `--out DIR` also writes the table and draws a figure.
`mmms reproduce ITEM --smoke` runs an item for one iteration on generated pictures and shows it in its final form;
`mmms reproduce ITEM | grep '^mmms'` is the script of the whole.

Data are expected where the config looks for them (`mmms train --help` lists the options for other places). The recipes
are for 8 GPUs: `torchrun --nproc-per-node 8 -m mmms_plugin train ... --launcher pytorch`; on fewer, add
`--auto-scale-lr`. GPU hours are estimates, without the heads of detectors, for a GPU that does {GPU_MACS / 1e12:g} T
multiply-adds per second.
"""


def page() -> str:
    """The page in Markdown."""
    facts = read_facts()
    parts = [INTRODUCTION]
    for source, items in groupby(INDEX.values(), key=lambda item: item.source):
        parts.append(f"\n## {source}\n{REMARKS[source]}")
        for item in items:
            parts += _section(item, hours(item.gpu_hours(facts)))
    return "".join(parts)


def hours(value: float | None) -> str:
    """GPU hours with one or two digits that mean something: 870, 12, 0.4; a dash for none."""
    if not value:
        return "unknown" if value is None else "–"
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 10 else f"{value:.1g}"


def needs(item: Item, gpu_hours: str) -> str:
    """Data and time in a line."""
    if item.data is None:
        return "neither data nor training"
    each = f"{item.epochs} epochs each" + (f", {item.seeds} trainings of each network" if item.seeds > 1 else "")
    return f"{item.data.name}, {each}, about {gpu_hours} GPU hours in all"


def published(item: Item) -> Table:
    """The source's own table."""
    columns = (Column("", left=True), *(Column(measure.title, measure.form) for measure in item.measures))
    caption = f"{item.source}, {item.number}: {item.title}, as published"
    return Table(item.name, caption, columns, [(row.name, *row.cells) for row in item.rows])


def _section(item: Item, gpu_hours: str) -> Iterator[str]:
    yield f"\n### {item.number}: {item.title}\n\n`mmms reproduce {item.name}`. Needs {needs(item, gpu_hours)}.\n"
    if item.remark:
        yield f"{item.remark}\n"
    table, commands = replace(published(item), caption=""), item.commands()
    if more := len(item.rows) - LISTED if len(item.rows) > 2 * LISTED else 0:
        table = replace(table, rows=[*table.rows[:LISTED], (f"... and {more} more", *["–"] * len(item.measures))])
        commands = [*commands[:LISTED], f"# ... and {more} more; mmms reproduce {item.name} prints all"]
    if item.measures:
        yield f"\n{to_markdown(table)}"
    yield "\n```bash\n" + "\n".join(commands) + "\n```\n"


if __name__ == "__main__":
    write_text(PAGE, page())
