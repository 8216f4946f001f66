"""mmengine's report of the environment asks compilers for their versions; where there are none, the shell complains."""

from __future__ import annotations

import subprocess
from functools import partial
from types import ModuleType, SimpleNamespace


def be_quiet(module: ModuleType) -> None:
    """Let ``mmengine.utils.dl_utils.collect_env`` look for compilers without the shell's words on the terminal."""
    quiet = partial(subprocess.check_output, stderr=subprocess.DEVNULL)
    module.subprocess = SimpleNamespace(**{**vars(subprocess), "check_output": quiet})  # type: ignore[attr-defined]
