"""Tests that need what is missing: without what the system lacks they are deselected, without a package they fail.

``@pytest.mark.needs(condition, reason="...")`` deselects a test if the condition does not hold: on another system, or
without a program or build that no requirement installs. Any other skip means a missing package, and fails where
MMMS_NO_SKIP is set, as ``make test`` does.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TypeVar

import pytest

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lacking = [item for item in items if not all(mark.args[0] for mark in item.iter_markers("needs"))]
    if lacking:
        config.hook.pytest_deselected(items=lacking)
        items[:] = [item for item in items if item not in lacking]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _failed_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _failed_if_skipped((yield))


def _failed_if_skipped(report: Report) -> Report:
    if os.environ.get("MMMS_NO_SKIP") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"MMMS_NO_SKIP is set: {report.longrepr[2] if isinstance(report.longrepr, tuple) else ''}"
    return report
