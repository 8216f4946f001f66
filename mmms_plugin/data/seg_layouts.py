"""Pictures and their masks in the usual layouts: VOC2012's, and folders of images and masks.

``JPEGImages/``, ``SegmentationClass/``, ``ImageSets/Segmentation/train.txt``; or ``images/`` and ``masks/``, with
``train/`` and ``val/`` below or above them, or with ``train.txt`` and ``val.txt`` beside them, or all in one; or
``train/`` and ``trainannot/``, ``train_images/`` and ``train_masks/``; or both kinds of files in one folder.

Files may be of any type; `mask_names` says which mask belongs to which picture.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmms_plugin.coco.formats import SUFFIXES, pictures_in
from mmms_plugin.coco.text_files import lines_of
from mmms_plugin.data.coco_layouts import entries_of
from mmms_plugin.data.mask_names import PICTURE_WORDS, is_variant, partners, readings, told_apart
from mmms_plugin.data.own_data import OwnData, held_back
from mmms_plugin.data.splits import WORDS, listed, split_of
from mmms_plugin.errors import UserError
from mmms_plugin.files import composed

IMAGES = ("images", "imgs", "img", "image", "jpegimages", "leftimg8bit", "rgb", "img_dir", "image_dir")
MASKS = (
    "masks", "mask", "segmentationclass", "labels", "label", "annotations", "gt", "ground_truth", "gtfine", "gtcoarse",
    "annot", "annots", "gts", "groundtruth", "seg", "segmentation", "segmentations", "targets",
    "ann_dir", "mask_dir", "label_dir",
)  # fmt: skip
LISTS = "ImageSets/Segmentation"
EXPECTED = f"JPEGImages/, SegmentationClass/ and {LISTS}/{{train,val}}.txt, or images/ and masks/"
NAMING = "a mask has its picture's name, perhaps with an ending such as _mask or _gtFine_labelTrainIds"


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
        unpaired: names of the masks of each split that belong to no picture, where no list names the pictures.
    """

    root: Path
    splits: dict[str, list[Pair]] = field(default_factory=dict)
    voc: bool = False
    unpaired: dict[str, list[str]] = field(default_factory=dict)


def find_pairs(own: OwnData) -> SegSet:
    """The pictures and masks of a folder, by split.

    Raises:
        UserError: the layout is unknown, no picture has a mask, or --val-split is given beside a validation split.
    """
    root = own.folder or Path()
    seg_set = _voc(own, root) or _beside_lists(own, root) or _in_folders(own, root)
    if not seg_set.splits:
        raise UserError(f"{own.where}: no pictures with masks found; expected are {EXPECTED}; {entries_of(root)}")
    if own.val_split:
        if "val" in seg_set.splits:
            raise UserError(f"--val-split: {own.where} has pictures for validation already")
        need_splits(seg_set, own, ["train"])
        pairs = seg_set.splits["train"]
        chosen = held_back([pair.image.name for pair in pairs], own.val_split, own.split_seed)
        for split, side in (("train", False), ("val", True)):
            seg_set.splits[split] = [pair for pair, held in zip(pairs, chosen, strict=True) if held == side]
    return seg_set


def has_masks(root: Path) -> bool:
    """Whether a folder has one of the layouts of pictures with masks."""
    return bool(_lists(root / LISTS)) or any(
        pictures_by_name(images) and pictures_by_name(masks) if images != masks else all(_told_apart(images))
        for _, images, masks in _folders(root)
    )


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
    lists = _lists(root / LISTS)
    if not lists:
        return None
    images, masks = pictures_by_name(root / "JPEGImages"), pictures_by_name(root / "SegmentationClass")
    seg_set = SegSet(root, {split: listed_pairs(own, path, images, masks) for split, path in lists.items()}, voc=True)
    for split, path in lists.items():  # mmseg makes the paths from the names in the list
        for name, pair in zip(_stems(path, own), seg_set.splits[split], strict=True):
            mask = pair.mask or Path(f"{name}.png")
            seg_set.voc &= (pair.image.name, mask.name) == (f"{name}.jpg", f"{name}.png")
    return seg_set


def _beside_lists(own: OwnData, root: Path) -> SegSet | None:
    """The pairs that ``train.txt`` and the like list beside folders of images and masks, None if there are none."""
    images, masks = _named(root, IMAGES), _named(root, MASKS)
    lists = _lists(root / LISTS) | _lists(root)
    if not (images and masks and lists):
        return None
    by_name = pictures_by_name(images), pictures_by_name(masks)
    return SegSet(root, {split: listed_pairs(own, path, *by_name) for split, path in lists.items()})


def _lists(folder: Path) -> dict[str, Path]:
    lists = {split: folder / f"{split}.txt" for split in WORDS}
    return {split: path for split, path in lists.items() if path.is_file()}


def listed_pairs(own: OwnData, listing: Path, images: Mapping[str, Path], masks: Mapping[str, Path]) -> list[Pair]:
    """The pairs whose names a text file lists, one a line.

    Raises:
        UserError: it is empty, or names a picture that is missing.
    """
    stems = _stems(listing, own)
    if not stems:
        raise UserError(f"{listing}: no image names")
    pairs = {composed(stem): pair for stem, pair in pairs_of(images, masks).items()}
    missing = [stem for stem in stems if composed(stem) not in pairs]
    if missing:
        raise UserError(
            f"{own.where}: of the {len(stems)} images of {listing.name}, {len(missing)} have no picture (first: "
            f"{missing[0]})"
        )
    return [pairs[composed(stem)] for stem in stems]


def _stems(listing: Path, own: OwnData) -> list[str]:
    """The names in a list, without suffixes; Path.stem would also shorten a name with a dot: "scan.v2"."""
    names = lines_of(listing, own.flag)
    return [os.path.splitext(name)[0] if name.lower().endswith(SUFFIXES) else name for name in names]


def _in_folders(own: OwnData, root: Path) -> SegSet:
    """The pairs of folders whose names, or whose parents' names, say what they hold and for which split.

    Raises:
        UserError: there are such folders, and no picture in them has a mask.
    """
    seg_set, alone = SegSet(root), ""
    for split, images, masks in _folders(root):
        if images == masks:
            pictures, of_masks = _told_apart(images)
        else:
            pictures, of_masks = pictures_by_name(images), pictures_by_name(masks)
        if not (pictures and of_masks):
            continue
        pairs = pairs_of(pictures, of_masks)
        seg_set.splits.setdefault(split, []).extend(pairs.values())
        used = {pair.mask for pair in pairs.values()}
        known = {name for stem in pictures for name in readings(stem, PICTURE_WORDS)}
        unused = [path for stem, path in of_masks.items() if path not in used and not is_variant(stem, known)]
        seg_set.unpaired.setdefault(split, []).extend(path.name for path in unused)
        if used == {None}:
            first = next(iter(pictures.values())).relative_to(root), next(iter(of_masks.values())).relative_to(root)
            alone = alone or f"{first[0]} has no mask, {first[1]} has no picture"
    if alone and all(pair.mask is None for pairs in seg_set.splits.values() for pair in pairs):
        raise UserError(f"{own.where}: no picture has a mask: {alone}; {NAMING}")
    return seg_set


def _folders(root: Path) -> list[tuple[str, Path, Path]]:
    """Folders of images and masks after the split that they are for; one folder may hold both."""
    images, masks = _named(root, IMAGES), _named(root, MASKS)
    if images and masks:
        inner = [
            (split, path, other)
            for split, path in _split_folders(images)
            for of_split, other in _split_folders(masks)
            if split == of_split and pictures_by_name(path) and pictures_by_name(other)
        ]
        return inner or [("train", images, masks)]
    splits = _split_folders(root)
    outer = [(split, _named(path, IMAGES), _named(path, MASKS)) for split, path in splits]
    if pairs := [(split, images, masks) for split, images, masks in outer if images and masks]:
        return pairs
    kinds = {path: _kind(path.name.lower()) for path in listed(root) if path.is_dir()}
    beside = [
        (split, images, masks)
        for images, (split, kind) in kinds.items()
        for masks, other in kinds.items()
        if split and kind == "images" and other == (split, "masks")
    ]
    return beside or [*((split, path, path) for split, path in splits), ("train", root, root)]


def _split_folders(root: Path) -> list[tuple[str, Path]]:
    return [(split, path) for path in listed(root) if path.is_dir() and (split := split_of(Path(path.name)))]


def _kind(name: str) -> tuple[str, str]:
    """Split and kind, "images" or "masks", of a folder such as ``train``, ``trainannot`` or ``val_masks``."""
    for split, words in WORDS.items():
        for word in sorted(words, key=len, reverse=True):
            if name.startswith(word) or name.endswith(word):
                rest = (name.removeprefix(word) if name.startswith(word) else name.removesuffix(word)).strip("_- ")
                if rest in MASKS or rest in IMAGES or not rest:
                    return split, "masks" if rest in MASKS else "images"
    return "", ""


def pairs_of(images: Mapping[str, Path], masks: Mapping[str, Path]) -> dict[str, Pair]:
    """Every picture with its mask, by the picture's name without suffix."""
    of_images = partners(images, masks)
    return {stem: Pair(path, masks[of_images[stem]] if stem in of_images else None) for stem, path in images.items()}


def _told_apart(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Pictures and masks that lie in one folder."""
    files = _by_stem(folder, _pictures_here(folder))
    masks = told_apart(list(files))
    pictures = {stem: path for stem, path in files.items() if stem not in masks}
    return pictures, {stem: files[stem] for stem in files if stem in masks}


def pictures_by_name(folder: Path) -> dict[str, Path]:
    """Picture files of a folder by their names without suffix; if it has none, those below it, such as one per city."""
    if not folder.is_dir():
        return {}
    return _by_stem(folder, _pictures_here(folder) or pictures_in(folder))


def _pictures_here(folder: Path) -> list[Path]:
    return [path for path in listed(folder) if path.name.lower().endswith(SUFFIXES)]


def _by_stem(folder: Path, paths: list[Path]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in paths:
        name = path.relative_to(folder).as_posix()
        stem = os.path.splitext(name)[0]
        files[name if stem in files else stem] = path  # a.jpg beside a.png is another picture
    return files


def _named(folder: Path, names: Sequence[str]) -> Path | None:
    folders = {path.name.lower(): path for path in listed(folder) if path.is_dir()}
    return next((folders[name] for name in names if name in folders), None)
