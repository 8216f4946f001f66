"""A table in every format, read back by a reader of that format: no text in a cell is more than text."""

from __future__ import annotations

import csv
import io
import math
import random
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from mmms_plugin.report.page import Section, render
from mmms_plugin.report.tables import (
    Cell,
    Column,
    Table,
    bracket,
    decimal,
    escape_latex,
    escape_markdown,
    percent,
    to_csv,
    to_latex,
    to_markdown,
)
from mmms_plugin.report.terminal import explain, print_table, say

HOSTILE = (
    "=1+1", "a|b", "*star* _line_ `code` ~gone~", "[link](http://x.y)", "![picture](x.png)", "<b>bold</b> &amp;",
    "\\|", "50 % & $x_1^2$ # {y} ~z", "[bold]rich[/bold]", "\x1b[31mred\x07", "two\nlines\ttab\r\nthree",
    'quote "q", comma',
    "</td></tr><script>alert(1)</script>", "语 – ≤ 2² −1 × √area Δ →", "[0, 1]", "*", "", " spaces  inside ",
)  # fmt: skip
TABLE = Table("hostile", "What <b>is</b> *it*", ("name", Column("text", left=True), "number"),
              [(text, text, Cell(str(i), f"[{i}]")) for i, text in enumerate(HOSTILE)], note="One & all")  # fmt: skip


class Cells(HTMLParser):
    """Texts of all table cells, row by row, and the names of all tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.open = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
            self.open = True

    def handle_endtag(self, tag):
        self.open = self.open and tag not in ("th", "td")

    def handle_data(self, data):
        if self.open:
            self.rows[-1][-1] += data


def plain(text: str) -> str:
    """As formats of one line a row hold it: no control characters, single spaces."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def printed(table: Table, width: int = 80, terminal: bool = True) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    print_table(table, console)
    return console.file.getvalue().splitlines()


def test_markdown_as_a_reader_renders_it():
    page = Cells(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(to_markdown(TABLE)))
    assert page.rows == [
        ["name", "text", "number"],
        *([plain(t), plain(t), f"{i} [{i}]"] for i, t in enumerate(HOSTILE)),
    ]
    assert page.tags == {"p", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    assert to_markdown(TABLE).startswith(r"**What &lt;b&gt;is&lt;/b&gt; \*it\***" + "\n\nOne &amp; all\n\n| name")
    assert escape_markdown("ps_conv _x_ __y a_") == r"ps_conv \_x\_ \_\_y a\_"


def test_a_page_as_a_browser_parses_it():
    page = Cells(render("t", [], [Section("s", tables=[TABLE])]))
    numbers = [f"{i}[{i}]" for i in range(len(HOSTILE))]  # one below the other
    assert page.rows == [["name", "text", "number"], *([t, t, n] for t, n in zip(HOSTILE, numbers, strict=True))]
    assert not page.tags & {"b", "script"}


def test_csv_as_its_reader_reads_it():
    rows = list(csv.reader(io.StringIO(to_csv(["a", "b"], [[text, 0] for text in HOSTILE]), newline="")))
    expected = [text.replace("\r\n", "\n") for text in HOSTILE]
    assert rows == [["a", "b"], *([f"'{t}" if t == "=1+1" else t, "0"] for t in expected)]


@pytest.mark.parametrize("space", ["", " ", "\t", "\n", "\xa0", "\u3000", "\u200b", "\ufeff"])
@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_no_text_of_a_csv_file_is_a_formula(space, sign):
    (cell,) = next(csv.reader(io.StringIO(to_csv([f"{space}{sign}cmd|' /C calc'!A0"], []), newline="")))
    assert cell == f"'{space}{sign}cmd|' /C calc'!A0"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (math.nan, ""), (math.inf, "inf"), (1 / 3, "0.3333333333333333"), (3, "3"), (True, "True"),
     ("a=1", "a=1"), (-0.5, "-0.5"), (-2, "-2"), ("a,b", '"a,b"'), ("\tx", "'\tx"), ("\rx", "' x")],
)  # fmt: skip
def test_values_of_csv(value, text):
    assert to_csv(["a", "b"], [[value, 0]]) == f"a,b\n{text},0\n"


def test_latex_has_no_special_sign_left():
    text = to_latex(TABLE)
    bare = re.sub(r"\\[\\{}&%$#_]", "", text)  # without escaped signs
    assert bare.count("{") == bare.count("}")
    assert not re.search(r"[\^~#<>|\"\x00-\x09\x0b-\x1f]", bare)
    assert bare.count("%") == 1  # the remark on packages
    lines = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
    assert len(lines) == len(HOSTILE)
    assert not any(line.startswith(("[", "*")) for line in lines)  # arguments of the line break above
    assert r"{}[0, 1] & [0, 1] & 14 {\scriptsize [14]} \\" in lines
    assert r"50 \% \& \$x\_1\textasciicircum{}2\$ \# \{y\} \textasciitilde{}z" in text
    assert escape_latex("√area √2 − ² \\") == (
        r"$\sqrt{\mathrm{area}}$ $\sqrt{\cdot}$2 $-$ \textsuperscript{2} \textbackslash{}"
    )
    assert r"\caption{What \textless{}b\textgreater{}is\textless{}/b\textgreater{} *it*; One \& all}" in text
    assert r"\begin{tabular}{llr}" in text


def test_a_terminal_shows_texts_as_they_are_and_no_codes():
    lines = printed(TABLE, 200)
    assert lines[0] == TABLE.caption
    for text in ("[bold]rich[/bold]", r"\x1b[31mred\x07", r"two\nlines\ttab\r\nthree"):
        assert any(line.startswith(text) for line in lines)
    assert "One & all" in lines
    assert not any("\x1b" in line or "\x07" in line for line in lines)


NAME = "a_name_of_forty_letters_" + "x" * 16
FIGURES = Table(
    "t", "c " * 60, ("name", *(f"number {i}" for i in range(6))),
    [(NAME, *(1 / 3,) * 6), ("one heading",), ("two words", *(None,) * 6)], form=".4f", note="n " * 60,
)  # fmt: skip


def test_a_pipe_has_no_width():
    for width in (20, 80, 200):
        caption, _, rule, first, *rest, note, end = printed(FIGURES, width, terminal=False)
        assert (caption, note, end) == (FIGURES.caption, FIGURES.note, "")
        assert first.split() == [NAME, *["0.3333"] * 6]
        assert set(rule) == {"─"}
        assert [line.split() for line in rest] == [[], ["one", "heading"], ["two", "words", *["n/a"] * 6]]
        assert not any(line.endswith(" ") for line in (first, *rest))


def test_in_a_narrow_terminal_columns_are_left_out_and_named():
    for width, shown in ((100, 6), (82, 6), (81, 5), (75, 5), (74, 4), (48, 1), (47, 1)):
        lines = printed(FIGURES, width)
        assert [NAME, *["0.3333"] * shown] in [line.split() for line in lines], width
        assert max(map(len, lines)) <= width
        left_out = " ".join(lines).partition("not shown: ")[2]
        names = ", ".join(f"number {i}" for i in range(shown, 6))
        assert left_out.startswith(f"{names} (a terminal of 82 columns has room for all)") == (shown < 6), width


def test_figures_that_have_no_room_beside_a_name_stand_below_it():
    lines = printed(FIGURES, 30)
    assert lines[lines.index(NAME) + 1 :][:1] == ["    0.3333"]
    assert lines[lines.index("two words") + 1] == "       n/a"
    assert "number 1, number 2" in " ".join(lines)
    wide = printed(Table("t", "", ("名前", "n"), [("猫猫猫猫", 1.0), ("a b", 22.0)], form=".0f"), 11)
    assert wide[2:4] == ["猫猫猫猫  1", "a b      22"]


def test_prose_wraps_at_words_and_paths_stay_whole():
    path = "/data/annotations/" + "x" * 40 + ".json"
    rows = [
        ("error", 3, "boxes leave their picture by more than half a pixel"),
        ("", "", path),
        ("", "", "  " + "w " * 30),
    ]
    lines = printed(Table("t", "", (Column("", left=True), "count", Column("problem", prose=True)), rows), 40)
    assert lines[2:6] == [
        "error     3 boxes leave their picture by", "            more than half a pixel", f"            {path}",
        "            " + "  " + " ".join("w" * 13),
    ]  # fmt: skip
    below = printed(Table("t", "", ("name", Column("text", prose=True)), [(NAME, "b " * 40)]), 40)
    assert below[3:] == [NAME, *["    " + " ".join("b" * 18)] * 2, "    b b b b", ""]  # no room beside the name
    names = [("two words here", 1.0, 2.0)]
    assert printed(Table("t", "", ("name", "first", "second"), names, form=".0f"), 15)[1:4] == [
        "─" * 15, "two words     1", "here",
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_words_and_figures_stay_whole_at_every_width(seed):
    rng = random.Random(seed)

    def words(most: int) -> str:
        return " ".join(
            "".join(rng.choices("ab-_/.猫", k=rng.choice([1, 3, 8, 30]))) for _ in range(rng.randint(1, most))
        )

    figures = rng.randint(1, 6)
    columns = [Column(words(2), left=True), *(Column(words(1), ".2f") for _ in range(figures)), Column("p", prose=True)]
    rows = [(words(2), *(rng.random() * 10**4 for _ in range(figures)), words(8)) for _ in range(5)]
    table = Table("t", "caption", columns, [*rows, ["a heading"]], note="note")
    for width in (*range(1, 40), 60, 80, 120, 300):
        lines = " ".join(printed(table, width))
        for name, *values, prose in rows:
            shown = values[:1] if "not shown:" in lines else values
            assert {*name.split(), *prose.split(), *(f"{value:.2f}" for value in shown)} <= set(lines.split()), width


def test_a_terminal_without_unicode_gets_a_rule_of_hyphens():
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"), width=80)
    print_table(Table("t", "", ("name", "n"), [("a", 1.0)]), console)
    console.file.seek(0)
    assert console.file.read().splitlines()[1] == "-" * 9


def test_prose_wraps_at_words_in_a_terminal_only_and_other_lines_never():
    text = "[bold]written[/bold]: /a/path/that/is/longer/than/the/terminal and \x1b[31mmore"
    for terminal, lines in (
        (True, ["[bold]written[/bold]:", "/a/path/that/is/longer/than/the/terminal", "and \\x1b[31mmore"]),
        (False, ["[bold]written[/bold]: /a/path/that/is/longer/than/the/terminal and \\x1b[31mmore"]),
    ):
        console = Console(file=io.StringIO(), width=30, force_terminal=terminal, color_system=None)
        explain(text, console)
        say(text, console)
        assert console.file.getvalue().splitlines() == [*lines, text.replace("\x1b", r"\x1b")]


def test_numbers_are_written_in_the_form_of_their_column():
    columns = ("name", Column("share", ".0%"), Column("count", ","), "number")
    rows = [("a", 0.256, 12345, 1.5), ("b", math.inf, None, math.nan), ("c", "x", Cell("y", "z"), -2.0)]
    table = Table("t", "", columns, rows, form=".2f")
    assert [list(map(str, row)) for row in table.cells] == [
        ["a", "26%", "12,345", "1.50"], ["b", "n/a", "n/a", "n/a"], ["c", "x", "y z", "-2.00"],
    ]  # fmt: skip
    assert table.header == ("name", "share", "count", "number")
    assert [column.left for column in table.typed_columns] == [True, False, False, False]


def test_tables_line_by_line_and_over_several_pages():
    table = Table("A b_1", "cap", ("n", "x", "y"), ((Cell("a"), Cell("1", "2"), Cell("3")),), note="say")
    assert to_markdown(table) == "**cap**\n\nsay\n\n| n | x | y |\n|:--|--:|--:|\n| a | 1 2 | 3 |\n"
    assert to_markdown(replace(table, note="")) == "**cap**\n\n| n | x | y |\n|:--|--:|--:|\n| a | 1 2 | 3 |\n"
    assert to_latex(table).splitlines() == [
        r"% needs \usepackage{booktabs}", r"\begin{table}", r"\centering", r"\caption{cap; say}", r"\label{tab:a-b-1}",
        r"\begin{tabular}{lrr}", r"\toprule", r"n & x & y \\", r"\midrule", r"a & 1 {\scriptsize 2} & 3 \\",
        r"\bottomrule", r"\end{tabular}", r"\end{table}",
    ]  # fmt: skip
    long = to_latex(replace(table, rows=table.rows * 46, note="")).splitlines()
    head = [r"\toprule", r"n & x & y \\", r"\midrule"]
    assert long[:10] == [
        r"% needs \usepackage{booktabs,longtable}", r"\begin{longtable}{lrr}", r"\caption{cap}\label{tab:a-b-1} \\",
        *head, r"\endfirsthead", *head,
    ]  # fmt: skip
    assert long[10] == r"\endhead"
    assert long[-2:] == [r"\bottomrule", r"\end{longtable}"]
    assert len(long) == 11 + 46 + 2
    assert "longtable" not in to_latex(replace(table, rows=table.rows * 45))


@pytest.mark.parametrize(
    ("value", "sign", "text"),
    [(None, False, "n/a"), (float("nan"), True, "n/a"), (0.3749, False, "37.5"), (-0.0123, True, "−1.2"),
     (0.0, True, "0.0"), (-0.0001, True, "0.0"), (1.0, False, "100.0"), (0.005, True, "+0.5")],
)  # fmt: skip
def test_percentages(value, sign, text):
    assert percent(value, sign) == text


def test_small_numbers_and_intervals():
    assert [decimal(v) for v in (None, math.inf, 99.99, 100.0, -1234.5, 0.012345)] == [
        "n/a", "n/a", "100", "100", "-1,234", "0.0123",
    ]  # fmt: skip
    assert decimal(0.12345, 2) == "0.12"
    assert [bracket(0.1, 0.2), bracket(-0.1, 0.2, sign=True)] == ["[10.0, 20.0]", "[−10.0, +20.0]"]
    assert [bracket(None, 0.2), bracket(0.1, None), bracket(math.nan, 0.2), bracket(0.1, math.inf)] == [""] * 4
