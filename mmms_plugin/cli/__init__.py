"""The console script ``mmms``: one sub-command per module of this package.

A sub-command is a module with a docstring (its help), ``add_arguments(parser)`` and ``run(args) -> int | None``.
Modules are imported only when their command is called, so that ``mmms --help`` needs neither torch nor a host.
Exit status: 0 done, 2 the user's input is at fault (one line, no traceback), anything else is a bug.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from mmms_plugin.errors import UserError, one_line

COMMANDS = {
    "train": "train a model from a config",
    "test": "evaluate a checkpoint, keep or draw its predictions",
    "predict": "draw and keep what a model finds in pictures of your own",
    "configs": "list the configs that come with the package, or a host's",
    "run": "run a script of mmdet or mmseg, or your own, on mmcv-lite",
    "make-shapes": "generate the multi-scale shapes data set",
    "convert": "convert published weights into a checkpoint that a config here loads",
    "publish": "strip a checkpoint for release and name it with its hash",
    "weights": "list published checkpoints of the four methods",
    "demo": "train, evaluate and draw a small PS Mask R-CNN on generated data",
    "size-ap": "AP by object size with intervals, of one or two prediction files; object sizes of a data set",
    "benchmark": "speed and multiply-adds of layers and backbones beside their plain twins",
    "flops": "parameters and multiply-adds of a backbone, or a paper's tables beside the measured",
    "completion": "a script that completes commands, options and names of configs with the tab key",
}


class _Parser(argparse.ArgumentParser):
    """argparse, with its two-line complaint made one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``mmms COMMAND ...`` and return its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    name = argv[0] if argv else ""
    try:
        if name in ("", "-h", "--help"):
            print("usage: mmms COMMAND ... (mmms COMMAND --help tells more)\n")
            print("\n".join(f"  {command:<14}{text}" for command, text in COMMANDS.items()))
            return 0 if name else 2
        if name == "--version":
            from mmms_plugin import __version__

            print(__version__)
            return 0
        if name not in COMMANDS:
            raise UserError(f"unknown command {name!r}: allowed are {', '.join(COMMANDS)}")
        module = importlib.import_module(f"mmms_plugin.cli.{name.replace('-', '_')}")
        parser = _Parser(prog=f"mmms {name}", description=module.__doc__)
        module.add_arguments(parser)
        return module.run(parser.parse_args(argv[1:])) or 0
    except KeyboardInterrupt:
        print(f"mmms {name}: interrupted", file=sys.stderr)
        return 130
    except UserError as error:
        print(f"mmms{f' {name}' if name in COMMANDS else ''}: error: {one_line(str(error))}", file=sys.stderr)
        return 2
