"""A segmentation data set: its pairs of pictures and masks, its classes, and everything that is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmms_plugin.coco.findings import Finding, Findings
from mmms_plugin.data.masks import VOID, Labels, check_labels, check_pairs
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.data.pictures import Picture
from mmms_plugin.data.seg_layouts import Pair, SegSet, find_pairs, need_splits
from mmms_plugin.errors import UserError
from mmms_plugin.files import write_text

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
BINARY_CLASSES = ("background", "object")
NAMES = ("labels.txt", "classes.txt")


@dataclass
class SegData:
    """Pairs by split, classes with the background first, findings and headers of the pictures by split."""

    found: SegSet
    classes: tuple[str, ...]
    findings: dict[str, Findings]
    pictures: dict[str, list[Picture]]
    remarks: list[str]

    @property
    def all_findings(self) -> list[Finding]:
        """Errors first."""
        every = [finding for findings in self.findings.values() for finding in findings]
        return sorted(every, key=lambda finding: finding.severity != "error")


def read_seg_set(own: OwnData, splits: Sequence[str] = (), decode: bool = False) -> SegData:
    """Read all pictures and masks of a data set and check them.

    Args:
        own: where it is, and how it is split.
        splits: that are needed; the others are read where they are there, but for a test.
        decode: read every pixel of the pictures too.

    Raises:
        UserError: the layout is none of those known, a split is missing, or the class names cannot be read.
    """
    found = find_pairs(own)
    need_splits(found, own, splits)
    named = class_names(found, own)
    if not own.training and named:
        found.splits = {split: pairs for split, pairs in found.splits.items() if split in splits}
    labels: dict[str, Labels] = {}
    data = SegData(found, named, {}, {}, [])
    for split, pairs in found.splits.items():
        findings = data.findings[split] = Findings(f"{found.root} ({split})")
        labels[split], data.pictures[split] = check_pairs(pairs, findings, split, decode)
    if not named:
        data.classes = classes_of(labels.values())
        data.remarks.append(f"{own.where}: no labels.txt names the classes; from the masks: {', '.join(data.classes)}")
    for split, pooled in labels.items():
        check_labels(pooled, data.classes, data.findings[split], own.binary_masks)
    return data


def class_names(found: SegSet, own: OwnData) -> tuple[str, ...]:
    """Names of the classes: lines of ``labels.txt``, VOC's own in VOC's layout, or none.

    Raises:
        UserError: fewer than two names, a name twice, or no text.
    """
    labels = next((found.root / name for name in NAMES if (found.root / name).is_file()), None)
    if labels is None:
        voc = (found.root / "SegmentationClass").is_dir()
        return BINARY_CLASSES if own.binary_masks else VOC_CLASSES if voc else ()
    try:
        lines = labels.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{labels}: not UTF-8 text ({error.reason})") from error
    classes = tuple(line.strip() for line in lines if line.strip())
    if len(classes) < 2:
        raise UserError(f"{labels}: {len(classes)} class names, at least 2 are needed, one a line, background first")
    twice = [name for name in classes if classes.count(name) > 1]
    if twice:
        raise UserError(f"{labels}: class {twice[0]!r} is listed twice")
    return classes


def classes_of(labels: Iterable[Labels]) -> tuple[str, ...]:
    """Classes that the masks show, where nothing names them."""
    seen = {label for of_split in labels for label in of_split.pixels if 0 <= label < VOID}
    count = max(2, max(seen, default=0) + 1)
    return ("background", *(f"class {label}" for label in range(1, count)))


def write_pairs(pairs: Sequence[Pair], path: Path) -> Path:
    """Write the paths of pictures and masks as lines of JSON, for `PairedSegDataset`; returns the absolute path."""
    lines = [json.dumps([str(pair.image.resolve()), str(pair.mask and pair.mask.resolve())]) for pair in pairs]
    return write_text(path, "\n".join(lines) + "\n").resolve()
