"""``mmms check-data``: everything that is wrong with a data set at once, as a table and as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from mmms_plugin.coco.findings import SHOWN, Finding, Findings, errors_first
from mmms_plugin.coco.picture_files import MAX_PIXELS
from mmms_plugin.coco.rules import SEVERITIES
from mmms_plugin.data.coco_file import CocoFile, leave_out_groups
from mmms_plugin.data.coco_layouts import Annotations, annotations_of
from mmms_plugin.data.coco_pictures import unlisted
from mmms_plugin.data.coco_set import align_categories, check_split, read_file
from mmms_plugin.data.coco_usable import note_small_pictures, note_usable
from mmms_plugin.data.image_folder import ImageFolder, check_classes, read_folder, split_folders
from mmms_plugin.data.label_table import LabelTable, label_files, read_table, use_order
from mmms_plugin.data.layouts import CLASSES, COCO, FLAGS, HOLDS, NOUNS, SEGMENTATION, TABLE, kind_of
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.data.pictures import same_content
from mmms_plugin.data.seg_set import read_seg_set
from mmms_plugin.errors import UserError, counted, one_line
from mmms_plugin.files import write_text
from mmms_plugin.processes import shell_line
from mmms_plugin.report.tables import Cell, Column, Rows, Table
from mmms_plugin.report.terminal import print_table, say

MIN_SIZE = 32  # px, of filter_cfg in mmdet's own configs
SHARE = "--val-split 0.2"
COLOURS = {"error": "red", "mended": "cyan", "warning": "yellow"}
Pictures = list[tuple[str, Path, int]]  # split, file and its size in bytes


@dataclass
class Report:
    """What a data set holds and what is wrong with it.

    Attributes:
        kind: "COCO", "segmentation", "classification" or "several labels".
        splits: counts and paths of each split.
        findings: of all splits, errors first.
    """

    kind: str
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def trains(self) -> bool:
        """Whether training would start."""
        return not self._errors

    @property
    def trains_on_a_share(self) -> bool:
        """Whether training would start if a share of its pictures were held back for validation."""
        return self._errors == {"no-val"}

    @property
    def _errors(self) -> set[str]:
        return {finding.code for finding in self.findings if finding.severity == "error"}

    def as_json(self) -> str:
        findings = [finding.as_json() for finding in self.findings]
        content = {"kind": self.kind, "trains": self.trains, "splits": self.splits, "findings": findings}
        return json.dumps(content, indent=1) + "\n"


def check_data(own: OwnData, *, masks: bool = True, decode: bool = False, segmentation: bool = False) -> Report:
    """Check a data set of annotated objects, of pictures and masks, or of a folder of pictures for each class.

    Args:
        own: its folder, or one annotation file as ``train_ann``.
        masks: masks are to be trained; else problems of segmentations are warnings.
        decode: read every pixel of every picture, which finds damage inside files.
        segmentation: look for pictures with masks, even if there are annotations of objects.

    Raises:
        UserError: it is none of these, or several files could be the annotations of a split.
    """
    kind = SEGMENTATION if segmentation else kind_of(own)
    if kind == COCO:
        return _check_coco(own, annotations_of(own), masks, decode)
    if kind == SEGMENTATION:
        return _check_seg(own, decode)
    return _check_tables(own, decode) if kind == TABLE else _check_classes(own, decode)


def _check_coco(own: OwnData, files: Mapping[str, Annotations], masks: bool, decode: bool) -> Report:
    report = Report(COCO)
    splits: dict[str, CocoFile] = {}
    unread: list[Findings] = []
    pictures: Pictures = []
    for split, path in files.items():
        try:
            splits[split] = read_file(own, path, masks=masks)
        except UserError as error:
            unread.append(Findings(str(path)))
            unread[-1].advisory = split == "test"
            unread[-1].add("unreadable-file", one_line(str(error).removeprefix(f"{own.flag} {path}: ")))
    leave_out_groups(splits.values())
    for split, coco in splits.items():
        coco.findings.advisory = split == "test"
        check_split(own, split, coco, decode=decode)
    for split, coco in splits.items():
        if split != "train" and "train" in splits:
            align_categories(coco, splits["train"])
        note_usable(coco)
        if split == "train":
            note_small_pictures(coco, MIN_SIZE)
        for name in unlisted(coco, [other for other in splits.values() if other is not coco]):
            coco.findings.add("picture-not-listed", name)
        report.splits[split] = {
            "annotations": str(coco.path), "format": coco.format, "pictures": str(coco.image_dir),
            "images": len(coco.images), "objects": len(coco.content["annotations"]), "usable": len(coco.usable or ()),
            "classes": list(coco.classes), "masks": coco.mask_count,
        }  # fmt: skip
        listed = zip(coco.images, coco.pictures, strict=True)
        pictures += [(split, Path(coco.image_dir or "", image["file_name"]), file.bytes) for image, file in listed]
    across = Findings(str(own.given or own.train_ann))
    if own.folder is not None:
        _note_missing_splits(files, across)
    _note_same_pictures(pictures, across)
    report.findings = errors_first([*unread, *(coco.findings for coco in splits.values()), across])
    if not any(coco.mask_count for coco in splits.values()):  # boxes only, on purpose
        report.findings = [finding for finding in report.findings if finding.code != "segmentation-missing"]
    return report


def _check_seg(own: OwnData, decode: bool) -> Report:
    data = read_seg_set(own, decode=decode)
    report = Report(SEGMENTATION)
    pictures: Pictures = []
    for split, pairs in data.layout.splits.items():
        masks = sum(pair.mask is not None for pair in pairs)
        report.splits[split] = {"images": len(pairs), "masks": masks, "classes": list(data.classes)}
        listed = zip(pairs, data.pictures[split], strict=True)
        pictures += [(split, pair.image, file.bytes) for pair, file in listed]
    across = Findings(str(data.layout.root))
    _note_missing_splits(data.layout.splits, across)
    _note_same_pictures(pictures, across)
    for split, findings in data.findings.items():
        findings.advisory = split == "test"
    report.findings = errors_first([*data.findings.values(), across])
    return report


def _check_classes(own: OwnData, decode: bool) -> Report:
    folders = split_folders(own)
    report = Report(CLASSES)
    across = Findings(str(own.folder))
    splits: dict[str, ImageFolder] = {}
    for split, folder in folders.items():
        try:
            splits[split] = read_folder(own, folder)
            check_classes(own, splits)
        except UserError as error:
            if split != "test":
                raise
            splits.pop(split, None)
            across.add("test-unusable", one_line(str(error).removeprefix(f"{own.where}: ")))
    _note_missing_splits(folders, across)
    return _looked_at(report, splits, across, decode, own.max_pixels)


def _check_tables(own: OwnData, decode: bool) -> Report:
    files = label_files(own)
    report = Report(TABLE)
    splits: dict[str, LabelTable] = {}
    across = Findings(str(own.folder))
    for split, path in files.items():
        try:
            table = read_table(own, path)
            use_order(own, table, splits.get("train", table).classes)
            splits[split] = table
        except UserError as error:
            if split != "test":
                raise
            across.add("test-unusable", one_line(str(error).removeprefix(f"{own.where}: ")))
    _note_missing_splits(files, across)
    return _looked_at(report, splits, across, decode, own.max_pixels)


def _looked_at(
    report: Report,
    splits: Mapping[str, ImageFolder] | Mapping[str, LabelTable],
    across: Findings,
    decode: bool,
    max_pixels: int,
) -> Report:
    """The report with what the pictures of all splits show."""
    pictures: Pictures = []
    for split, part in splits.items():
        part.look(decode, max_pixels)
        part.findings.advisory = split == "test"
        report.splits[split] = {"images": len(part.pictures), "classes": list(part.classes)}
        pictures += [(split, path, file.bytes) for path, file in zip(part.paths, part.looked, strict=True)]
    _note_same_pictures(pictures, across)
    report.findings = errors_first([*(part.findings for part in splits.values()), across])
    return report


def _note_missing_splits(splits: Container[str], findings: Findings) -> None:
    for split in ("train", "val"):
        if split not in splits:
            findings.add(f"no-{split}")


def _note_same_pictures(pictures: Pictures, findings: Findings) -> None:
    """Note pictures with the same content, in two splits or twice in one."""
    for group in same_content([path for _, path, _ in pictures], [size for _, _, size in pictures]):
        shown = " = ".join(f"{pictures[place][0]}: {pictures[place][1].name}" for place in group[:3])
        if len({pictures[place][0] for place in group}) > 1:
            findings.add("picture-in-two-splits", shown)
        elif len({pictures[place][1] for place in group}) > 1:  # one file listed twice is another finding
            findings.add("picture-twice", shown)


def run_check(own: OwnData, json_file: str | None = None, **options: bool) -> int:
    """Check a data set, print the table and write the JSON.

    Args:
        own: the data set.
        json_file: file to write the report to.
        options: of `check_data`.

    Returns:
        The exit status: 2 if training would stop, else 0.
    """
    console = Console()
    start = time.perf_counter()
    report = check_data(own, **options)
    formats = dict.fromkeys(counts["format"] for counts in report.splits.values() if "format" in counts)
    masks = "; it holds pictures and masks too, which --seg checks" if formats and HOLDS[SEGMENTATION](own) else ""
    say(f"{own.given or own.train_ann}: {', '.join(formats) or NOUNS[report.kind]}{masks}", console)
    for split, counts in report.splits.items():
        inside = [counted(counts["images"], "image")]
        if "objects" in counts:
            inside.append(counted(counts["objects"], "object"))
            inside += [f"{counts['usable']} usable"] * (counts["usable"] != counts["objects"])
        inside += [counted(counts["masks"], "mask")] if "masks" in counts else []
        say(f"{split}: {', '.join(inside)}, classes: {len(counts['classes'])}", console)
    if report.findings:
        columns = (Column("", left=True), Column("problem", prose=True))
        rows = [row for finding in report.findings for row in _rows(finding)]
        print_table(Table("findings", "", columns, rows[:-1]), console)
    errors, mended, warnings = (sum(f.severity == severity for f in report.findings) for severity in SEVERITIES)
    verdict = (
        f"would start with {SHARE}" if report.trains_on_a_share else "would start" if report.trains else "would stop"
    )
    summary = f"{counted(errors, 'error')}, {mended} mended, {counted(warnings, 'warning')}"
    say(f"{summary}: training {verdict}", console)
    if own.folder and (report.trains or report.trains_on_a_share):
        say(f"train with: {_command_to_train(own, report)}", console)
    images = sum(counts["images"] for counts in report.splits.values())
    print(f"{counted(images, 'picture')} in {time.perf_counter() - start:.1f} s", file=sys.stderr)
    if json_file:
        write_text(json_file, report.as_json())
        say(f"written: {json_file}", console)
    return 0 if report.trains else 2


def _command_to_train(own: OwnData, report: Report) -> str:
    formats = {counts.get("format", COCO) for counts in report.splits.values()}
    flag = FLAGS[report.kind] if formats == {COCO} else "--data"
    words = ["mmms", "train", "CONFIG", flag, str(own.given)]
    if report.kind == COCO and own.img_dir:
        words += ["--img-dir", str(own.img_dir)]
    if report.kind == SEGMENTATION:
        words += ["--binary-masks"] * own.binary_masks
        words += [] if own.ignore_label is None else ["--ignore-label", str(own.ignore_label)]
    words += [] if own.max_pixels == MAX_PIXELS else ["--max-pixels", str(own.max_pixels)]
    return shell_line([*words, *(SHARE.split() if report.trains_on_a_share else [])])


def _rows(finding: Finding) -> Rows:
    """A finding as rows of the table: the problem, its file, examples and advice, and an empty row."""
    details = [finding.file, *(f"  {example}" for example in finding.examples[:SHOWN])]
    details += [f"  {finding.more.strip()}"] * bool(finding.more)
    first = (Cell(finding.severity, style=COLOURS[finding.severity]), finding.title)
    dim = [("", Cell(detail, style="dim")) for detail in details]
    return [first, *dim, *[("", finding.advice)] * bool(finding.advice), ("", "")]
