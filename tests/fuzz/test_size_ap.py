"""A short run of `tests.fuzz.size_ap`; the long one is a command."""

from __future__ import annotations

from tests.fuzz import size_ap


def test_damaged_files_and_odd_options_get_a_report_or_one_line():
    assert size_ap.run(seed=20, count=120, drawn_every=120) == []
