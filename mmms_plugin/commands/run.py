"""Run a script of a host, or your own, with the plugin imported first.

With mmcv-lite, mmdet and mmseg can only be imported after the plugin, which supplies mmcv's compiled operators. SCRIPT
is a file, or the name of a script that comes with a host: mmms run mmdet::train CONFIG. With several processes:
torchrun --nproc-per-node 2 -m mmms_plugin run SCRIPT --launcher pytorch.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("script", metavar="SCRIPT", help="a Python file, or mmdet::train, mmdet::test, "
                        "mmdet::analysis_tools/get_flops, mmseg::train, ...")  # fmt: skip
    parser.add_argument("arguments", metavar="ARGS", nargs=argparse.REMAINDER, help="the script's own arguments")


def run(args: argparse.Namespace) -> None:
    from mmms_plugin.commands.run_script import run_script

    run_script(args.script, args.arguments)
