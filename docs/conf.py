"""Sphinx configuration. Before a build, the figures and the model zoo are made from the code (``docs/generate.py``)."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from generate import generate  # noqa: E402

from mmms_plugin import __version__  # noqa: E402

project, author, release = "mmms_plugin", "the mmms_plugin authors", __version__
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"mmms_plugin {release}"
nitpicky = True

generate(Path(__file__).parent / "generated")
