"""Pictures and their masks in the usual layouts: VOC2012's, and folders of images and masks.

``JPEGImages/``, ``SegmentationClass/``, ``ImageSets/Segmentation/train.txt``; or ``images/`` and ``masks/``, with
``train/`` and ``val/`` below or above them, or with ``train.txt`` and ``val.txt`` beside them, or all in one. A picture
and its mask have the same name, of any type; the mask's may end in ``_mask``, ``_label``, ``_seg`` or ``_gt``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmms_plugin.coco.formats import SUFFIXES, lines_of
from mmms_plugin.data.coco_layouts import WORDS, entries_of, split_of
from mmms_plugin.data.own_data import OwnData, held_back
from mmms_plugin.errors import UserError

IMAGES = ("images", "imgs", "img", "image", "jpegimages")
MASKS = ("masks", "mask", "segmentationclass", "labels", "label", "annotations", "gt", "ground_truth")
ENDINGS = ("", "_mask", "-mask", "_masks", "_label", "_labels", "_seg", "_gt", "_segmentation")
LISTS = "ImageSets/Segmentation"
EXPECTED = f"JPEGImages/, SegmentationClass/ and {LISTS}/{{train,val}}.txt, or images/ and masks/"


@dataclass(frozen=True)
class Pair:
    """A picture and its mask, None if it has none."""

    image: Path
    mask: Path | None


@dataclass
class SegSet:
    """Pictures and masks of a data set by split.

    Attributes:
        root: its folder.
        splits: the pairs of each.
        voc: it has VOC's layout and file types.
    """

    root: Path
    splits: dict[str, list[Pair]] = field(default_factory=dict)
    voc: bool = False


def find_pairs(own: OwnData) -> SegSet:
    """The pictures and masks of a folder, by split.

    Raises:
        UserError: the layout is unknown, or --val-split is given beside a validation split.
    """
    root = own.folder or Path()
    seg_set = _voc(own, root) or SegSet(root, _below(root))
    if not seg_set.splits:
        raise UserError(f"{own.where}: no pictures with masks found; expected are {EXPECTED}; {entries_of(root)}")
    if "all" in seg_set.splits:
        seg_set.splits["train"] = seg_set.splits.pop("all")
    if own.val_split:
        if "val" in seg_set.splits:
            raise UserError(f"--val-split: {own.where} has pictures for validation already")
        pairs = seg_set.splits["train"]
        chosen = held_back([pair.image.name for pair in pairs], own.val_split, own.split_seed)
        for split, side in (("train", False), ("val", True)):
            seg_set.splits[split] = [pair for pair, held in zip(pairs, chosen, strict=True) if held == side]
    return seg_set


def need_splits(seg_set: SegSet, own: OwnData, splits: Sequence[str]) -> None:
    """Raise UserError if a split is missing."""
    for split in splits:
        if split not in seg_set.splits:
            counts = ", ".join(f"{len(pairs)} for {name}" for name, pairs in seg_set.splits.items())
            raise UserError(
                f"{own.where}: no pictures for {split} (found: {counts}): list their names in {split}.txt, put them in "
                f"folders named {split}, or hold back a share of the training pictures with --val-split 0.2"
            )


def _voc(own: OwnData, root: Path) -> SegSet | None:
    """The pairs of VOC's own layout, None if none of its lists is there."""
    lists = {split: root / LISTS / f"{split}.txt" for split in WORDS}
    if not any(path.is_file() for path in lists.values()):
        return None
    images, masks = pictures_by_name(root / "JPEGImages"), pictures_by_name(root / "SegmentationClass")
    seg_set = SegSet(root, voc=True)
    for split, path in lists.items():
        if path.is_file():
            seg_set.splits[split] = listed_pairs(own, path, images, masks)
    pairs = [pair for of_split in seg_set.splits.values() for pair in of_split]
    seg_set.voc = all(p.image.suffix == ".jpg" and (p.mask is None or p.mask.suffix == ".png") for p in pairs)
    return seg_set


def listed_pairs(own: OwnData, listing: Path, images: Mapping[str, Path], masks: Mapping[str, Path]) -> list[Pair]:
    """The pairs whose names a text file lists, one a line.

    Raises:
        UserError: it is empty, or names a picture that is missing.
    """
    names = lines_of(listing, own.flag)
    if not names:
        raise UserError(f"{listing}: no image names")
    # Path.stem would also shorten a name with a dot: "scan.v2"
    stems = [os.path.splitext(name)[0] if name.lower().endswith(SUFFIXES) else name for name in names]
    missing = [stem for stem in stems if stem not in images]
    if missing:
        raise UserError(
            f"{own.where}: of the {len(names)} images of {listing.name}, {len(missing)} have no picture (first: "
            f"{missing[0]})"
        )
    return [Pair(images[stem], _mask_of(stem, masks)) for stem in stems]


def _below(root: Path) -> dict[str, list[Pair]]:
    """Pairs in folders of images and masks, split by folders above or below them, by lists beside them, or not."""
    images, masks = _named(root, IMAGES), _named(root, MASKS)
    if images and masks:
        lists = {split: path for split in WORDS for path in (root / f"{split}.txt", root / LISTS / f"{split}.txt")
                 if path.is_file()}  # fmt: skip
        if lists:
            own = OwnData("--voc-dir", root)
            by_name = pictures_by_name(images), pictures_by_name(masks)
            return {split: listed_pairs(own, path, *by_name) for split, path in lists.items()}
        inner = {split_of(Path(path.name)): path for path in sorted(images.iterdir()) if path.is_dir()}
        pairs = {split: _pairs(path, masks / path.name) for split, path in inner.items() if split in WORDS}
        pairs = {split: of_split for split, of_split in pairs.items() if of_split}
        unsplit = _pairs(images, masks)
        return pairs or ({"all": unsplit} if unsplit else {})
    pairs = {}
    for path in sorted(path for path in root.iterdir() if path.is_dir()):
        split, images, masks = split_of(Path(path.name)), _named(path, IMAGES), _named(path, MASKS)
        if split in WORDS and images and masks and (pairs_here := _pairs(images, masks)):
            pairs[split] = pairs_here
    return pairs


def _pairs(images: Path, masks: Path) -> list[Pair]:
    """The pictures of a folder with their masks; an empty list if no picture has one."""
    if not (images.is_dir() and masks.is_dir()):
        return []
    by_name = pictures_by_name(masks)
    pairs = [Pair(path, _mask_of(stem, by_name)) for stem, path in pictures_by_name(images).items()]
    return pairs if any(pair.mask for pair in pairs) else []


def pictures_by_name(folder: Path) -> dict[str, Path]:
    """Picture files of a folder by their names without suffix."""
    if not folder.is_dir():
        return {}
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES))
    return {os.path.splitext(name)[0]: folder / name for name in names}


def _mask_of(stem: str, masks: Mapping[str, Path]) -> Path | None:
    return next((masks[stem + ending] for ending in ENDINGS if stem + ending in masks), None)


def _named(folder: Path, names: Sequence[str]) -> Path | None:
    folders = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    return next((folders[name] for name in names if name in folders), None)
