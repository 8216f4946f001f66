"""The figures that training logged in a work folder, mmengine's ``scalars.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mmms_plugin.errors import UserError, one_line

LARGEST = 1e30  # absolute value of a figure


def logged_scalars(work_dir: Path) -> list[dict[str, Any]]:
    """All entries, those of the first run first.

    Lines that are not whole, such as the last one of a run that was killed, are skipped; standard error says so.

    Raises:
        UserError: a file cannot be read.
    """
    entries = []
    for file in sorted(path for path in work_dir.glob("*/vis_data/scalars.json") if path.is_file()):
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror})") from None
        written = [line for line in lines if line.strip()]
        whole = [entry for line in written if (entry := _entry(line)) is not None]
        entries += whole
        if damaged := len(written) - len(whole):
            lines_are = "1 line is" if damaged == 1 else f"{damaged} lines are"
            print(one_line(f"{file}: {lines_are} not whole, as after a run that was killed; skipped"), file=sys.stderr)
    return entries


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def is_figure(value: Any) -> bool:
    """Whether a logged value is a number, defined or not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def figure_of(value: Any) -> float:
    """A logged value; NaN if it is undefined, absurdly large, or not a number."""
    return float(value) if is_figure(value) and abs(value) <= LARGEST else float("nan")
