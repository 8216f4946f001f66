"""Note the versions of this environment, in which tests have just passed: ``python .ci/tested_versions.py CHECKS``.

It prints them, and writes them to ``mmms_plugin/compat/tested_versions.json``, by which the plugin knows what was
tested, and to the table of docs/compatibility.md. Without CHECKS, the name of a lane of ``.ci/run``, it writes only the
table.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from mmms_plugin.compat.hosts import installed_hosts  # noqa: E402
from mmms_plugin.files import write_text  # noqa: E402

VERSIONS = ROOT / "mmms_plugin" / "compat" / "tested_versions.json"
PAGE = ROOT / "docs" / "compatibility.md"
START, END = "<!-- written by .ci/tested_versions.py -->\n", "<!-- end -->\n"


def main(checks: str | None) -> None:
    rows = json.loads(VERSIONS.read_text(encoding="utf-8")) if VERSIONS.exists() else {}
    if checks is not None:
        rows[checks] = {"python": ".".join(platform.python_version_tuple()[:2]), **installed_hosts()}
        print(f"tested: {line(checks, rows[checks])}")
        write_text(VERSIONS, json.dumps(rows, indent=2) + "\n")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    write_text(PAGE, before + START + table(rows) + END + rest.partition(END)[2])


def table(rows: dict[str, dict[str, str]]) -> str:
    """The table of the page."""
    head = "\n| checks (`.ci/run`) | Python | torch | OpenMMLab |\n|---|---|---|---|\n"
    return head + "".join(f"{line(*row)}\n" for row in rows.items()) + "\n"


def line(checks: str, versions: dict[str, str]) -> str:
    hosts = ", ".join(f"{name} {number}" for name, number in versions.items() if name not in ("python", "torch"))
    return f"| {checks} | {versions['python']} | {versions['torch'].partition('+')[0]} | {hosts} |"


if __name__ == "__main__":
    main(next(iter(sys.argv[1:]), None))
