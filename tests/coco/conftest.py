"""Files that the tests of reading write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.coco.coco_files import make_annotations


@pytest.fixture
def files(tmp_path):
    """A function that writes any content and gives its path."""

    def write(name: str, content: object) -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


@pytest.fixture
def truth_file(files) -> Path:
    return files("truth.json", make_annotations())
