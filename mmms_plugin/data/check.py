"""``mmms check-data``: everything that is wrong with a data set at once, as a table and as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmms_plugin.coco.findings import SHOWN, Finding, Findings
from mmms_plugin.data.coco_file import CocoFile
from mmms_plugin.data.coco_layouts import annotation_files, describe_folder
from mmms_plugin.data.coco_pictures import unlisted
from mmms_plugin.data.coco_set import align_categories, read_split
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.data.pictures import same_content
from mmms_plugin.data.seg_layouts import find_pairs
from mmms_plugin.data.seg_set import read_seg_set
from mmms_plugin.errors import UserError, one_line
from mmms_plugin.files import write_text

COLOURS = {"error": "red", "mended": "cyan", "warning": "yellow"}


@dataclass
class Report:
    """What a data set holds and what is wrong with it.

    Attributes:
        kind: "COCO" or "segmentation". splits: counts and places of each split. findings: of all, errors first.
    """

    kind: str
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def trains(self) -> bool:
        """Whether training would start."""
        return all(finding.severity != "error" for finding in self.findings)

    def as_json(self) -> str:
        findings = [finding.as_json() for finding in self.findings]
        content = {"kind": self.kind, "trains": self.trains, "splits": self.splits, "findings": findings}
        return json.dumps(content, indent=1) + "\n"


def check_data(own: OwnData, *, masks: bool = True, decode: bool = False, segmentation: bool = False) -> Report:
    """Check a data set of COCO annotations, or of pictures and masks.

    Args:
        own: its folder, or one annotation file as ``train_ann``.
        masks: whether masks are to be trained; else problems of segmentations are warnings.
        decode: read every pixel of every picture, which finds damage inside of files.
        segmentation: look for pictures with masks, also where there are COCO annotations.
    Raises:
        UserError: it is neither, or files cannot be told apart.
    """
    files = {} if segmentation else annotation_files(own)
    if files:
        return _check_coco(own, files, masks, decode)
    try:
        find_pairs(own)
    except UserError:
        folder = own.folder or Path()
        raise UserError(f"{own.where}: neither COCO annotations nor masks; {describe_folder(folder)}") from None
    return _check_seg(own, decode)


def _check_coco(own: OwnData, files: Mapping[str, Path], masks: bool, decode: bool) -> Report:
    report, splits, unread = Report("COCO"), {}, []
    for split, path in files.items():
        try:
            splits[split] = read_split(own, split, path, masks=masks, decode=decode)
        except UserError as error:
            findings = Findings(str(path))
            findings.add("unreadable-file", one_line(str(error)))
            unread.append(findings)
    for split, coco in splits.items():
        if split != "train" and "train" in splits:
            align_categories(coco, splits["train"])
        for name in unlisted(coco, [other for other in splits.values() if other is not coco]):
            coco.findings.add("picture-not-listed", name)
        report.splits[split] = _summary(coco)
    across = Findings(str(own.folder or own.train_ann))
    if own.folder is not None and "val" not in files:
        across.add("no-val")
    _compare(splits, across)
    report.findings = _sorted([*unread, *(coco.findings for coco in splits.values()), across])
    if not any(coco.has_masks for coco in splits.values()):  # boxes only, on purpose
        report.findings = [finding for finding in report.findings if finding.code != "segmentation-missing"]
    return report


def _summary(coco: CocoFile) -> dict[str, Any]:
    return {
        "annotations": str(coco.path), "pictures": str(coco.image_dir), "images": len(coco.images),
        "objects": len(coco.content["annotations"]), "classes": list(coco.classes),
        "masks": sum(bool(record.get("segmentation")) for record in coco.content["annotations"]),
    }  # fmt: skip


def _check_seg(own: OwnData, decode: bool) -> Report:
    data = read_seg_set(own, decode=decode)
    across = Findings(str(data.found.root))
    if "val" not in data.found.splits:
        across.add("no-val")
    files = {
        split: [(pair.image, picture.bytes) for pair, picture in zip(pairs, data.pictures[split], strict=True)]
        for split, pairs in data.found.splits.items()
    }
    _same_pictures(files, across)
    splits = {
        split: {
            "images": len(pairs),
            "masks": sum(pair.mask is not None for pair in pairs),
            "classes": list(data.classes),
        }
        for split, pairs in data.found.splits.items()
    }
    return Report("segmentation", splits, _sorted([*data.findings.values(), across]))


def _sorted(findings: Sequence[Findings]) -> list[Finding]:
    order = list(COLOURS)
    return sorted(
        (finding for of_file in findings for finding in of_file), key=lambda finding: order.index(finding.severity)
    )


def _compare(splits: Mapping[str, CocoFile], findings: Findings) -> None:
    files = {
        split: [
            ((coco.image_dir or Path()) / coco.images[place]["file_name"], picture.bytes)
            for place, picture in coco.pictures.items()
        ]
        for split, coco in splits.items()
    }
    _same_pictures(files, findings)


def _same_pictures(files: Mapping[str, Sequence[tuple[Path, int]]], findings: Findings) -> None:
    """Note pictures with the same content, in two splits or twice in one."""
    listed = [(split, path, size) for split, of_split in files.items() for path, size in of_split]
    groups = same_content([path for _, path, _ in listed], [size for _, _, size in listed])
    for group in groups:
        splits = list(dict.fromkeys(listed[place][0] for place in group))
        shown = " = ".join(f"{listed[place][0]}: {listed[place][1].name}" for place in group[:3])
        if len(splits) > 1:
            findings.add("picture-in-two-splits", shown)
        elif len({listed[place][1] for place in group}) > 1:  # one file listed twice is another finding
            findings.add("picture-twice", shown)


def run_check(own: OwnData, json_file: str | None = None, **options: bool) -> int:
    """Check, print the table, write the JSON; the exit status is 2 if training would stop, else 0.

    Args:
        json_file: where the report goes, if anywhere. options: of `check_data`.
    """
    console = Console()
    start = time.perf_counter()
    report = check_data(own, **options)
    for split, counts in report.splits.items():
        inside = ", ".join(f"{counts[key]} {key}" for key in ("images", "objects", "masks") if key in counts)
        console.print(escape(f"{split}: {inside}, classes: {len(counts['classes'])}"), highlight=False, soft_wrap=True)
    if report.findings:
        console.print(_table(report))
    errors, others = (sum((f.severity == "error") == is_error for f in report.findings) for is_error in (True, False))
    verdict = "training would stop" if errors else "training would start"
    images = sum(counts["images"] for counts in report.splits.values())
    console.print(f"{errors} errors, {others} remarks: {verdict}", highlight=False)
    print(f"{images} pictures in {time.perf_counter() - start:.1f} s", file=sys.stderr)
    if json_file:
        write_text(json_file, report.as_json())
        console.print(f"written: {escape(json_file)}", soft_wrap=True, highlight=False)
    return 0 if report.trains else 2


def _table(report: Report) -> Table:
    table = Table("", "count", "problem", box=SIMPLE_HEAD, padding=(0, 1, 1, 0))
    for finding in report.findings:
        details = [f"[dim]{escape(one_line(finding.file))}[/]"]
        details += [f"[dim]  {escape(one_line(example))}[/]" for example in finding.examples[:SHOWN]]
        details += [f"[dim]  {finding.more.strip()}[/]"] * bool(finding.more)
        details += [escape(finding.advice)] * bool(finding.advice)
        colour = COLOURS[finding.severity]
        cell = "\n".join([escape(finding.what), *details])
        table.add_row(f"[{colour}]{finding.severity}[/]", str(finding.count), cell)
    return table
