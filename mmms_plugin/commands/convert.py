"""Convert published weights into a checkpoint that configs load.

IN comes from the authors of a method, torchvision, timm or OpenMMLab. OUT is .pth or .safetensors; its meta.backbone is
the backbone's config, which loads it strictly. A classifier is kept beside the backbone (entry "head" of a .pth).
Detectors and segmentors are written with the keys of a whole OpenMMLab model; --part whole does this for classifiers
too. A plain ResNet becomes a PSResNet with dilation pattern 1,1,1,1, which computes the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmms_plugin.files import checkpoint_file
from mmms_plugin.options import option, positional
from mmms_plugin.weights.options import Options as ConvertOptions


@dataclass(frozen=True, kw_only=True)
class Options(ConvertOptions):
    input: str = positional(
        metavar="IN", exists=checkpoint_file, help="checkpoint: .pth, .pth.tar, .pt, .bin, .safetensors"
    )
    output: str = positional(metavar="OUT", help="file to write: .pth or .safetensors")
    report: str | None = option(
        metavar="FILE", group="output", help="write a JSON file that lists all keys mapped, dropped or initialised"
    )


def run(options: Options) -> None:
    from rich.console import Console

    from mmms_plugin.weights.convert import convert
    from mmms_plugin.weights.files import check_report
    from mmms_plugin.weights.report import print_report, write_report

    if options.report:
        check_report(options.report, options.input, options.output)
    console = Console()
    with console.status("reading") as status:
        report = convert(options.input, options.output, options, tell=status.update)
    print_report(report, console)
    if options.report:
        write_report(report, options.report)
