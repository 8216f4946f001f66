"""Tables of the report as cells of text, and their Markdown, LaTeX and CSV spellings.

AP and AR are shown times 100 with one decimal, intervals in brackets, undefined figures as n/a. CSV holds full
precision instead, undefined figures empty.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

NOT_AVAILABLE = "n/a"
PAGE_ROWS = 45  # a LaTeX table with more rows goes over several pages
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
    """What a reader sees: ``text``, and ``small`` beside or under it (an interval, a count)."""

    text: str
    small: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.small}".strip()


@dataclass(frozen=True)
class Table:
    """One table: ``name`` (file stem), ``caption``, ``header`` texts and ``rows`` of as many cells; column 1 is names.

    ``folded`` hides a long table behind its caption on the page. ``note`` stands under the caption where a table
    stands alone, in Markdown and LaTeX; the page says it once for all.
    """

    name: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    folded: bool = False
    note: str = ""


def percent(value: float | None, sign: bool = False) -> str:
    """AP times 100 with one decimal, or n/a; ``sign`` for differences, with a real minus."""
    if value is None or not math.isfinite(value):
        return NOT_AVAILABLE
    text = f"{100 * value:+.1f}" if sign else f"{100 * value:.1f}"
    return text.replace("-", "−").replace("−0.0", "0.0").replace("+0.0", "0.0")


def bracket(low: float | None, high: float | None, sign: bool = False) -> str:
    """``[low, high]`` times 100; nothing where a limit is undefined."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{percent(low, sign)}, {percent(high, sign)}]"


def decimal(value: float | None, digits: int = 3) -> str:
    """A plain number with so many significant digits, or n/a."""
    if value is None or not math.isfinite(value):
        return NOT_AVAILABLE
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"


def escape_latex(text: str) -> str:
    """Text as LaTeX prints it: every special character escaped, white space single."""
    escaped = "".join(_LATEX.get(sign, sign) for sign in _one_line(text))
    return escaped.replace(r"$\sqrt{\cdot}$area", r"$\sqrt{\mathrm{area}}$")


def escape_markdown(text: str) -> str:
    """Text as Markdown prints it: no emphasis, links, HTML or table bars come of it."""
    text = _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", text)


def to_markdown(table: Table) -> str:
    """The table in Markdown (GitHub's), under its caption in bold."""
    lines = [_markdown_row(table.header), "|".join(["", ":--", *["--:"] * (len(table.header) - 1), ""])]
    lines += [_markdown_row([str(cell) for cell in row]) for row in table.rows]
    note = f"{escape_markdown(table.note)}\n\n" if table.note else ""
    return f"**{escape_markdown(table.caption)}**\n\n{note}" + "\n".join(lines) + "\n"


def to_latex(table: Table) -> str:
    """The table in LaTeX, for ``\\input`` in a document with ``booktabs``; intervals in small type.

    Tables longer than a page are ``longtable``s, which need the package of that name.
    """
    long = len(table.rows) > PAGE_ROWS
    header = " & ".join(escape_latex(text) for text in table.header)
    rows = [" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in table.rows]
    columns = f"{{l{'r' * (len(table.header) - 1)}}}"
    caption = f"\\caption{{{escape_latex('; '.join(filter(None, (table.caption, table.note))))}}}"
    label = f"\\label{{tab:{re.sub('[^a-z0-9]+', '-', table.name.lower())}}}"
    head = [r"\toprule", f"{header} \\\\", r"\midrule"]
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
    return "\n".join([needs, *start, *rows, *end, ""])


def to_csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Comma-separated values in full precision; None and NaN are empty, infinity is inf.

    A text that a spreadsheet would run as a formula (one that begins with ``=``, ``+``, ``-`` or ``@``) gets an
    apostrophe in front, which shows it as text.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([[_csv_value(value) for value in row] for row in rows])
    return text.getvalue()


def _csv_value(value: object) -> object:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.lstrip().startswith(("=", "+", "-", "@")) else value
    return repr(value) if isinstance(value, float) else value


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(escape_markdown(cell) for cell in cells)} |"


def _latex_cell(cell: Cell) -> str:
    small = f" {{\\scriptsize {escape_latex(cell.small)}}}" if cell.small else ""
    return f"{escape_latex(cell.text)}{small}"


def _one_line(text: str) -> str:
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
