"""Speed of layers and backbones beside their plain twins, and of the evaluation by size beside other evaluators."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

from mmms_plugin.errors import UserError

BENCHMARKS = Path(__file__).parents[2] / "tools/benchmarks"
DTYPES = ("float32", "bfloat16", "float16")
CHOICES = {
    "layers": "PSConv layers beside the plain ones",
    "backbones": "PS backbones beside the plain ones",
    "early-exit": "time that MSDNet's early exits save, beside the multiply-adds that they save",
    "size-ap": "evaluation by object size from file to result, beside the other evaluators installed",
    "size-ap-coverage": "how often 95 %% intervals of the evaluation hold the truth, on made-up data",
    "size-ap-seeds": "the same of the difference of two methods with several seeds each",
}
ROUNDS = {"layers": 15, "backbones": 15, "early-exit": 5, "size-ap": 3, "size-ap-coverage": 500, "size-ap-seeds": 300}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    choices = "; ".join(f"{name}: {text}" for name, text in CHOICES.items())
    parser.add_argument("what", choices=list(CHOICES), help=choices)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (%(default)s)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="(%(default)s)")
    parser.add_argument("--channels-last", action="store_true", help="NHWC")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="pictures a batch (%(default)s)")
    rounds = "measurements of each (15; size-ap: 3), or data sets (size-ap-coverage: 500, size-ap-seeds: 300)"
    parser.add_argument("--rounds", type=int, metavar="N", help=rounds)
    parser.add_argument("--images", type=int, default=5000, metavar="N", help="of size-ap (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="of size-ap-seeds, >= 2 (%(default)s)")
    parser.add_argument("--arch", default="imagenet_step4", help="of early-exit: a setting of MSDNet (%(default)s)")
    parser.add_argument("--backward", action="store_true", help="forward and backward pass, as in training")


def of_checkout(name: str) -> ModuleType:
    """A module of ``tools/benchmarks``, which a checkout of the repository has and an installed package has not."""
    if not BENCHMARKS.is_dir():
        raise UserError(f"no folder {BENCHMARKS}: this benchmark is in the repository, not in the installed package")
    if str(BENCHMARKS) not in sys.path:
        sys.path.insert(0, str(BENCHMARKS))
    return import_module(name)


def run(args: argparse.Namespace) -> None:
    args.rounds = ROUNDS[args.what] if args.rounds is None else args.rounds
    for name in ("batch", "rounds", "images"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: allowed are integers >= 1")
    if args.what == "size-ap":
        return of_checkout("size_ap_speed").run_size_ap_benchmark(args.images, args.rounds)
    if args.what == "early-exit":
        from mmms_plugin.arguments import check_choice
        from mmms_plugin.backbones import MSDNet
        from mmms_plugin.exits.made_up import run_early_exit_benchmark

        try:
            check_choice("--arch", args.arch, tuple(MSDNet.arch_settings))
        except ValueError as error:
            raise UserError(str(error)) from error
        return run_early_exit_benchmark(args.arch, 64, args.rounds)
    if args.what == "size-ap-coverage":
        return of_checkout("size_ap_coverage").run_coverage(args.rounds)
    if args.what == "size-ap-seeds":
        if args.seeds < 2:
            raise UserError(f"--seeds {args.seeds}: must be an integer >= 2")
        return of_checkout("size_ap_seeds").run_seed_coverage(args.rounds, args.seeds)
    import torch

    from mmms_plugin.commands.benchmark_run import Setting, run_benchmark
    from mmms_plugin.devices import usable_device

    usable_device(args.device)
    dtype = getattr(torch, args.dtype)
    return run_benchmark(
        args.what, Setting(args.device, dtype, args.channels_last, args.batch, args.rounds, args.backward)
    )
