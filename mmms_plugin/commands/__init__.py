"""The console script ``mmms``: one sub-command per module of this package.

A sub-command is a module with a docstring (its help), ``add_arguments(parser)`` and ``run(args) -> int | None``.
Modules are imported only when their command is called, so that ``mmms --help`` needs neither torch nor a host.
Exit status: 0 done, 1 the run could not go on (its loss became NaN, say), 2 the user's input is at fault; both with one
line and no traceback. Anything else is a bug.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import locale
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from mmms_plugin.errors import RunError, UserError, first_line, one_line

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)

COMMANDS = {
    "train": "train a model from a config",
    "test": "evaluate a checkpoint, keep or draw its predictions",
    "predict": "draw and keep what a model finds in pictures of your own",
    "check-data": "list everything that is wrong with a data set before training on it",
    "configs": "list the configs that come with the package, or a host's",
    "run": "run a script of mmdet or mmseg, or your own, on mmcv-lite",
    "make-shapes": "generate the multi-scale shapes data set",
    "convert": "convert published weights into a checkpoint that a config here loads",
    "publish": "strip a checkpoint for release and name it with its hash",
    "weights": "list published checkpoints of the four methods",
    "demo": "train, evaluate and draw a small PS Mask R-CNN on generated data",
    "size-ap": "AP by object size with intervals, of one or two prediction files; object sizes of a data set",
    "benchmark": "speed and multiply-adds of layers and backbones beside their plain twins",
    "stress-test": "evaluate one classifier on pictures of several sizes",
    "early-exit": "thresholds for any budget of a network with several exits, and the time that they save",
    "compare-seeds": "train configs with several seeds, and report mean and spread of their metrics beside costs",
    "flops": "parameters and multiply-adds of a backbone, or a paper's tables beside the measured",
    "shapes": "draw the shape of shape-adapted networks, and how training moved it",
    "scale-policy": "what a network does with scale: policies of pictures, exits, dilations, receptive fields",
    "advise": "input size, levels, anchors and layers that suit your own data, with reasons, as a config",
    "completion": "a script that completes commands, options and names of configs with the tab key",
}


class _Parser(argparse.ArgumentParser):
    """argparse, with its two-line complaint made one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"{message} (see {self.prog} --help)")


def script(*command: str) -> int:
    """What ``mmms`` and the scripts in ``tools/`` call: run ``main`` with ``command`` before their arguments.

    Hosts and pycocotools read and write text in the encoding of the system. Where that is not UTF-8, as on Windows
    before Python 3.15, Python is started once more in its UTF-8 mode, so that class names stay what they are.
    """
    if sys.flags.utf8_mode or locale.getpreferredencoding(False).lower().replace("-", "") == "utf8":
        return main([*command, *sys.argv[1:]])
    again = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
    if os.name != "nt":
        os.execv(sys.executable, again)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the new process handles Ctrl-C
    return subprocess.call(again)  # on Windows execv returns to the prompt at once


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``mmms COMMAND ...`` and return its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")  # a letter that the encoding lacks, as cp1252 lacks "≥", is a "?"
    name = argv[0] if argv else ""
    if name != "benchmark":  # whose times are those of torch's own settings; train.threads says why this is needed
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # operators that MPS lacks run on the CPU
    try:
        if name in ("", "-h", "--help"):
            print("usage: mmms COMMAND ... (mmms COMMAND --help lists its options)\n")
            print("\n".join(f"  {command:<14}{text}" for command, text in COMMANDS.items()))
            return 0 if name else 2
        if name == "--version":
            from mmms_plugin import __version__

            print(__version__)
            return 0
        if name not in COMMANDS:
            raise UserError(f"unknown command {name!r}: allowed are {', '.join(COMMANDS)}")
        module = importlib.import_module(f"mmms_plugin.commands.{name.replace('-', '_')}")
        parser = _Parser(prog=f"mmms {name}", description=module.__doc__)
        module.add_arguments(parser)
        status = module.run(parser.parse_args(argv[1:])) or 0
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print(f"mmms {name}: interrupted", file=sys.stderr)
        return 130
    except UserError as error:
        return _refuse(name, str(error))
    except RunError as error:
        return _refuse(name, str(error), status=1)
    except ImportError as error:
        if error.name != "cv2":
            raise
        pip = f"{sys.executable} -m pip"
        remedy = (
            f"{pip} uninstall -y opencv-python, then {pip} install --no-deps --force-reinstall opencv-python-headless"
        )
        return _refuse(name, f"OpenCV cannot be loaded on this system, {first_line(error)}: {remedy}")
    except BrokenPipeError:  # as in `mmms ... | head`
        _drop_output()
        return 141
    except OSError as error:
        if error.errno not in FULL and not isinstance(error, PermissionError):
            raise
        _drop_output()
        return _refuse(name, f"{error.filename or 'output'} cannot be written ({error.strerror})")


def _refuse(name: str, message: str, status: int = 2) -> int:
    print(f"mmms{f' {name}' if name in COMMANDS else ''}: error: {one_line(message)}", file=sys.stderr)
    return status


def _drop_output() -> None:
    """Keep Python from trying once more, at its end, to write what standard output did not take."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
