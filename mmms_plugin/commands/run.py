"""Run a script, your own or a host's, with the plugin loaded.

The plugin is imported first. With mmcv-lite, mmdet and mmseg can only be imported after the plugin, which supplies
mmcv's compiled operators. SCRIPT is a file, or the name of a script that comes with a host: mmms run mmdet::train
CONFIG. With several processes: torchrun --nproc-per-node 2 -m mmms_plugin run SCRIPT --launcher pytorch.
"""

# Why a command: the only alternative is a .pth file in site-packages, which makes Python import the plugin at every
# start of every program in that environment, even if it has nothing to do with OpenMMLab. Editable installations do not
# install such a file.

from __future__ import annotations

import argparse
import runpy
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from mmms_plugin.config.files import HOSTS, SEPARATOR, find_host_file
from mmms_plugin.errors import UserError
from mmms_plugin.options import CommandOptions, positional


@dataclass(kw_only=True)
class Options(CommandOptions):
    script: str = positional(
        metavar="SCRIPT",
        help="a Python file, or mmdet::train, mmdet::test, mmdet::analysis_tools/get_flops, mmseg::train, ...",
    )
    arguments: tuple[str, ...] = positional(
        default=(), metavar="ARGS", nargs=argparse.REMAINDER, help="the script's own arguments"
    )


def run(options: Options) -> None:
    """Run a script as ``python SCRIPT ARGUMENTS...`` would, with the plugin and its safe checkpoint loading set up.

    An argument such as ``mmdet::retinanet_r50_fpn_1x_coco`` becomes the path of that config.

    Raises:
        UserError: there is no such script or config. Exceptions of the script pass through.
    """
    path = find_script(options.script)
    hosted = tuple(f"{host}{SEPARATOR}" for host in HOSTS)
    configs = [str(find_host_file(item, "configs")) if item.startswith(hosted) else item for item in options.arguments]
    import_module("mmms_plugin.registry")
    sys.argv = [str(path), *configs]
    sys.path.insert(0, str(path.resolve().parent))
    runpy.run_path(str(path), run_name="__main__")


def find_script(script: str) -> Path:
    """The file of a script given as a path or as ``HOST::NAME``.

    Raises:
        UserError: there is no such script.
    """
    if not Path(script).is_file() and SEPARATOR in script:
        return find_host_file(script, "tools")
    path = Path(script)
    if not path.is_file():
        raise UserError(f"script {script}: no such file")
    return path
