"""Options of a conversion; see ``mmms convert --help``."""

from __future__ import annotations

from dataclasses import dataclass

from mmms_plugin.errors import UserError
from mmms_plugin.options import CommandOptions, option


def parse_pattern(text: str) -> tuple[int, ...]:
    """``1,2,1,4`` as numbers."""
    try:
        return tuple(int(item) for item in text.split(","))
    except ValueError:
        raise UserError(f"--pattern {text}: expected integers with commas, such as 1,2,1,4") from None


@dataclass(frozen=True, kw_only=True)
class Options(CommandOptions):
    """Options of a conversion, named as those of ``mmms convert``, whose ``--help`` explains them."""

    source: str = option(
        default="auto", metavar="S", group="source",
        help="publisher of the checkpoint: psconv, elastic, dla, msdnet, shape_adaptor, torchvision, timm or openmmlab "
        "(default: auto, recognised by keys and shapes)",
    )  # fmt: skip
    arch: str = option(
        default="auto", metavar="A", group="source",
        help="architecture, as its publisher names it; for shape_adaptor NETWORK_MODE_SIDE with the side in px, such "
        "as resnet50_autosc_96 or mobilenetv2_autosc_224_width0.85 (default: auto, recognised by keys and shapes)",
    )  # fmt: skip
    part: str = option(
        choices=("auto", "backbone", "whole"), default="auto", group="output",
        help="what to write (default: auto, the backbone of a classifier or the whole of a detector or segmentor)",
    )  # fmt: skip
    pattern: tuple[int, ...] | None = option(
        metavar="D,D,...", reader=parse_pattern, group="output",
        help="dilation pattern for the 3x3 layers of a plain ResNet, such as 1,2,1,4: a start for training (default: "
        "1,1,1,1, which computes the same)",
    )  # fmt: skip
    output_stride: int | None = option(
        choices=(8, 16, 32), metavar="N", group="output",
        help="for a ResNet: input px per px of its last map, which sets its strides and dilations; needed for "
        "segmentation models of openmmlab, whose weights do not show them (default: a classifier's, 32)",
    )  # fmt: skip
    drop_extra: bool = option(
        default=False, group="output",
        help="for psconv: drop the dilation-1 weights that the paper's layer does not have, and report how far the "
        "outputs move",
    )  # fmt: skip
    verify: bool = option(
        default=False,
        group="checks",
        help="run the converted backbone on a fixed input and print statistics of its outputs",
    )
    reference: str | None = option(
        metavar="NPZ", group="checks",
        help="outputs to compare with; OUT is written only if they agree. Arrays: 'input', [N, 3, H, W], and one for "
        "each output, named as its publisher names it (layer1, level5, ...; output for the logits)",
    )  # fmt: skip
    tolerance: float = option(
        default=1e-4, above=0, metavar="T", group="checks",
        help="largest error allowed by --reference, in standard deviations of the reference output",
    )  # fmt: skip
    force: bool = option(default=False, group="output", help="overwrite OUT if it exists")
