"""Short runs of `tests.fuzz.data_sets`; the long ones are a command."""

from __future__ import annotations

import pytest

from tests.fuzz import data_sets


@pytest.mark.parametrize(("kind", "count"), [("lvis", 60), ("yaml", 60), ("xml", 60), ("text", 60), ("coco", 40)])
def test_damaged_data_sets_get_a_report_or_one_line(kind, count):
    assert list(data_sets.run(kind, seed=20, count=count)) == []
