"""Show what a network does with scale.

Measures the scale policy of every picture, exits, dilations, shapes, and the receptive field of every stage. Writes
numbers, figures and a page to browse the pictures.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmms_plugin.errors import UserError
from mmms_plugin.files import check_folder, make_folder, write_text
from mmms_plugin.options import REQUIRED, option, positional
from mmms_plugin.train.options import DATA, OUTPUT, SPLITS, ModelOptions

if TYPE_CHECKING:
    from mmms_plugin.commands.scale_policy.network import PolicyRun
    from mmms_plugin.commands.scale_policy.pictures import Source
    from mmms_plugin.scale.policy.report import Findings

PROGRESS, PROGRESS_COMPARED = "progress", "progress_compared"  # what an interrupted run goes on from
MEASUREMENTS, COMPARISON = "measurements", "comparison"  # headings of --help


@dataclass(kw_only=True)
class Options(ModelOptions):
    config: str = positional(
        help="a config file or name. A config is a Python program and runs as one: use only those that you trust"
    )
    checkpoint: str = positional(help="weights of the config's model")
    images: str | None = option(
        metavar="DIR", group=DATA, help="folder of pictures, with all below it; sub-folders are classes"
    )
    coco_dir: str | None = option(
        metavar="DIR", group=DATA,
        help="data set with COCO annotations: classes and sizes of objects are used too",
    )  # fmt: skip
    split: str = option(choices=SPLITS, default="val", group=DATA, help="pictures of --coco-dir to look at")
    fields: int = option(
        default=4, least=0, metavar="N", group=MEASUREMENTS,
        help="number of pictures that receptive fields are measured on, 0 for none",
    )  # fmt: skip
    confidence: float = option(
        default=0.9, above=0, most=1, metavar="P", group=MEASUREMENTS,
        help="confidence at which a picture leaves a network with several exits",
    )  # fmt: skip
    compare: str | None = option(
        metavar="CHECKPOINT", group=COMPARISON,
        help="a second network on the same pictures, beside the first; with --coco-dir, the errors of two detectors by "
        "object size too",
    )  # fmt: skip
    compare_config: str | None = option(
        metavar="CONFIG", group=COMPARISON, help="config of --compare (default: the same config)"
    )
    out: Path = option(
        default=REQUIRED, metavar="DIR", group=OUTPUT, help="folder for policy.html, numbers and figures"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compare_config and not self.compare:
            raise UserError("--compare-config: give the checkpoint too, with --compare")


def run(options: Options) -> None:
    """Measure, and write numbers, figures and page; pictures that cannot be read are listed and skipped.

    Raises: UserError if config, checkpoint and arguments do not fit each other, or no picture can be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hosts', about their own old calls
        _run(options)


def _run(options: Options) -> None:
    from rich.console import Console

    from mmms_plugin.commands.scale_policy.network import PolicyRun
    from mmms_plugin.commands.scale_policy.pictures import find_sources
    from mmms_plugin.commands.scale_policy.progress import check_readable
    from mmms_plugin.commands.scale_policy.sizes import FOLDER, compare_sizes, remove_sizes
    from mmms_plugin.data.pictures import quiet_libraries
    from mmms_plugin.scale.policy.report import write_report

    out = options.out
    sources = find_sources(options.images, options.coco_dir, options.split, out)
    check_folder(out)
    check_readable(sources)
    data = repr((options.images, options.coco_dir, options.split))
    run = PolicyRun(options, options.confidence, out / PROGRESS, data)
    other = None
    if options.compare:
        second_model = replace(options, config=options.compare_config or options.config, checkpoint=options.compare)
        other = PolicyRun(second_model, options.confidence, out / PROGRESS_COMPARED, data)
    by_size = other is not None and options.coco_dir is not None and not run.classifies
    make_folder(out)
    with quiet_libraries():
        first, skipped = _measure(run, sources, options.fields, answers=other is not None)
        second = None
        if other is not None:
            second, more = _measure(other, sources, options.fields, answers=True)
            skipped = more | skipped
    with Console(stderr=True).status("drawing figures and page"):
        paths = {source.name: source.path for source in sources}
        links = [("Errors of the two detectors by object size", f"{FOLDER}/report.html")] if by_size else []
        written = write_report(out, first, second, paths, links)
        remove_sizes(out / FOLDER)
    _print(out, first, second, type(run.model.backbone).__name__, written)
    runs = [run] if other is None else [run, other]
    if by_size:
        compare_sizes(runs, out / FOLDER, Path(options.coco_dir or ""), options.split, sources, skipped)
    _list_skipped(out / "skipped.txt", skipped)
    for finished in runs:
        finished.forget_progress()


def _measure(run: PolicyRun, sources: Sequence[Source], fields: int, answers: bool) -> tuple[Findings, dict[str, str]]:
    """All that is known of a network, and why pictures were skipped."""
    from mmms_plugin.backbones.shape_plan import ShapedNetwork
    from mmms_plugin.scale.policy.dilations import dilation_shares
    from mmms_plugin.scale.policy.report import Findings
    from mmms_plugin.scale.shapes import network_shape, trajectories

    backbone = run.model.backbone
    table, skipped = run.measure_all(sources, answers)
    findings = Findings(run.title, table, dilation_shares(run.model), run.fields(sources, skipped, fields))
    if isinstance(backbone, ShapedNetwork):
        width, height = run.options.image_size or (224, 224)
        shape = network_shape(run.title, backbone, (height, width))
        moved = trajectories(Path(run.options.checkpoint).parent)
        findings = replace(findings, shape=shape, trajectories=moved)
    return findings, skipped


def _print(out: Path, first: Findings, second: Findings | None, backbone: str, written: Sequence[str]) -> None:
    table = first.table
    if table.columns:
        _say(f"{len(table.rows)} pictures, {table.kind}: {len(table.columns)} columns")
    elif not first.dilations and first.shape is None and second is None:
        _say(
            f"{backbone} has no multi-scale part (no Elastic block of lower resolution, no PSConv layer, no Shape "
            "Adaptor, no second exit): only its receptive fields are reported"
        )
    _say(f"written to {out}: {', '.join(written)}, figures")


def _list_skipped(listing: Path, skipped: Mapping[str, str]) -> None:
    from mmms_plugin.train.predict import LISTED

    listing.unlink(missing_ok=True)
    if skipped:
        lines = [f"{name}: {reason}" for name, reason in skipped.items()]
        write_text(listing, "\n".join(lines) + "\n")
        more = f" and {len(lines) - LISTED} more" if len(lines) > LISTED else ""
        _say(f"{len(lines)} skipped, all in {listing}: {'; '.join(lines[:LISTED])}{more}")


def _say(text: str) -> None:
    from rich.console import Console

    Console(highlight=False, soft_wrap=True, markup=False).print(text)
