"""Sphinx configuration. A build makes figures and the model zoo from the code, and executes the notebooks.

``docs/generate.py`` makes the former, ``docs/api.py`` the pages of the API. ``sphinx -D nb_execution_mode=off`` leaves
the outputs of notebooks out.
"""

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from api import write_pages  # noqa: E402
from generate import generate  # noqa: E402
from sphinx.ext.autodoc.mock import mock  # noqa: E402
from sphinx.util import inspect  # noqa: E402
from sphinx.util.inspect import stringify_signature  # noqa: E402

from mmms_plugin import __version__  # noqa: E402

project, author, release = "mmms_plugin", "the mmms_plugin authors", __version__
project_copyright = f"2026, {author}. Apache-2.0"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]  # with myst_parser
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds a cell
nb_merge_streams = True
exclude_patterns = ["_build", "jupyter_execute"]  # what a build writes
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["narrow.css"]
html_title = f"mmms_plugin {release}"
smartquotes_action = "D"  # dashes alone: 'bbox' in a docstring is what to type
nitpicky = True
nitpick_ignore = [("py:class", "mmms_plugin.size_ap.results.Inputs")]  # a field that only ``save`` reads
nitpick_ignore_regex = [("py:.*", r"(?!mmms_plugin\.).*")]  # names of other packages

autosummary_generate = False
autodoc_mock_imports = [host for host in ("mmdet", "mmseg", "mmpretrain") if find_spec(host) is None]
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
default_role = "code"
maximum_signature_line_length = 80
napoleon_use_param = False  # which would take "a, b: ..." apart
napoleon_custom_sections = [("Attributes", "params_style")]
python_use_unqualified_type_names = True

# A line such as "Shape: ..." or "Raises: ValueError ..." in a docstring; napoleon knows sections of several lines only.
LABEL = re.compile(r"(Args|Shapes?|Raises|Returns): (.+)")

# Parts of signatures, and what is shown
READABLE = (
    (r"(?<=\w): '([^']+)'(?= =|, |\))", r": \1"),  # a type in quotes
    (r"<[^<>]*(<[^<>]*>)?>", "..."),  # a default that is made
    (r"mappingproxy\((\{[^}]*\})\)", r"\1"),
    (
        r"~?(?:\w+\.)*ndarray\[tuple\[~?(?:\w+\.)*Any, \.\.\.\], ~?(?:\w+\.)*dtype\[~?(?:\w+\.)*(\w+)\]\]",
        r"NDArray[\1]",
    ),
)


def label_lines(app, what, name, obj, options, lines):
    """Make paragraphs of labelled lines, with a bold label."""
    for place, line in reversed(list(enumerate(lines))):
        if match := LABEL.fullmatch(line):
            lines[place : place + 1] = ["", f"**{match[1]}:** {match[2]}"]


def readable_signature(app, what, name, obj, options, signature, returned):
    """Show the arguments that ``__new__`` hides, and ``READABLE``."""
    if what == "class" and {"__new__", "__init__"} <= vars(obj).keys():
        arguments = inspect.signature(obj.__init__, bound_method=True)
        signature = stringify_signature(arguments, show_return_annotation=False, unqualified_typehints=True)
    if not signature:
        return None
    for pattern, text in READABLE:
        signature, returned = re.sub(pattern, text, signature), returned and re.sub(pattern, text, returned)
    return signature, returned


def skip_fields(app, what, name, obj, skip, options):
    """Leave out the fields of a named tuple, which have no text of their own."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def setup(app):
    """Register the changes; that of docstrings comes before napoleon's."""
    app.connect("autodoc-process-docstring", label_lines, priority=400)
    app.connect("autodoc-process-signature", readable_signature)
    app.connect("autodoc-skip-member", skip_fields)


os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))  # for lines with !mmms
generate(Path(__file__).parent / "generated")
with mock(autodoc_mock_imports):
    write_pages(Path(__file__).parent / "api")
