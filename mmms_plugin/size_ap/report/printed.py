"""An evaluation as text, for a terminal or ``print``."""

from __future__ import annotations

import io

from rich.console import Console

from mmms_plugin.report.terminal import explain, print_table
from mmms_plugin.size_ap.report.suspects import print_suspects
from mmms_plugin.size_ap.report.tables import difference_table, settling_lines, terminal_tables
from mmms_plugin.size_ap.results import SizeAPResults


def print_results(results: SizeAPResults, console: Console) -> None:
    """The tables of all runs and comparisons, what would settle each difference, and the rules behind the figures."""
    for table in terminal_tables(results):
        print_table(table, console)
    for comparison in results.comparisons:
        print_table(difference_table(results, comparison, ("ap",)), console)
        for line in settling_lines(comparison):
            explain(line, console)
    origin = f"bins {results.bins_source} ({results.bins_reference})"
    for line in (results.area_rule, origin, results.edge_rule):
        explain(line, console)
    if results.inputs and (suspects := results.inputs.suspects) is not None:
        print_suspects(results.inputs.truth, suspects, console)


def as_text(results: SizeAPResults) -> str:
    """What `print_results` prints, without a line break at the end."""
    file = io.StringIO()
    print_results(results, Console(file=file))
    return file.getvalue().rstrip("\n")
