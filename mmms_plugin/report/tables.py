"""One table for all reports, and its forms for Markdown, LaTeX and CSV.

Terminals (`report.terminal`) and the HTML page (`report.page`) show the same tables.
Every format has one escaper, here; for HTML it is jinja's.
Undefined figures are shown as n/a; CSV has full precision and leaves them empty.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmms_plugin.errors import UserError, shown

if TYPE_CHECKING:
    from pandas import DataFrame

NOT_AVAILABLE = "n/a"
PAGE_ROWS = 45  # a LaTeX table with more rows is split over several pages
_FORMULA = re.compile(
    r"[\t\r]|[\s\u200b\u2060\ufeff]*[-=+@\uff1d\uff0b\uff0d\uff20]"
)  # spreadsheets skip leading white space
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "→": r"$\rightarrow$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "²": r"\textsuperscript{2}",
    "Δ": r"$\Delta$",
    "−": r"$-$",
    "–": "--",
    "×": r"$\times$",
    "√": r"$\sqrt{\cdot}$",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
}


@dataclass(frozen=True)
class Cell:
    """A cell as the reader sees it: ``text``, and ``small`` beside or below it (an interval, a count).

    ``style`` is a colour or style of rich, for terminals only.
    """

    text: str
    small: str = ""
    style: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.small}".strip()


@dataclass(frozen=True)
class Column:
    """A column of numbers, or, if ``left``, of text.

    Attributes:
        title: of the column.
        form: format specification of numbers: ``.3f``, ``,`` or ``.0%``.
        left: align the cells left, as for names.
        prose: the cells are sentences, which wrap at words in a narrow terminal, where other columns are left out.
    """

    title: str
    form: str = ""
    left: bool = False
    prose: bool = False


Value = Cell | str | float | None
Rows = list[Sequence[Value]]
Columns = Sequence[Column | str]


@dataclass(frozen=True)
class Table:
    """Rows of cells below a header.

    Attributes:
        name: stem of a file or label.
        caption: one line about the contents.
        columns: if they are titles, the first column is for names and the others for numbers, written in ``form``.
        rows: one value per column; a row of a single value is a heading for the rows below it.
        folded: the page hides a long table behind its caption.
        note: below the caption of a table that stands alone; the page shows it once for all tables.
        form: format specification of numbers in columns that are titles.
    """

    name: str
    caption: str
    columns: Columns
    rows: Sequence[Sequence[Value]]
    folded: bool = False
    note: str = ""
    form: str = ""

    @property
    def header(self) -> tuple[str, ...]:
        """Titles of the columns."""
        return tuple(column.title for column in self.typed_columns)

    @property
    def typed_columns(self) -> tuple[Column, ...]:
        """The columns, titles converted."""
        return tuple(
            Column(column, self.form, left=i == 0) if isinstance(column, str) else column
            for i, column in enumerate(self.columns)
        )

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows as text."""
        columns = self.typed_columns
        return [[_cell(value, columns[i].form) for i, value in enumerate(row)] for row in self.rows]


def _cell(value: Value, form: str) -> Cell:
    if isinstance(value, Cell):
        return value
    if isinstance(value, str):
        return Cell(value)
    undefined = value is None or not math.isfinite(value)
    return Cell(NOT_AVAILABLE if undefined else format(value, form))


def metric_figure(value: float) -> float | None:
    """A host's metric; None where there was nothing to measure, for which pycocotools has -1 and others have NaN."""
    return None if value == -1 or not math.isfinite(value) else float(value)


def percent(value: float | None, sign: bool = False) -> str:
    """AP times 100 with one decimal, or n/a; with ``sign``, for differences; with a true minus sign."""
    if value is None or not math.isfinite(value):
        return NOT_AVAILABLE
    text = f"{100 * value:+.1f}" if sign else f"{100 * value:.1f}"
    return text.replace("-", "−").replace("−0.0", "0.0").replace("+0.0", "0.0")


def bracket(low: float | None, high: float | None, sign: bool = False) -> str:
    """``[low, high]`` times 100; empty if a limit is undefined."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{percent(low, sign)}, {percent(high, sign)}]"


def decimal(value: float | None, digits: int = 3) -> str:
    """A number with ``digits`` significant digits, or n/a."""
    if value is None or not math.isfinite(value):
        return NOT_AVAILABLE
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown, below its caption in bold."""
    lines = [f"**{escape_markdown(table.caption)}**", ""] if table.caption else []
    lines += [escape_markdown(table.note), ""] if table.note else []
    lines += [_markdown_row(table.header)]
    lines += ["|".join(["", *(":--" if column.left else "--:" for column in table.typed_columns), ""])]
    lines += [_markdown_row(map(str, row)) for row in table.cells]
    return "\n".join([*lines, ""])


def to_latex(table: Table) -> str:
    """The table in LaTeX, for ``\\input`` in a document with ``booktabs``; intervals are in small type.

    A table longer than a page is a ``longtable``, which needs the package of that name.
    """
    long = len(table.rows) > PAGE_ROWS
    columns = f"{{{''.join('l' if column.left else 'r' for column in table.typed_columns)}}}"
    caption = f"\\caption{{{escape_latex('; '.join(filter(None, (table.caption, table.note))))}}}"
    label = f"\\label{{tab:{re.sub('[^a-z0-9]+', '-', table.name.lower())}}}"
    head = [r"\toprule", _latex_row(map(Cell, table.header)), r"\midrule"]
    if long:
        start = [
            f"\\begin{{longtable}}{columns}",
            f"{caption}{label} \\\\",
            *head,
            r"\endfirsthead",
            *head,
            r"\endhead",
        ]
        end = [r"\bottomrule", r"\end{longtable}"]
    else:
        start = [r"\begin{table}", r"\centering", caption, label, f"\\begin{{tabular}}{columns}", *head]
        end = [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    needs = r"% needs \usepackage{booktabs,longtable}" if long else r"% needs \usepackage{booktabs}"
    return "\n".join([needs, *start, *map(_latex_row, table.cells), *end, ""])


def to_csv(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Comma-separated values in full precision; None and NaN are empty, infinity is inf.

    Text that a spreadsheet would run as a formula (it begins with ``=``, ``+``, ``-`` or ``@``, also after white space
    or as a full-width sign) gets a leading apostrophe, which marks it as text.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_csv_value(value) for value in row] for row in (header, *rows))
    return text.getvalue()


def data_frame(tables: Mapping[str, tuple[Sequence[str], Rows]], name: str) -> DataFrame:
    """One of several tables, header and rows by name, as a pandas table; None becomes NaN in columns of numbers.

    Raises:
        UserError: an unknown name, or pandas is not installed.
    """
    if name not in tables:
        raise UserError(f"table={shown(name)}: must be one of {', '.join(tables)}")
    try:
        from pandas import DataFrame
    except ImportError:
        raise UserError("to_pandas: pandas is not installed; install it with: pip install pandas") from None
    header, rows = tables[name]
    return DataFrame(rows, columns=list(header))


def escape_latex(text: str) -> str:
    """Text for LaTeX: special characters escaped, white space collapsed."""
    escaped = "".join(_LATEX.get(sign, sign) for sign in _one_line(text))
    return escaped.replace(r"$\sqrt{\cdot}$area", r"$\sqrt{\mathrm{area}}$")


def escape_markdown(text: str) -> str:
    """Text for Markdown: no emphasis, links, HTML or table bars."""
    text = _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)  # an underscore inside a word is harmless


def _markdown_row(texts: Iterable[str]) -> str:
    return f"| {' | '.join(map(escape_markdown, texts))} |"


def _latex_row(cells: Iterable[Cell]) -> str:
    texts = [
        f"{escape_latex(cell.text)} {{\\scriptsize {escape_latex(cell.small)}}}"
        if cell.small
        else escape_latex(cell.text)
        for cell in cells
    ]
    guard = (
        "{}" if texts[0].startswith(("[", "*")) else ""
    )  # otherwise it is read as an argument of the line break above
    return f"{guard}{' & '.join(texts)} \\\\"


def _csv_value(value: object) -> object:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        line = value.replace("\r\n", "\n").replace("\r", " ")  # readers take a lone \r for the end of a row
        return f"'{line}" if _FORMULA.match(value) else line
    return repr(value) if isinstance(value, float) else value


def _one_line(text: str) -> str:
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
