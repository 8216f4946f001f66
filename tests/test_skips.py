"""``make test`` runs every test: a missing package is a failure, what a system lacks is not selected."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

@pytest.mark.needs(False, reason="a machine like no other")
def test_elsewhere():
    raise AssertionError

@pytest.mark.needs(True, reason="this machine")
def test_here():
    pass

def test_missing_package():
    pytest.importorskip("no_such_package")

@pytest.mark.xfail(reason="known")
def test_known():
    raise AssertionError
"""


@pytest.mark.parametrize(
    ("strict", "summary"),
    [
        ("", "1 passed, 2 skipped, 1 deselected, 1 xfailed"),
        ("1", "1 failed, 1 passed, 1 deselected, 1 xfailed, 1 error"),
    ],
)
def test_a_skip_is_a_failure_where_nothing_may_be_missing(strict: str, summary: str, tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = needs", encoding="utf-8")
    (tmp_path / "test_tests.py").write_text(TESTS, encoding="utf-8")
    (tmp_path / "test_module.py").write_text("import pytest\npytest.importorskip('no_such_package')", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.skips",
        "-p",
        "no:cacheprovider",
        "--continue-on-collection-errors",
    ]
    variables = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "MMMS_NO_SKIP": strict}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, encoding="utf-8", check=False)
    assert summary in done.stdout, done.stdout + done.stderr
    # once or twice for each: where CI is set, pytest's summary repeats the whole message
    assert ("MMMS_NO_SKIP is set: Skipped: could not import 'no_such_package'" in done.stdout) == bool(strict)


def test_make_test_allows_no_skip() -> None:
    assert "MMMS_NO_SKIP=1 $(PYTEST)" in Path(__file__).parents[1].joinpath("Makefile").read_text(encoding="utf-8")
