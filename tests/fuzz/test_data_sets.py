"""Short runs of `tests.fuzz.data_sets`; the long ones are a command."""

from __future__ import annotations

import pytest

from tests.fuzz import data_sets


@pytest.mark.parametrize(("kind", "count"), [("lvis", 20), ("yaml", 30), ("xml", 20), ("text", 20), ("coco", 40)])
def test_damaged_data_sets_get_a_report_or_one_line(kind, count):
    assert list(data_sets.run(kind, seed=20, count=count)) == []
