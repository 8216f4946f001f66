"""``--voc-dir``: every data set of a segmentation config reads one's own PASCAL-VOC-style folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from mmms_plugin.data.own_data import OwnData
from mmms_plugin.engine.config_edit import dicts_in, leaf_datasets, set_num_classes
from mmms_plugin.errors import UserError

MASKS = "SegmentationClass"
LAYOUT = "JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/{train,val}.txt"
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
VOID = 255
T = TypeVar("T")
MASKS_LOOKED_AT = 200


def use_voc_dir(config: dict[str, Any], own: OwnData) -> list[str]:
    """Point all data sets and class counts of a segmenter's ``config`` at a VOC2012-style folder; return remarks.

    Classes are VOC's 21, or the lines of ``labels.txt`` in the folder (background first).
    Raises: UserError if the folder is not of VOC's layout or does not fit the config.
    """
    folder = own.folder or Path()
    root = folder.resolve()
    if not root.is_dir():
        raise UserError(f"--voc-dir {folder}: no such folder")
    classes = _classes(root)
    for split in ("train", "val"):
        names = _names(root, split)
        if missing := _missing(root, MASKS, names):
            raise UserError(f"--voc-dir {root}: of the images of ImageSets/Segmentation/{split}.txt {missing}")
        _check_masks(root, MASKS, names, len(classes))
    remarks = _drop_missing_augmentation(config, root, len(classes))
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        for dataset in leaf_datasets(config.get(loader)):
            dataset["data_root"] = str(root)
            if classes != VOC_CLASSES:
                # PascalVOCDataset knows VOC's own names only; its base class reads the same files
                dataset.update(type="BaseSegDataset", img_suffix=".jpg", seg_map_suffix=".png")
                dataset["metainfo"] = dict(classes=classes, palette=_palette(len(classes)))
    set_num_classes(config["model"], len(classes))
    return remarks


def _classes(root: Path) -> tuple[str, ...]:
    labels = root / "labels.txt"
    if not labels.is_file():
        return VOC_CLASSES
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


def _names(root: Path, split: str) -> list[str]:
    listing = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not listing.is_file():
        raise UserError(f"--voc-dir {root}: ImageSets/Segmentation/{split}.txt is missing; expected are {LAYOUT}")
    names = listing.read_text().split()
    if not names:
        raise UserError(f"{listing}: no image names")
    return names


def _missing(root: Path, masks: str, names: list[str]) -> str:
    """Which files of ``names`` are not there, in words; empty if none."""
    for kind, suffix in (("JPEGImages", ".jpg"), (masks, ".png")):
        missing = [name for name in names if not (root / kind / f"{name}{suffix}").is_file()]
        if missing:
            return f"{len(missing)} of {len(names)} have no {kind}/NAME{suffix} (first: {missing[0]})"
    return ""


def _check_masks(root: Path, folder: str, names: list[str], count: int) -> None:
    for name in names[:MASKS_LOOKED_AT]:
        mask = f"{folder}/{name}.png"
        labels = _load(root / mask, np.asarray)
        size = _load(root / "JPEGImages" / f"{name}.jpg", lambda picture: picture.size)
        if labels.ndim != 2:
            raise UserError(f"{mask}: a colour picture; allowed is one label a pixel (a grey or palette PNG)")
        if labels.shape[::-1] != size:
            raise UserError(f"{mask}: width and height {labels.shape[::-1]}, those of its picture are {size}")
        wrong = np.unique(labels[(labels >= count) & (labels != VOID)])
        if len(wrong):
            raise UserError(
                f"{mask}: label {wrong[0]}, allowed are 0 to {count - 1} and void ({VOID}); "
                "other classes than VOC's are named in labels.txt, one a line, background first"
            )


def _load(path: Path, take: Callable[[Image.Image], T]) -> T:
    try:
        with Image.open(path) as picture:
            return take(picture)
    except (OSError, SyntaxError) as error:  # what Pillow raises for a broken PNG
        raise UserError(f"{path}: not a readable picture") from error


def _drop_missing_augmentation(config: dict[str, Any], root: Path, count: int) -> list[str]:
    """Take the data sets of SBD's extra masks out of a ConcatDataset where the folder has not all of them."""
    remarks = []
    for wrapper in dicts_in(config.get("train_dataloader")):
        parts = wrapper.get("datasets")
        if not isinstance(parts, list):
            continue
        lacks = [_lacks(part, root, count) for part in parts]
        kept = [part for part, lack in zip(parts, lacks, strict=True) if not lack]
        if kept and len(kept) < len(parts):
            wrapper["datasets"] = kept
            said = "; ".join(lack for lack in lacks if lack)
            remarks.append(
                f"--voc-dir {root}: {said}: training on VOC's own train split alone, in as many iterations as with both"
            )
    return remarks


def _lacks(dataset: dict[str, Any], root: Path, count: int) -> str:
    """What a data set of VOC's layout has not got in ``root``, in words; empty if it is all there."""
    masks, listing = dataset.get("data_prefix", {}).get("seg_map_path", ""), dataset.get("ann_file", "")
    if not ((root / masks).is_dir() and (root / listing).is_file() and (root / listing).read_text().split()):
        return f"no {masks}/ with {listing} (the SBD masks)"
    names = (root / listing).read_text().split()
    if missing := _missing(root, masks, names):
        return f"of the images of {listing} (the SBD masks) {missing}"
    if masks != MASKS:  # those are checked already
        _check_masks(root, masks, names, count)
    return ""


def _palette(count: int) -> list[list[int]]:
    """VOC's own colours: the bits of the label spread over red, green and blue."""
    return [
        [sum((label >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)]
        for label in range(count)
    ]
