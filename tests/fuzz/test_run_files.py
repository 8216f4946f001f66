"""A short run of `tests.fuzz.run_files`; a longer one: ``python -m tests.fuzz.run_files --count 2000``."""

from __future__ import annotations

import pytest

from tests.fuzz import run_files


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [("thresholds", 200), ("seeds", 60)])
def test_damaged_files_of_earlier_runs_get_one_line(kind: str, count: int):
    assert run_files.run(kind, seed=20, count=count) == []
