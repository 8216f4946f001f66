"""Notebooks in docs/: kept without outputs, which a build of the documentation makes, and listed there."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_no_outputs_and_is_listed(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code
    assert not any(cell["outputs"] or cell["execution_count"] or cell["metadata"] for cell in code)
    assert set(notebook["metadata"]) <= {"kernelspec", "language_info"}
    assert f"\nnotebooks/{path.stem}\n" in (DOCS / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_imports_exists(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    lines = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    code = "\n".join("".join(line for line in of_cell if not line.startswith("!")) for of_cell in lines)
    imports = [
        node
        for node in ast.parse(code).body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mmms_plugin")
    ]
    assert imports
    exec(compile(ast.Module(list(imports), []), str(path), "exec"), {})


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 2
