"""Convert a checkpoint of the authors, torchvision, timm or OpenMMLab into weights that a config here loads, strictly.

OUT is .pth or .safetensors; its meta.backbone is the config of the backbone. A classifier is kept beside the backbone
(entry "head" of a .pth); --part whole writes the keys of a whole OpenMMLab model instead, as for detectors and
segmentors by default. Weights of plain ResNets become PSResNet with dilation pattern 1,1,1,1, which computes the same.
"""

from __future__ import annotations

import argparse

from mmms_plugin.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("input", metavar="IN", help="checkpoint: .pth, .pth.tar, .pt, .bin, .safetensors")
    add("output", metavar="OUT", help="file to write: .pth or .safetensors")
    add("--source", default="auto", metavar="S", help="whose checkpoint: psconv, elastic, dla, torchvision, timm, "
        "openmmlab (auto: recognised by keys and shapes)")  # fmt: skip
    add("--arch", default="auto", metavar="A", help="architecture, as the publishers name it (auto)")
    add("--part", choices=["auto", "backbone", "whole"], default="auto", help="what to write (auto: the backbone of a "
        "classifier, all of a detector or segmentor)")  # fmt: skip
    add(
        "--pattern",
        metavar="D,D,...",
        help="dilation pattern to put over a plain network's 3x3 layers, such as 1,2,1,4",
    )
    add("--drop-extra", action="store_true", help="psconv: leave out dilation-1 weights that the paper's layer has no "
        "place for; says how far outputs move")  # fmt: skip
    add("--verify", action="store_true", help="run the converted backbone on a fixed input and print statistics")
    add("--reference", metavar="NPZ", help="compare, and write only if equal: arrays 'input', [N, 3, H, W], and one "
        "for each output to compare, by the publishers' names (layer1, level5, ...; the logits: output)")  # fmt: skip
    add("--tolerance", type=float, default=1e-4, metavar="T", help="largest error allowed, in standard deviations of "
        "the reference output (%(default)s)")  # fmt: skip
    add("--report", metavar="FILE", help="write all that was mapped, dropped and initialised as JSON")
    add("--force", action="store_true", help="overwrite OUT")


def run(args: argparse.Namespace) -> None:
    if not args.tolerance > 0:
        raise UserError(f"--tolerance {args.tolerance}: allowed are numbers above 0")
    pattern = _pattern(args.pattern)
    from rich.console import Console

    from mmms_plugin.weights.convert import convert
    from mmms_plugin.weights.files import check_report
    from mmms_plugin.weights.report import Options
    from mmms_plugin.weights.show import print_report, write_report

    names = ("source", "arch", "part", "drop_extra", "verify", "reference", "tolerance", "force")
    options = Options(pattern=pattern, **{name: getattr(args, name) for name in names})
    if args.report:
        check_report(args.report, args.input, args.output)
    console = Console(soft_wrap=True, highlight=False)
    with console.status("reading") as status:
        report = convert(args.input, args.output, options, tell=status.update)
    print_report(report, console)
    if args.report:
        write_report(report, args.report)


def _pattern(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(item) for item in text.split(","))
    except ValueError:
        raise UserError(f"--pattern {text}: expected integers with commas, such as 1,2,1,4") from None
