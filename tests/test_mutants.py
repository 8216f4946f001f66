"""tools/mutants.py lists the changes that the tests do not notice, and leaves no trace."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "tools/mutants.py"
CODE = '''\
"""Two functions with a limit each, and one that no test calls."""

LEAST = 10


def strong(size: float) -> bool:
    return size >= LEAST


def weak(size: float) -> bool:
    return size >= LEAST


def unused(size: float) -> bool:
    return size >= LEAST
'''
TESTS = """\
import subprocess
import sys

from mmms_plugin.sizes.limits import weak

CHILD = "from mmms_plugin.sizes.limits import strong; print(strong(9), strong(10), strong(11))"


def test_strong_at_its_limit_in_another_process():
    child = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert child.stdout == "False True True\\n"


def test_weak_far_from_its_limit():
    assert weak(20) is True
    assert weak(1) is False
"""


@pytest.mark.thorough
@pytest.mark.slow
def test_survivors_are_changes_of_the_weakly_tested_function(tmp_path: Path) -> None:
    files = {"mmms_plugin/sizes/limits.py": CODE, "tests/test_limits.py": TESTS, "mmms_plugin/__init__.py": ""}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    kept, results = tmp_path / "kept.json", []
    for _ in range(2):  # the second time from the record
        options = ["--root", tmp_path, "--keep", kept, "--workers", "1", "--seed", "1"]
        done = subprocess.run([sys.executable, SCRIPT, *options, "sizes"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        outcomes = json.loads(kept.read_text(encoding="utf-8"))
        results.append([(outcome["line"], outcome["after"], outcome["result"]) for outcome in outcomes])
    first, second = results
    assert first == second
    survived = "mmms_plugin/sizes/limits.py:11  return size >= LEAST  ->  return size > LEAST"
    assert done.stdout.endswith(f"survived:\n{survived}\n")
    assert sorted((line, result) for line, _, result in first) == [
        (3, "noticed"), (7, "noticed"), (11, "survived"), (15, "not executed"),
    ]  # fmt: skip
    changed = [name for name in files if (tmp_path / name).read_text(encoding="utf-8") != files[name]]
    assert not changed
