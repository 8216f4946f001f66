"""``mmms run``: a script of OpenMMLab's, or the user's own, run after the plugin has been imported.

Why a command, and nothing that is installed with the package: only a ``.pth`` file in site-packages makes Python import
something by itself. It would run our code at every start of every Python program in that environment, also of those
that have nothing to do with OpenMMLab; and an editable installation does not install such a file.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from mmms_plugin.config.host_files import HOSTS, SEPARATOR, find_host_file
from mmms_plugin.errors import UserError


def find_script(script: str) -> Path:
    """The file of a script given as a path or as ``HOST::NAME``.

    Raises:
        UserError: there is none.
    """
    if not Path(script).is_file() and SEPARATOR in script:
        return find_host_file(script, "tools")
    path = Path(script)
    if not path.is_file():
        raise UserError(f"script {script}: no such file")
    return path


def run_script(script: str, arguments: Sequence[str]) -> None:
    """Run a script as ``python SCRIPT ARGUMENTS...`` would, with the plugin and its safe checkpoint loading set up.

    An argument such as ``mmdet::retinanet_r50_fpn_1x_coco`` becomes the path of that config.

    Raises:
        UserError: there is no such script or config. Whatever the script raises passes through.
    """
    path = find_script(script)
    hosted = tuple(f"{host}{SEPARATOR}" for host in HOSTS)
    configs = [str(find_host_file(item, "configs")) if item.startswith(hosted) else item for item in arguments]
    import_module("mmms_plugin.registry")
    sys.argv = [str(path), *configs]
    sys.path.insert(0, str(path.resolve().parent))
    runpy.run_path(str(path), run_name="__main__")
