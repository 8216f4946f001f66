"""What ``mmms scale-policy`` does: run a checkpoint on pictures and report what it does with scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from mmms_plugin.backbones.shape_plan import ShapedNetwork
from mmms_plugin.commands.policy_pictures import Source, find_sources
from mmms_plugin.commands.policy_progress import check_readable
from mmms_plugin.commands.policy_run import Network, PolicyRun
from mmms_plugin.commands.policy_sizes import FOLDER, compare_sizes, remove_sizes
from mmms_plugin.commands.shapes_run import network_shape, trajectories
from mmms_plugin.data.pictures import quiet_libraries
from mmms_plugin.files import check_folder, make_folder, write_text
from mmms_plugin.scale.policy.dilations import dilation_shares
from mmms_plugin.scale.policy.report import Findings, write_report
from mmms_plugin.train.predict import LISTED

PROGRESS, PROGRESS_COMPARED = "progress", "progress_compared"  # what an interrupted run goes on from


@dataclass(frozen=True)
class PolicyOptions:
    """What the command line says; see ``mmms scale-policy --help``.

    Attributes:
        network: what is looked at. compare: a second one, on the same pictures.
        images: folder of pictures; their classes are the names of its sub-folders. coco_dir: data set; one of both.
        split: of the data set. fields: pictures that receptive fields are measured on, 0 for none.
        threshold: confidence at which a picture leaves a network with several exits.
    """

    network: Network
    out: Path
    images: str | None = None
    coco_dir: str | None = None
    split: str = "val"
    fields: int = 4
    threshold: float = 0.9
    compare: Network | None = None


def scale_policy(options: PolicyOptions) -> None:
    """Measure, and write numbers, figures and page; pictures that cannot be read are listed and skipped.

    Raises:
        UserError: config, checkpoint and arguments do not fit each other, or no picture could be read.
    """
    out, compare = options.out, options.compare
    sources = find_sources(options.images, options.coco_dir, options.split, out)
    check_folder(out)
    check_readable(sources)
    data = repr((options.images, options.coco_dir, options.split))
    run = PolicyRun(options.network, options.threshold, out / PROGRESS, data)
    other = None if compare is None else PolicyRun(compare, options.threshold, out / PROGRESS_COMPARED, data)
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
    _tell(out, first, second, type(run.model.backbone).__name__, written)
    runs = [run] if other is None else [run, other]
    if by_size:
        compare_sizes(runs, out / FOLDER, Path(options.coco_dir or ""), options.split, sources, skipped)
    _list_skipped(out / "skipped.txt", skipped)
    for one in runs:
        one.forget_progress()


def _measure(run: PolicyRun, sources: Sequence[Source], fields: int, answers: bool) -> tuple[Findings, dict[str, str]]:
    """All that is known of a network, and why pictures were skipped."""
    network, backbone = run.network, run.model.backbone
    table, skipped = run.measure_all(sources, answers)
    found = Findings(network.title, table, dilation_shares(run.model), run.fields(sources, skipped, fields))
    if isinstance(backbone, ShapedNetwork):
        width, height = network.image_size or (224, 224)
        shape = network_shape(network.title, backbone, (height, width))
        found = replace(found, shape=shape, trajectories=trajectories(Path(network.checkpoint).parent))
    return found, skipped


def _tell(out: Path, first: Findings, second: Findings | None, backbone: str, written: Sequence[str]) -> None:
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
    listing.unlink(missing_ok=True)
    if skipped:
        lines = [f"{name}: {reason}" for name, reason in skipped.items()]
        write_text(listing, "\n".join(lines) + "\n")
        more = f" and {len(lines) - LISTED} more" if len(lines) > LISTED else ""
        _say(f"{len(lines)} skipped, all in {listing}: {'; '.join(lines[:LISTED])}{more}")


def _say(text: str) -> None:
    Console(highlight=False, soft_wrap=True, markup=False).print(text)
