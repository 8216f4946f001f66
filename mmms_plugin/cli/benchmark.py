"""Speed and multiply-adds of PSConv layers and backbones beside their plain twins, medians of one run."""

from __future__ import annotations

import argparse

from mmms_plugin.errors import UserError

DTYPES = ("float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["layers", "backbones"], help="what to measure")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="(%(default)s)")
    parser.add_argument("--channels-last", action="store_true", help="NHWC")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="pictures a batch (%(default)s)")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="measurements of each (%(default)s)")
    parser.add_argument("--backward", action="store_true", help="forward and backward pass, as in training")


def run(args: argparse.Namespace) -> None:
    for name in ("batch", "rounds"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: allowed are integers >= 1")
    import torch

    from mmms_plugin.engine.benchmark import Setting, run_benchmark

    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {args.device}: torch sees no CUDA device")
    dtype = getattr(torch, args.dtype)
    run_benchmark(args.what, Setting(args.device, dtype, args.channels_last, args.batch, args.rounds, args.backward))
