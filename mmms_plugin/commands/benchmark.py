"""Measure the speed of layers, backbones, early exits and size-ap.

Layers and backbones are compared with their plain counterparts, size-ap with the other evaluators installed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from mmms_plugin.errors import UserError
from mmms_plugin.options import CommandOptions, option, positional

BENCHMARKS = Path(__file__).parents[2] / "tools/benchmarks"
SUBJECTS = {
    "layers": "PSConv layers and plain ones",
    "backbones": "PS backbones and plain ones",
    "early-exit": "time and multiply-adds that MSDNet's early exits save",
    "size-ap": "evaluation by object size, from file to result, beside the other evaluators installed",
    "size-ap-coverage": "how often the evaluation's 95 % intervals contain the truth, on synthetic data",
    "size-ap-seeds": "the same for the difference of two methods with several seeds each",
}
ROUNDS = {"layers": 15, "backbones": 15, "early-exit": 5, "size-ap": 3, "size-ap-coverage": 500, "size-ap-seeds": 300}
MODELS, EVALUATION = "layers, backbones, early-exit", "size-ap"  # headings


@dataclass(kw_only=True)
class Options(CommandOptions):
    what: str = positional(
        choices=tuple(SUBJECTS), help="; ".join(f"{subject}: {text}" for subject, text in SUBJECTS.items())
    )
    rounds: int | None = option(
        least=1, metavar="N",
        help="measurements of each candidate (default: 15; early-exit: 5; size-ap: 3), or data sets (default: "
        "size-ap-coverage: 500; size-ap-seeds: 300)",
    )  # fmt: skip
    device: str = option(default="cpu", group=MODELS, help="cpu, cuda or mps")
    dtype: str = option(
        choices=("float32", "bfloat16", "float16"), default="float32", group=MODELS,
        help="number format of weights and pictures",
    )  # fmt: skip
    channels_last: bool = option(default=False, group=MODELS, help="NHWC memory format")
    batch: int = option(default=8, least=1, metavar="N", group=MODELS, help="pictures per batch")
    backward: bool = option(default=False, group=MODELS, help="time the forward and backward pass, as in training")
    arch: str = option(default="imagenet_step4", group=MODELS, help="architecture of MSDNet, for early-exit")
    images: int = option(
        default=5000, least=1, metavar="N", group=EVALUATION, help="images in the data set, for size-ap"
    )
    seeds: int = option(
        default=3, metavar="N", group=EVALUATION, help="seeds of each method, at least 2, for size-ap-seeds"
    )


def of_checkout(name: str) -> ModuleType:
    """A module of ``tools/benchmarks``, which is in the repository but not in the installed package."""
    if not BENCHMARKS.is_dir():
        raise UserError(
            f"{BENCHMARKS}: no such folder; this benchmark is in the repository, not in the installed package"
        )
    if str(BENCHMARKS) not in sys.path:
        sys.path.insert(0, str(BENCHMARKS))
    return import_module(name)


def run(options: Options) -> None:
    rounds = options.rounds or ROUNDS[options.what]
    if options.what == "size-ap":
        of_checkout("size_ap_speed").run_size_ap_benchmark(options.images, rounds)
    elif options.what == "early-exit":
        from mmms_plugin.backbones import MSDNet
        from mmms_plugin.exits.savings import run_early_exit_benchmark

        if options.arch not in MSDNet.arch_settings:
            raise UserError(f"--arch {options.arch}: allowed are {', '.join(MSDNet.arch_settings)}")
        run_early_exit_benchmark(options.arch, 64, rounds)
    elif options.what == "size-ap-coverage":
        of_checkout("size_ap_coverage").run_coverage(rounds)
    elif options.what == "size-ap-seeds":
        if options.seeds < 2:
            raise UserError(f"--seeds {options.seeds}: must be an integer of at least 2")
        of_checkout("size_ap_seeds").run_seed_coverage(rounds, options.seeds)
    else:
        import torch

        from mmms_plugin.devices import usable_device
        from mmms_plugin.scale.speed import Setting, run_benchmark

        usable_device(options.device)
        dtype = getattr(torch, options.dtype)
        setting = Setting(options.device, dtype, options.channels_last, options.batch, rounds, options.backward)
        run_benchmark(options.what, setting)
