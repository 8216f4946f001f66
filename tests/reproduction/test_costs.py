"""Costs in the ELASTIC paper's tables, by hand and as the paper rounds them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmms_plugin.reproduction.costs import Counted, count_row
from mmms_plugin.reproduction.index import INDEX
from mmms_plugin.reproduction.items import MACS, PARAMS, Item, Measure, Row
from mmms_plugin.scale.flops import Cost

PAPER = {  # of every table: parameters in 1e6, FLOPs in 1e9, top-1 error
    "2": ((20.0, 4.4, 22.25), (19.5, 4.3, 22.07), (25.0, 4.2, 22.23), (25.2, 4.2, 21.56), (27.6, 4.2, 21.87),
          (27.8, 4.2, 21.38), (44.2, 8.0, 21.18), (44.3, 7.9, 20.83), (45.6, 7.9, 20.86), (17.6, 3.6, 21.92),
          (17.6, 3.2, 21.25), (26.8, 6.0, 21.5), (25.0, 6.0, 20.71)),
    "6": ((None, 3.6, 21.92), (None, 3.2, 21.25), (None, 3.2, 21.49), (None, 3.6, 21.2), (None, 3.6, 21.6),
          (None, 3.2, 21.52)),
    "7": ((None, 3.6, 21.92), (None, 3.2, 21.25), (None, 3.4, 21.35), (None, 2.9, 21.44)),
    "8": ((25.0, 4.2, 22.23), (25.0, 3.4, 22.03), (25.2, 4.2, 21.56), (17.6, 3.6, 21.92), (17.6, 3.2, 21.25),
          (17.6, 3.2, 21.25), (26.8, 6.0, 21.5), (26.8, 5.0, 21.0), (24.9, 6.0, 20.71)),
}  # fmt: skip


@pytest.mark.parametrize("table", PAPER)
def test_published_figures(table):
    item = INDEX[f"elastic-table{table}"]
    rows = [Counted(item, row, Cost(0, 0)) for row in item.rows if row.config]
    metrics = (PARAMS, MACS, "accuracy/top1")
    assert tuple(tuple(map(row.published, metrics)) for row in rows) == PAPER[table]


def test_the_layers_of_table_1_cost_what_its_formulas_say():
    item = INDEX["elastic-table1"]
    for row in item.rows:
        counted = count_row(item, row)
        assert (counted.here(MACS), counted.here(PARAMS)) == pytest.approx(row.published), row.name
        assert counted.agrees(PARAMS)
        assert counted.agrees(MACS)
    assert not replace(counted, row=replace(row, published=(0.626, 1.0))).agrees(MACS)


@pytest.mark.parametrize(
    ("params", "macs", "upsampling", "agree"),
    [
        (1.05e6, 2.05e9, 0, (True, True)),
        (1.051e6, 1.9e9, 0.1e9, (False, True)),
        (0.949e6, 1.9e9, 0, (False, False)),
        (0.95e6, 2.0e9, 9e9, (True, True)),
    ],
)
def test_a_figure_agrees_if_it_rounds_to_the_papers(params, macs, upsampling, agree):
    row = Row("x", (1.0, 2.0))
    item = Item("x", "", "", "", None, 0, (Measure("", PARAMS), Measure("", MACS)), (row,))
    cost = Cost(int(params) - 1000, int(macs) - 1000, int(upsampling), 1000, 1000)
    assert tuple(map(Counted(item, row, cost).agrees, (PARAMS, MACS))) == agree
    assert Counted(item, replace(row, published=(None, None)), cost).agrees(PARAMS)
