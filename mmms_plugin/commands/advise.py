"""Advise on a detector for your own data, with reasons.

Advice on input size, levels, anchors and layers follows from the sizes of the objects, the strides, the anchors and the
measured receptive field. Each part comes with its reason, and all of them can be written as a config.
"""

from __future__ import annotations

import json
import warnings
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mmms_plugin.config.files import find_config
from mmms_plugin.config.image_size import parse_image_size
from mmms_plugin.data.own_data import AnyDataOptions, OwnData, PixelOptions
from mmms_plugin.errors import UserError, one_line
from mmms_plugin.files import check_folder, checkpoint_file, refuse_existing, write_text
from mmms_plugin.options import option
from mmms_plugin.processes import shell_line
from mmms_plugin.report.tables import Column, Table
from mmms_plugin.size_ap.options import bin_unit_option, bins_option

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmms_plugin.commands.advise_measure import Finding

SIZES = "sizes of objects"  # heading of --help


@dataclass(kw_only=True)
class Options(AnyDataOptions, PixelOptions):
    coco_dir: str | None = option(
        metavar="DIR", group="data", help="data set with COCO annotations; its training data are measured"
    )
    config: str | None = option(
        exists=find_config, group="detector",
        help="a detector's config (default: mmdet's Mask R-CNN, or Faster R-CNN for data without masks)",
    )  # fmt: skip
    checkpoint: str | None = option(
        metavar="FILE", exists=checkpoint_file, group="detector",
        help="weights of the config's model, to measure the receptive field with (default: random weights)",
    )  # fmt: skip
    image_size: tuple[int, int] | None = option(
        metavar="SIZE", reader=parse_image_size, group="detector",
        help="picture size in px to start from, 640 or 1333x800 (default: the config's)",
    )  # fmt: skip
    bins: str = bins_option(SIZES)
    bin_unit: str = bin_unit_option(SIZES)
    resized: bool = option(default=False, group=SIZES, help="sizes in px are those after resizing (default: on disk)")
    write: str | None = option(
        metavar="FILE", group="output", help="write the advice and the data as a config for mmms train"
    )
    force: bool = option(default=False, group="output", help="overwrite the file of --write")
    json: str | None = option(metavar="FILE", group="output", help="write all numbers as JSON")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checkpoint and not self.config:
            raise UserError("--checkpoint: give its config too, with --config")
        if (self.data is None) == (self.coco_dir is None):
            raise UserError("give the data set with --data DIR or --coco-dir DIR, one of them")

    def own(self, work_dir: str | Path = "", training: bool = True) -> OwnData:
        """The data set, whose mended annotations go to ``work_dir``."""
        flag, folder = ("--data", self.data) if self.data is not None else ("--coco-dir", Path(self.coco_dir or ""))
        return OwnData(flag, folder, Path(work_dir), training=training, max_pixels=self.max_pixels)

    def check_files(self) -> None:
        super().check_files()
        self.own()
        if not self.bins.strip().lower().startswith("quantiles"):  # which need the areas
            from mmms_plugin.size_ap.bins import resolve_bins

            resolve_bins(self.bins, self.bin_unit, allow_gaps=True, allow_overlaps=True)


def run(options: Options) -> None:
    """Measure, print the advice, and write the config and JSON that are asked for.

    Raises: UserError if data, config and checkpoint cannot be used or do not fit each other.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hosts' warnings about their own deprecated calls
        from mmms_plugin.train.console import calm_output

        with calm_output():
            _run(options)


def _run(options: Options) -> None:
    from mmms_plugin.commands.advise_measure import DEFAULTS, Sizes, detector_config, find_advice, training_split
    from mmms_plugin.config.data import use_coco_dir
    from mmms_plugin.config.image_size import set_image_size
    from mmms_plugin.data.pictures import quiet_libraries

    for file in filter(None, (options.write, options.json)):
        check_folder(Path(file).parent, "--write" if file == options.write else "--json")
    if options.write and not options.write.endswith(".py"):
        raise UserError(f"--write {options.write}: must end in .py")
    if options.write:
        refuse_existing(options.write, "--write", options.force)
    pixels = options.max_pixels
    own = options.own(training=False)
    with quiet_libraries():
        coco = training_split(own)
        name = options.config or DEFAULTS[coco.mask_count > 0]
        config = detector_config(name)
        if options.image_size:
            set_image_size(config._cfg_dict, options.image_size)
        if options.write:  # check before minutes of work that the data fit the config
            with TemporaryDirectory() as folder:
                use_coco_dir(deepcopy(config._cfg_dict), options.own(folder))
        sizes = Sizes(options.bins, options.bin_unit, options.resized)
        finding = find_advice(config, name, coco, options.checkpoint, pixels, sizes)
    _print(finding)
    if options.json:
        write_text(options.json, json.dumps(_as_json(finding), indent=1) + "\n")
    if options.write:
        _write(config, finding, options)


def _write(config: Config, finding: Finding, options: Options) -> None:
    """Write the config with the data and the changes."""
    from mmms_plugin.config.data import use_coco_dir
    from mmms_plugin.config.detector_facts import with_changes
    from mmms_plugin.config.function import Function, differences
    from mmms_plugin.config.image_size import set_image_size
    from mmms_plugin.report.terminal import say

    file = Path(options.write or "")
    changed = config
    for advice in finding.advice:
        changed = with_changes(changed, advice.changes)
        if advice.size:
            set_image_size(changed._cfg_dict, advice.size)
    other = differences(Function.of(config), Function.of(changed))
    folder = file.parent / f"{file.stem}_data"
    own = options.own(folder)
    remarks = use_coco_dir(changed._cfg_dict, own)
    if other:
        remarks.append(
            f"train with this config before mmms test: checkpoints of {finding.config} were made for another function ("
            f"{'; '.join(other)}) and are refused"
        )
    data = one_line(str(Path(own.given or "").resolve()))
    lines = [f"# Written by mmms advise for {data}, from {one_line(finding.config)}."]
    lines += [f"# {one_line(f'{advice.what}: {advice.why} ({advice.evidence})')}" for advice in finding.advice]
    lines += [f"# {one_line(remark)}" for remark in remarks[-1:] if other]
    write_text(file, "\n".join(lines) + "\n" + changed.pretty_text)
    for remark in remarks:
        say(remark)
    say(f"written: {file}; train with it: {shell_line(['mmms', 'train', str(file)])}")


def _as_json(finding: Finding) -> dict[str, Any]:
    geometry = asdict(finding.geometry) | {"anchors": None}
    if finding.geometry.anchors is not None:
        geometry["anchors"] = finding.geometry.anchors.round(3).tolist()
    return dict(
        config=finding.config, weights=finding.weights, geometry=geometry,
        shares=[asdict(share) for share in finding.shares], advice=[asdict(advice) for advice in finding.advice],
    )  # fmt: skip


def _print(finding: Finding) -> None:
    from rich.console import Console

    from mmms_plugin.report.terminal import explain, print_table

    geometry = finding.geometry
    title = f"{one_line(finding.config)} at {geometry.size[0]} x {geometry.size[1]} px"
    columns = (
        f"objects ({finding.sizes})", Column("number", "d"), f"below one cell ({min(geometry.strides)} px)",
        "off the anchors", f"beyond the field ({geometry.field:.0f} px)",
    )  # fmt: skip
    rows = [
        (s.name, s.objects, s.below_cell, "no anchors" if s.off_anchors is None else s.off_anchors, s.beyond_field)
        for s in finding.shares
    ]
    print_table(Table("shares", title, columns, rows, form=".1%"), Console())
    explain(
        f"The receptive field is that of the plain backbone, measured with {finding.weights}; neck and head add to it."
    )
    for advice in finding.advice:
        explain(f"- {advice.topic}: {advice.what}")
        explain(f"  why: {advice.why}")
        explain(f"  support: {advice.evidence}")
