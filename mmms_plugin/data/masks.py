"""The labels in the masks of a segmentation data set: which there are, how many pixels each, and what is wrong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmms_plugin.coco.findings import Findings
from mmms_plugin.data.pictures import Picture, in_threads, look_at, quiet_libraries
from mmms_plugin.data.seg_layouts import Pair

VOID = 255


@dataclass(frozen=True)
class Mask:
    """What one mask holds: the code of the rule it breaks with a detail, else its size and pixels of each label."""

    problem: str = ""
    detail: str = ""
    size: tuple[int, int] = (0, 0)
    labels: tuple[int, ...] = ()
    pixels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Labels:
    """Pixels of each label of a split, and the number of masks that have it."""

    pixels: dict[int, int]
    masks: dict[int, int]
    first: dict[int, str]


def read_mask(path: Path) -> Mask:
    """The labels of a mask, as mmseg decodes it: palette indices or grey values."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "1", "I", "I;16", "I;16B", "F"):
                return Mask("mask-colour", image.mode)
            array = np.asarray(image)
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        return Mask("mask-unreadable", str(error).splitlines()[0][:80] if str(error) else type(error).__name__)
    labels, pixels = _count(array)
    return Mask(size=(array.shape[1], array.shape[0]), labels=labels, pixels=pixels)


def _count(array: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if array.dtype in (np.uint8, np.bool_):
        counts = np.bincount(array.ravel().astype(np.uint8, copy=False), minlength=256)
        labels = np.flatnonzero(counts)
        return tuple(labels.tolist()), tuple(counts[labels].tolist())
    labels, counts = np.unique(array, return_counts=True)
    return tuple(int(label) for label in labels), tuple(counts.tolist())


def check_pairs(
    pairs: Sequence[Pair], findings: Findings, what: str, decode: bool = False
) -> tuple[Labels, list[Picture]]:
    """Read every mask and the header of every picture of a split.

    Args:
        findings: where problems of files are noted; `check_labels` notes those of labels.
        what: for the progress bar. decode: read every pixel of the pictures too.
    """
    masked = [pair for pair in pairs if pair.mask is not None]
    for pair in pairs:
        if pair.mask is None and masked:
            findings.add("mask-missing", pair.image.name)
    with quiet_libraries():
        masks = list(in_threads(read_mask, [Path(pair.mask or "") for pair in masked], f"reading the masks of {what}"))
        paths = [pair.image for pair in pairs]
        pictures = list(in_threads(lambda path: look_at(path, decode), paths, f"looking at the pictures of {what}"))
    sizes = dict(zip(paths, pictures, strict=True))
    pooled = Labels({}, {}, {})
    for pair, mask in zip(masked, masks, strict=True):
        name = os.path.basename(pair.mask or "")
        if mask.problem:
            findings.add(mask.problem, f"{name}: {mask.detail}")
            continue
        _pool(pooled, mask, name)
        size = sizes[pair.image].size
        if mask.size != size and mask.size == sizes[pair.image].stored_size:
            findings.add("picture-rotated", pair.image.name)
        elif 0 not in size and mask.size != size:
            findings.add("mask-size", f"{name}: {mask.size[0]} x {mask.size[1]}, its picture {size[0]} x {size[1]}")
        if pair.mask is not None and pair.mask.suffix.lower() in (".jpg", ".jpeg"):
            findings.add("mask-jpeg", name)
    for pair, picture in zip(pairs, pictures, strict=True):
        _note_picture(findings, pair.image.name, picture)
    if not masked:
        findings.add("no-pairs", f"{len(pairs)} pictures")
    return pooled, pictures


def _pool(pooled: Labels, mask: Mask, name: str) -> None:
    for label, pixels in zip(mask.labels, mask.pixels, strict=True):
        pooled.pixels[label] = pooled.pixels.get(label, 0) + pixels
        pooled.masks[label] = pooled.masks.get(label, 0) + 1
        pooled.first.setdefault(label, name)


def _note_picture(findings: Findings, name: str, picture: Picture) -> None:
    if picture.problem:
        findings.add(picture.problem, f"{name}: {picture.detail}" if picture.detail else name)
    if picture.deep:
        findings.add("picture-16-bit", name)
    if picture.mode == "CMYK":
        findings.add("picture-cmyk", name)
    if picture.orientation > 1:
        findings.add("picture-exif", name)


def check_labels(labels: Labels, classes: Sequence[str], findings: Findings, binary: bool = False) -> None:
    """Note labels outside of the classes with their counts, classes that never occur, and void.

    Args:
        labels: of one split. classes: background first. binary: label 255 is class 1, not void.
    """
    present = set(labels.pixels)
    if binary:
        present = {1 if label == VOID else label for label in present}
    elif present and present <= {0, VOID} and VOID in present:
        counts = ", ".join(f"label {label}: {labels.pixels[label]} pixels" for label in sorted(present))
        findings.add("mask-binary", counts)
        return
    outside = sorted(label for label in present if not 0 <= label < len(classes) and (binary or label != VOID))
    if binary and 1 in labels.pixels:
        outside = [1, *outside]  # beside 255, a class of its own or a mistake
    for label in outside:
        shown = f"label {label}: {labels.pixels[label]} pixels in {labels.masks[label]} masks ({labels.first[label]})"
        findings.add("mask-labels", f"{shown}, allowed are 0 to {len(classes) - 1}")
    for label, name in enumerate(classes):
        if label not in present:
            findings.add("mask-class-unused", f"{label} {name[:40]}")
    if VOID in labels.pixels and not binary:
        share = labels.pixels[VOID] / sum(labels.pixels.values())
        findings.add("mask-void", f"{share:.1%} of the pixels")
