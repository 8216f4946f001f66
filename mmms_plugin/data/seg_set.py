"""A segmentation data set: its pairs of pictures and masks, its classes, and everything that is wrong with them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco.findings import Finding, Findings, errors_first
from mmms_plugin.coco.formats import class_names as names_in
from mmms_plugin.coco.picture_files import MAX_PIXELS, PictureError, opened_picture, picture_file
from mmms_plugin.data.own_data import VOID, OwnData
from mmms_plugin.data.pictures import Picture, in_threads, look_at_all, note_picture, quiet_libraries
from mmms_plugin.data.seg_layouts import Pair, SegSet, find_pairs, need_splits
from mmms_plugin.errors import UserError, counted, shown
from mmms_plugin.files import write_text

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
BINARY_CLASSES = ("background", "object")
NAMES = ("labels.txt", "classes.txt", "codes.txt", "labelmap.txt")  # fast.ai's and CVAT's are the last
LABELS_CSV = "_classes.csv"  # Roboflow's, beside the pictures: "Pixel Value, Class"
MOSTLY = 0.5  # share of void pixels that is reported; VOC's own masks have 6 % on average, around each object
ROWS = 256  # of a mask that are counted at a time


@dataclass
class SegData:
    """A segmentation data set that has been read.

    Attributes:
        layout: its pairs by split.
        classes: background first.
        findings: problems of each split.
        pictures: headers of the pictures of each split.
        remarks: where the classes come from, if no file names them.
    """

    layout: SegSet
    classes: tuple[str, ...]
    findings: dict[str, Findings] = field(default_factory=dict)
    pictures: dict[str, list[Picture]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def all_findings(self) -> list[Finding]:
        """Findings of all splits, errors first."""
        return errors_first(self.findings.values())


@dataclass(frozen=True)
class Mask:
    """The content of one mask.

    Attributes:
        problem: code of the rule that it breaks, empty if it can be read.
        detail: of the problem.
        size: width and height in px.
        pixels: number of pixels of each label.
    """

    problem: str = ""
    detail: str = ""
    size: tuple[int, int] = (0, 0)
    pixels: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Labels:
    """The labels in the masks of a split.

    Attributes:
        pixels: of each label.
        masks: number of masks that have a label.
        first: name of the first of them.
        void: share of void pixels in the masks that have any, by name.
    """

    pixels: Counter[int] = field(default_factory=Counter)
    masks: Counter[int] = field(default_factory=Counter)
    first: dict[int, str] = field(default_factory=dict)
    void: list[tuple[str, float]] = field(default_factory=list)


def read_seg_set(own: OwnData, splits: Sequence[str] = (), decode: bool = False) -> SegData:
    """Read all pictures and masks of a data set and check them.

    Args:
        own: the folder, and how it is split.
        splits: those that are needed, by default all; others are read as well if they are there, except for a test, and
            errors in them are warnings.
        decode: read every pixel of the pictures too.

    Raises:
        UserError: the layout is unknown, a split is missing, or the class names cannot be read.
    """
    layout = find_pairs(own)
    need_splits(layout, own, splits)
    named = class_names(layout, own)
    if not own.training and named:
        layout.splits = {split: pairs for split, pairs in layout.splits.items() if split in splits}
    labels: dict[str, Labels] = {}
    data = SegData(layout, named)
    for split, pairs in layout.splits.items():
        severities = {} if split == "train" else {"mask-one-label": "warning"}
        findings = data.findings[split] = Findings(f"{layout.root} ({split})", severities)
        findings.advisory = bool(splits) and split not in splits
        labels[split], data.pictures[split] = check_pairs(pairs, findings, split, own, decode)
        for name in layout.unpaired.get(split, ()):
            findings.add("mask-unpaired", name)
    if not named:
        data.classes = _classes_in(labels.values(), own)
        data.remarks.append(f"{own.where}: no labels.txt names the classes; from the masks: {', '.join(data.classes)}")
    for split, pooled in labels.items():
        check_labels(pooled, data.classes, data.findings[split], own)
    unused = not any(own.ignore_label in pooled.pixels for pooled in labels.values())
    if own.training and unused and own.ignore_label not in (None, VOID):
        data.findings[next(iter(labels))].add("ignore-label-unused", str(own.ignore_label))
    return data


def class_names(layout: SegSet, own: OwnData) -> tuple[str, ...]:
    """Names of the classes: of ``labels.txt`` or the like, VOC's own in VOC's layout, or none.

    Raises:
        UserError: fewer than two names, a name twice, or not a text file.
    """
    tables = (pairs[0].image.parent / LABELS_CSV for pairs in layout.splits.values() if pairs)
    voc = (layout.root / "SegmentationClass").is_dir()
    of_boxes = voc and (layout.root / "Annotations").is_dir()  # then classes.txt has no background
    names = (layout.root / name for name in NAMES if not (of_boxes and name == "classes.txt"))
    labels = next((path for path in (*names, *tables) if path.is_file()), None)
    if labels is None:
        return BINARY_CLASSES if own.binary_masks else VOC_CLASSES if voc else ()
    classes = tuple(names_in(labels, own.flag))
    if labels.name == "labelmap.txt":  # name:red,green,blue:parts:actions
        classes = tuple(line.split(":")[0] for line in classes if not line.startswith("#"))
    if labels.name == LABELS_CSV:
        rows = [[cell.strip() for cell in line.split(",", 1)] for line in classes[1:]]
        if [row[0] for row in rows] != [str(i) for i in range(len(rows))] or not all(row[1:] for row in rows):
            raise UserError(f"{labels}: must have a row for each of the labels 0, 1, ..., with its class")
        classes = tuple(row[1] for row in rows)
    if len(classes) < 2:
        raise UserError(
            f"{labels}: {counted(len(classes), 'class name')}; at least 2 are needed, one a line, background first"
        )
    twice = next((name for name, count in Counter(classes).items() if count > 1), None)
    if twice is not None:
        raise UserError(f"{labels}: class {shown(twice)} is listed twice")
    return classes


def _classes_in(labels: Iterable[Labels], own: OwnData) -> tuple[str, ...]:
    """Names for the classes that the masks show."""
    shown = {label for of_split in labels for label in of_split.pixels} - {own.ignore_label}
    highest = max((label for label in shown if 0 <= label < VOID), default=0)
    return ("background", *(f"class {label}" for label in range(1, max(2, highest + 1))))


def read_mask(path: Path, max_pixels: int = MAX_PIXELS) -> Mask:
    """The labels of a mask, as mmseg decodes it: palette indices or grey values."""
    try:
        with picture_file(path) as file, opened_picture(file, max_pixels, decode=True) as image:
            if image.mode not in ("P", "L", "1", "I", "I;16", "I;16B", "F"):
                return Mask("mask-colour", image.mode)
            array = np.asarray(image)
            pixels: Counter[int] = Counter()
            for first in range(0, len(array), ROWS):
                pixels.update(_label_counts(array[first : first + ROWS]))
            return Mask(size=image.size, pixels=dict(sorted(pixels.items())))
    except PictureError as error:
        return Mask("mask-unreadable", str(error))


def _label_counts(array: NDArray[Any]) -> dict[int, int]:
    if array.dtype in (np.uint8, np.bool_):  # bincount is many times faster than unique
        counts = np.bincount(array.ravel().astype(np.uint8, copy=False), minlength=256)
        labels = np.flatnonzero(counts)
        counts = counts[labels]
    else:
        labels, counts = np.unique(array.astype(np.int64), return_counts=True)
    return dict(zip(labels.tolist(), counts.tolist(), strict=True))


def check_pairs(
    pairs: Sequence[Pair], findings: Findings, what: str, own: OwnData, decode: bool = False
) -> tuple[Labels, list[Picture]]:
    """Read every mask and the header of every picture of a split.

    Args:
        pairs: of the split.
        findings: where problems of files are noted; `check_labels` notes those of labels.
        what: for the progress bar.
        own: which labels are void, and how many pixels are allowed.
        decode: read every pixel of the pictures too.

    Returns:
        The labels of all masks together, and what the header of each picture says.
    """
    images = [pair.image for pair in pairs]
    pictures = look_at_all(images, f"looking at the pictures of {what}", decode, own.max_pixels)
    masked = [(pair.mask, pair.image.name, picture)
              for pair, picture in zip(pairs, pictures, strict=True) if pair.mask is not None]  # fmt: skip
    with quiet_libraries():
        read = partial(read_mask, max_pixels=own.max_pixels)
        masks = list(in_threads(read, [path for path, *_ in masked], f"reading the masks of {what}"))
    pooled = Labels()
    for (path, name, picture), mask in zip(masked, masks, strict=True):
        if mask.problem:
            findings.add(mask.problem, f"{path.name}: {mask.detail}")
            continue
        if void := sum(count for label, count in mask.pixels.items() if _read_as(label, own) == VOID):
            pooled.void.append((path.name, void / sum(mask.pixels.values())))
        pooled.pixels.update(mask.pixels)
        pooled.masks.update(mask.pixels.keys())
        for label in mask.pixels:
            pooled.first.setdefault(label, path.name)
        if mask.size == picture.stored_size != picture.size:
            findings.add("picture-rotated", name)
        elif mask.size != picture.size and 0 not in picture.size:
            (width, height), (wide, high) = mask.size, picture.size
            findings.add("mask-size", f"{path.name}: {width} x {height}, its picture {wide} x {high}")
        if path.suffix.lower() in (".jpg", ".jpeg"):
            findings.add("mask-jpeg", path.name)
    for pair, picture in zip(pairs, pictures, strict=True):
        if pair.mask is None and masked:
            findings.add("mask-missing", pair.image.name)
        note_picture(findings, pair.image.name, picture)
        if picture.orientation > 1:
            findings.add("picture-exif", pair.image.name)
    if not masked:
        findings.add("no-pairs", f"{counted(len(pairs), 'picture')}, the first is {pairs[0].image.name}")
    return pooled, pictures


def _read_as(label: int, own: OwnData) -> int:
    return next((new for old, new in own.relabel if old == label), label)


def check_labels(labels: Labels, classes: Sequence[str], findings: Findings, own: OwnData) -> None:
    """Note labels outside the classes with their counts, classes that never occur, and void.

    Args:
        labels: of one split.
        classes: background first.
        findings: of the split.
        own: which labels are void or read as others.
    """
    counts = ", ".join(f"label {label}: {counted(count, 'pixel')}" for label, count in sorted(labels.pixels.items()))
    usual = own.ignore_label is None and not own.binary_masks
    if usual and VOID in labels.pixels and labels.pixels.keys() <= {0, VOID}:
        findings.add("mask-binary", counts)
        return
    present = {_read_as(label, own) for label in labels.pixels} - {VOID}
    if labels.pixels and len(present) < 2:
        findings.add("mask-one-label", counts)
    for name, share in labels.void:
        if share > MOSTLY:
            findings.add("mask-void-only" if share == 1 else "mask-void", f"{name}: {share:.1%} of the pixels")
    outside = sorted(label for label in present if not 0 <= label < len(classes))
    if own.binary_masks and 1 in labels.pixels:
        outside = [1, *outside]  # besides 255, it is a class of its own or a mistake
    for label in outside:
        masks = counted(labels.masks[label], "mask")
        where = f"label {label}: {counted(labels.pixels[label], 'pixel')} in {masks} ({labels.first[label]})"
        if own.binary_masks:
            findings.add("mask-not-binary", where)
        else:
            findings.add("mask-labels", f"{where}, allowed are 0 to {len(classes) - 1}")
    for label, name in enumerate(classes):
        if label not in present:
            findings.add("mask-class-unused", f"{label} {name[:40]}")


def write_pairs(pairs: Sequence[Pair], path: Path) -> Path:
    """Write the paths of pictures and masks as lines of JSON, for `PairedSegDataset`; returns the absolute path."""
    lines = [json.dumps([str(pair.image.resolve()), str(pair.mask and pair.mask.resolve())]) for pair in pairs]
    return write_text(path, "\n".join(lines) + "\n").resolve()
