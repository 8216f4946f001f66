"""Tables and lines of text on a terminal, in a pipe or in a file: names, paths and figures are never cut or folded."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from mmms_plugin.errors import printable
from mmms_plugin.report.tables import Cell, Column, Table

LONGEST_CELL = 10_000  # characters
TRIED = ((2, LONGEST_CELL), (2, 16), (2, 10), (2, 0), (1, 0))  # gaps, and columns that titles have, as loose as fits
STACKED = 4  # columns by which the other cells of a row are indented below the first one
LONGEST_WORD = 24  # columns that prose has at least; a longer word, such as a path, goes beyond them


def print_table(table: Table, console: Console) -> None:
    """Print a table below its caption; text is shown literally, control characters as escapes.

    In a pipe or file it is as wide as its cells. In a terminal it fits the width, and a line below says which columns
    it has no room for.
    """
    if table.caption:
        explain(table.caption, console, "bold")
    rule = "─" if console.encoding.lower().startswith("utf") else "-"
    lines, left_out, wide = layout(table, console.width if console.is_terminal else sys.maxsize, rule)
    for line in lines:
        console.print(line, soft_wrap=True)
    if left_out:
        explain(f"not shown: {', '.join(left_out)} (a terminal of {wide} columns has room for all)", console, "dim")
    if table.note:
        explain(table.note, console, "dim")
    console.print()


def say(text: str, console: Console | None = None, style: str = "") -> None:
    """Print a line literally, so that the paths and commands in it can be copied."""
    (console or Console()).print(Text(literal(text), style), soft_wrap=True)


def explain(text: str, console: Console | None = None, style: str = "") -> None:
    """Print prose literally: in a terminal wrapped at words, in a pipe or file in one line."""
    console = console or Console()
    for line in wrapped(literal(text), console.width) if console.is_terminal else [literal(text)]:
        say(line, console, style)


class Layout(NamedTuple):
    """A table in a terminal.

    Attributes:
        lines: of the header, a rule, and the rows.
        left_out: titles of the columns for which there is no room.
        wide: columns of a terminal that has room for all of them.
    """

    lines: list[Text]
    left_out: list[str]
    wide: int


@dataclass(frozen=True)
class _Column:
    """A column as text: the lines of its title, and of its cell in each row."""

    source: Column
    title: list[str]
    cells: list[list[str]]

    def broken(self, room: int) -> _Column:
        """With the title wrapped to ``room`` columns, or as few as words and cells allow, if it has figures."""
        if self.source.left or self.source.prose:
            return self
        room = max(room, _widest(self.title, words=True), *(_widest(cell) for cell in self.cells))
        return _Column(self.source, [part for line in self.title for part in wrapped(line, room)], self.cells)

    @property
    def width(self) -> int:
        return max(_widest(lines) for lines in (self.title, *self.cells))

    @property
    def longest_word(self) -> int:
        return max(_widest(lines, words=True) for lines in (self.title, *self.cells))


def layout(table: Table, width: int, rule: str) -> Layout:
    """The table in ``width`` columns.

    As far as it is needed, titles are broken and gaps closed, prose wraps, columns of figures are left out, from the
    last one to the second, names wrap at words, and what is right of a name moves below it.

    Args:
        table: with any text.
        width: of the terminal.
        rule: the sign below the header.
    """
    columns = _columns(table)
    for gap, room in TRIED:
        broken = {place: column.broken(room) for place, column in enumerate(columns)}
        widths = {place: column.width for place, column in broken.items()}
        if _total(widths, gap) <= width:
            return Layout(_lines(table, broken, widths, gap, rule, False), [], _total(widths, gap))
    least = {
        place: min(column.longest_word, LONGEST_WORD) if column.source.prose else column.width
        for place, column in broken.items()
    }
    wide = _total(least, gap)
    left_out: list[str] = []
    figures = [place for place, column in broken.items() if place and not column.source.prose]
    for place in reversed(figures[1:]):
        if _total(least, gap) > width:
            left_out.insert(0, " ".join(columns[place].title).strip() or "a column without a title")
            del broken[place], least[place]
    if _total(least, gap) > width:
        least |= {place: column.longest_word for place, column in broken.items() if column.source.left}
    widths = {place: column.width for place, column in broken.items()}
    stacked = len(broken) > 1 and _total(least, gap) > width
    beside = {place: least[place] for place in least if place or not stacked}  # the columns that share a line
    room = width - _total(beside, gap) - (STACKED if stacked else 0)
    widths |= _grown(beside, widths, room)
    return Layout(_lines(table, broken, widths, gap, rule, stacked), left_out, wide)


def wrapped(text: str, width: int) -> list[str]:
    """Lines broken at spaces; a word that is longer has a line of its own. Further lines are indented as the first."""
    indent = text[: len(text) - len(text.lstrip(" "))]
    lines = [indent + next(iter(words := text.split()), "")]
    for word in words[1:]:
        if cell_len(f"{lines[-1]} {word}") > width:
            lines.append(indent + word)
        else:
            lines[-1] += f" {word}"
    return lines if cell_len(text) > width else [text]


def literal(text: str) -> str:
    """A text as a terminal may show it: control characters as escapes."""
    return printable(text, LONGEST_CELL)


def _widest(lines: Sequence[str], words: bool = False) -> int:
    """Columns of the widest line, or of the widest word."""
    return max((cell_len(part) for line in lines for part in (line.split(" ") if words else [line])), default=0)


def _columns(table: Table) -> list[_Column]:
    rows = [row for row in table.cells if not _is_heading(row, table)]
    return [
        _Column(column, [literal(line) for line in column.title.split("\n")], [_cell_lines(row[place]) for row in rows])
        for place, column in enumerate(table.typed_columns)
    ]


def _is_heading(row: Sequence[Cell], table: Table) -> bool:
    return len(row) == 1 < len(table.columns)


def _cell_lines(cell: Cell) -> list[str]:
    return [literal(part) for part in (cell.text, cell.small) if part]


def _total(widths: Mapping[int, int], gap: int) -> int:
    return sum(widths.values()) + gap * (len(widths) - 1)


def _grown(least: Mapping[int, int], widths: Mapping[int, int], room: int) -> dict[int, int]:
    """Widths from the least, which grow as far as the room allows."""
    grown = dict(least)
    for place in least:
        more = max(0, min(room, widths[place] - grown[place]))
        grown[place] += more
        room -= more
    return grown


def _lines(
    table: Table, columns: Mapping[int, _Column], widths: Mapping[int, int], gap: int, rule: str, stacked: bool
) -> list[Text]:
    tallest = max(len(column.title) for column in columns.values())
    titles = [[""] * (0 if stacked else tallest - len(column.title)) + column.title for column in columns.values()]
    lines = _row(titles, columns, widths, gap, ["bold"] * len(columns), stacked)
    total = max(widths[0], STACKED + _total(widths, gap) - widths[0] - gap) if stacked else _total(widths, gap)
    lines.append(Text(rule * total))
    for row in table.cells:
        if _is_heading(row, table):
            lines += [Text(), *(Text(line, "bold") for text in _cell_lines(row[0]) for line in wrapped(text, total))]
            continue
        cells = [row[place] for place in columns]
        texts = [
            [part for line in _cell_lines(cell) for part in wrapped(line, widths[place])]
            for place, cell in zip(columns, cells, strict=True)
        ]
        lines += _row(texts, columns, widths, gap, [cell.style for cell in cells], stacked)
    return lines


def _row(
    texts: Sequence[Sequence[str]], columns: Mapping[int, _Column], widths: Mapping[int, int], gap: int,
    styles: Sequence[str], stacked: bool,
) -> list[Text]:  # fmt: skip
    """The lines of a row, whose cells have as many lines as they need; with the first cell above the others, or not."""
    if stacked:
        first, *others = texts
        indented = {place: widths[place] for place in columns if place}
        below = {place: columns[place] for place in indented}
        return [
            *(Text(line, styles[0]) for line in first),
            *(Text(" " * STACKED).append(line) for line in _row(others, below, indented, gap, styles[1:], False)),
        ]
    lines = []
    for number in range(max(1, *map(len, texts))):
        line = Text()
        for place, cell, style in zip(columns, texts, styles, strict=True):
            text = cell[number] if number < len(cell) else ""
            pad = " " * (widths[place] - cell_len(text))
            line.append(" " * gap if place != next(iter(columns)) else "")
            if columns[place].source.left or columns[place].source.prose:
                line.append(text, style).append(pad)
            else:
                line.append(pad).append(text, style)
        line.rstrip()
        lines.append(line)
    return lines
