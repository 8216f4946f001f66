"""Show what a network does with scale.

Measures the scale policy of every picture, exits, dilations, shapes, and the receptive field of every stage. Writes
numbers, figures and a page to browse the pictures.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmms_plugin.config.files import find_config
from mmms_plugin.data.own_data import AnyDataOptions, OwnData
from mmms_plugin.errors import UserError
from mmms_plugin.files import check_folder, checkpoint_file, make_folder, write_text
from mmms_plugin.options import REQUIRED, option, positional
from mmms_plugin.train.options import DATA, OUTPUT, SPLITS, LauncherOptions, ModelOptions

if TYPE_CHECKING:
    from mmms_plugin.commands.scale_policy_measure import PolicyRun, Source
    from mmms_plugin.scale.policy.report import Findings

PROGRESS, PROGRESS_COMPARED = "progress", "progress_compared"  # files that an interrupted run resumes from
SIZES = "size_ap"  # folder of the report on errors by object size
NO_NAME = "class {}"  # of the classes of a checkpoint that does not name them
MEASUREMENTS, COMPARISON = "measurements", "comparison"  # headings of --help


@dataclass(kw_only=True)
class Options(LauncherOptions, ModelOptions, AnyDataOptions):
    config: str = positional(
        help="a config file or name. A config is Python code and is run: use only configs that you trust"
    )
    checkpoint: str = positional(help="weights of the config's model")
    images: str | None = option(
        metavar="DIR", group=DATA, help="folder of pictures, with all below it; sub-folders are classes"
    )
    coco_dir: str | None = option(
        metavar="DIR", group=DATA,
        help="data set with COCO annotations: classes and sizes of objects are used too",
    )  # fmt: skip
    split: str = option(choices=SPLITS, default="val", group=DATA, help="which pictures of the data set to measure")
    fields: int = option(
        default=4, least=0, metavar="N", group=MEASUREMENTS,
        help="number of pictures to measure receptive fields on, 0 for none",
    )  # fmt: skip
    confidence: float = option(
        default=0.9, above=0, most=1, metavar="P", group=MEASUREMENTS,
        help="confidence at which a picture leaves a network with several exits",
    )  # fmt: skip
    compare: str | None = option(
        metavar="CHECKPOINT", exists=checkpoint_file, group=COMPARISON,
        help="a second network on the same pictures; with --data or --coco-dir also the errors of both detectors by "
        "object size",
    )  # fmt: skip
    compare_config: str | None = option(
        metavar="CONFIG",
        exists=find_config,
        group=COMPARISON,
        help="config of --compare (default: the same config)",
    )
    out: Path = option(
        default=REQUIRED, metavar="DIR", group=OUTPUT, help="folder for policy.html, numbers and figures"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compare_config and not self.compare:
            raise UserError("--compare-config: give its checkpoint too, with --compare")
        if sum(value is not None for value in (self.images, self.data, self.coco_dir)) != 1:
            raise UserError("give the pictures with --images DIR, --data DIR or --coco-dir DIR, one of them")

    @property
    def own(self) -> OwnData | None:
        """The data set, if its annotations are used."""
        for flag, folder in (("--data", self.data), ("--coco-dir", self.coco_dir)):
            if folder is not None:
                return OwnData(flag, Path(folder), self.out, training=False, split=self.split)
        return None

    def check_files(self) -> None:
        super().check_files()
        if self.own is None:
            OwnData("--images", Path(str(self.images)))


def run(options: Options) -> None:
    """Measure, and write numbers, figures and page; pictures that cannot be read are listed and skipped.

    Raises: UserError if config, checkpoint and arguments do not fit each other, or no picture can be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hosts' warnings about their own deprecated calls
        from mmms_plugin.train.processes import together
        from mmms_plugin.train.stopping import AGAIN, PICTURES, peers_watched

        with peers_watched(AGAIN, PICTURES), together(options.launcher):
            _run(options)


def _run(options: Options) -> None:
    from mmengine.dist import is_main_process
    from rich.console import Console

    from mmms_plugin.commands.scale_policy_measure import PolicyRun, check_readable, find_sources
    from mmms_plugin.data.pictures import quiet_libraries
    from mmms_plugin.report.terminal import explain, say
    from mmms_plugin.scale.policy.report import write_report
    from mmms_plugin.train.predict import list_skipped

    out = options.out
    own = options.own
    sources = find_sources(options.images, own, out)
    check_folder(out)
    check_readable(sources, options.max_pixels)
    data = repr((options.images, own and str(own.given), options.split, options.max_pixels))
    run = PolicyRun(options, options.confidence, out / PROGRESS, data)
    other = None
    if options.compare:
        second_model = replace(options, config=options.compare_config or options.config, checkpoint=options.compare)
        other = PolicyRun(second_model, options.confidence, out / PROGRESS_COMPARED, data)
    by_size = other is not None and own is not None and not run.classifies
    make_folder(out)
    with quiet_libraries():
        first, skipped = _measure(run, sources, options.fields, answers=other is not None)
        second = None
        if other is not None:
            second, more = _measure(other, sources, options.fields, answers=True)
            skipped = more | skipped
    runs = [run] if other is None else [run, other]
    if not is_main_process():
        for shared in runs if by_size else ():
            shared.boxes(sources, skipped)
        return
    with Console(stderr=True).status("drawing figures and page"):
        paths = {source.name: source.path for source in sources}
        links = [("Errors of the two detectors by object size", f"{SIZES}/report.html")] if by_size else []
        written = write_report(out, first, second, paths, links)
        remove_sizes(out / SIZES)
    if first.table.columns:
        part = "exit" if first.table.kind == "exits" else "block"
        say(f"{len(first.table.rows)} pictures, {first.table.kind}: {len(first.table.columns)} {part}s")
    elif not first.dilations and first.shape is None and second is None:
        explain(
            f"{type(run.model.backbone).__name__} has no multi-scale part (no Elastic block of lower resolution, no "
            "PSConv layer, no Shape Adaptor, no second exit): only its receptive fields are reported"
        )
    say(f"written to {out}: {', '.join(written)}, figures")
    if by_size and own is not None:
        compare_sizes(runs, out / SIZES, own, sources, skipped)
    list_skipped(out / "skipped.txt", skipped)
    for finished in runs:
        finished.forget_progress()


def _measure(run: PolicyRun, sources: Sequence[Source], fields: int, answers: bool) -> tuple[Findings, dict[str, str]]:
    """What is known of a network, and why pictures were skipped; only the table comes from all processes of a run."""
    from mmengine.dist import is_main_process

    from mmms_plugin.backbones.shape_plan import ShapedNetwork
    from mmms_plugin.scale.policy.dilations import dilation_shares
    from mmms_plugin.scale.policy.report import Findings
    from mmms_plugin.scale.shapes import network_shape, trajectories

    backbone = run.model.backbone
    table, skipped = run.measure_all(sources, answers)
    if not is_main_process():
        return Findings(run.title, table), skipped
    findings = Findings(run.title, table, dilation_shares(run.model), run.fields(sources, skipped, fields))
    if isinstance(backbone, ShapedNetwork):
        width, height = run.options.image_size or (224, 224)
        shape = network_shape(run.title, backbone, (height, width))
        moved = trajectories(Path(run.options.checkpoint).parent)
        findings = replace(findings, shape=shape, trajectories=moved)
    return findings, skipped


def compare_sizes(
    runs: Sequence[PolicyRun],
    out: Path,
    own: OwnData,
    sources: Sequence[Source],
    skipped: dict[str, str],
) -> None:
    """Predict with both detectors and write the report of size-ap.

    Args:
        runs: the detectors.
        out: folder for the report.
        own: the data set.
        sources: its pictures.
        skipped: pictures that cannot be read, and why; further ones are added.

    Raises: UserError if a model predicts no boxes, or none of the data set's classes.
    """
    from mmms_plugin.coco.formats import Source as Truth
    from mmms_plugin.coco.json_files import load_annotations
    from mmms_plugin.commands.scale_policy_measure import coco_truth
    from mmms_plugin.commands.size_ap import run_size_ap
    from mmms_plugin.size_ap.options import Options as SizeOptions

    truth = coco_truth(own, out)
    content = load_annotations(truth, own.flag)
    ids = {image["file_name"]: image["id"] for image in content["images"]}
    files = []
    for number, run in enumerate(runs, 1):
        categories = _category_ids(run.classes, content["categories"])
        boxes = run.boxes(sources, skipped)
        records = [
            dict(image_id=ids[source.file_name], category_id=category, bbox=box, score=score)
            for source in sources
            for label, score, *box in boxes.get(source.name, ())
            if (category := categories[int(label)]) is not None
        ]
        files.append(write_text(out / f"run_{number}.json", json.dumps(records)))
    stems = [Path(run.options.checkpoint).stem for run in runs]
    names = stems if len(set(stems)) == len(stems) else [f"{i} {stem}" for i, stem in enumerate(stems, 1)]
    options = SizeOptions(replicates=200, sweep=False, progress=False)
    pictures = Truth(pictures=sources[0].path.parent)
    run_size_ap(str(truth), [str(file) for file in files], str(out), options, names=names, source=pictures)


def _category_ids(classes: Sequence[str], categories: Sequence[Mapping[str, Any]]) -> list[int | None]:
    """The data set's id of each class of a model, None for classes that the data set lacks."""
    ids = {str(category["name"]): category["id"] for category in categories}
    if len(classes) == len(ids) and all(name == NO_NAME.format(i) for i, name in enumerate(classes)):
        return list(ids.values())  # the file's order
    if not set(ids) & set(classes):
        raise UserError(f"--compare: the model's classes ({', '.join(classes[:3])}) are not the data set's")
    return [ids.get(name) for name in classes]


def remove_sizes(out: Path) -> None:
    """Delete the report of an earlier run, but no folder of anything else."""
    if not out.is_symlink() and (out / "run_1.json").is_file() and (out / "run_2.json").is_file():
        shutil.rmtree(out, ignore_errors=True)
