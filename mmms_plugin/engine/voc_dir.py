"""``--voc-dir``: every data set of a segmentation config reads one's own PASCAL-VOC-style folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmms_plugin.engine.config_edit import dicts_in, is_detector, leaf_datasets, set_num_classes
from mmms_plugin.errors import UserError

LAYOUT = "JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/{train,val}.txt"
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
VOID = 255
MASKS_LOOKED_AT = 200


def use_voc_dir(config: dict[str, Any], folder: str) -> list[str]:
    """Point all data sets and class counts of ``config`` at a VOC2012-style folder; return remarks for the user.

    Classes are VOC's 21, or the lines of ``labels.txt`` in the folder (background first).
    Raises: UserError if the folder is not of VOC's layout or does not fit the config.
    """
    root = Path(folder).resolve()
    if is_detector(config):
        raise UserError(
            "--voc-dir: this config is a detector; use --coco-dir, or a segmentation config (deeplabv3_...)"
        )
    if not root.is_dir():
        raise UserError(f"--voc-dir {folder}: no such folder")
    classes = _classes(root)
    for split in ("train", "val"):
        _check_split(root, split, len(classes))
    remarks = _drop_missing_augmentation(config, root)
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
    classes = tuple(line.strip() for line in labels.read_text().splitlines() if line.strip())
    if len(classes) < 2:
        raise UserError(f"{labels}: {len(classes)} class names, at least 2 are needed, one a line, background first")
    return classes


def _check_split(root: Path, split: str, count: int) -> None:
    listing = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not listing.is_file():
        raise UserError(f"--voc-dir {root}: ImageSets/Segmentation/{split}.txt is missing; expected are {LAYOUT}")
    names = listing.read_text().split()
    if not names:
        raise UserError(f"{listing}: no image names")
    for kind, suffix in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png")):
        missing = [name for name in names if not (root / kind / f"{name}{suffix}").is_file()]
        if missing:
            raise UserError(
                f"{listing}: {len(missing)} of {len(names)} have no {kind}/NAME{suffix} (first: {missing[0]})"
            )
    for name in names[:MASKS_LOOKED_AT]:
        values = np.unique(np.asarray(Image.open(root / "SegmentationClass" / f"{name}.png")))
        wrong = values[(values >= count) & (values != VOID)]
        if len(wrong):
            raise UserError(
                f"SegmentationClass/{name}.png: label {wrong[0]}, allowed are 0 to {count - 1} and void ({VOID}); "
                "other classes than VOC's are named in labels.txt, one a line, background first"
            )


def _drop_missing_augmentation(config: dict[str, Any], root: Path) -> list[str]:
    """Take the data sets of SBD's extra masks out of a ConcatDataset where the folder has none."""
    remarks = []
    for wrapper in dicts_in(config.get("train_dataloader")):
        parts = wrapper.get("datasets")
        if not isinstance(parts, list):
            continue
        kept = [part for part in parts if _is_present(part, root)]
        if kept and len(kept) < len(parts):
            wrapper["datasets"] = kept
            remarks.append(
                f"--voc-dir {root}: no SegmentationClassAug/ with ImageSets/Segmentation/aug.txt (the SBD masks): "
                "training on VOC's own train split alone"
            )
    return remarks


def _is_present(dataset: dict[str, Any], root: Path) -> bool:
    masks = dataset.get("data_prefix", {}).get("seg_map_path", "")
    return (root / masks).is_dir() and (root / dataset.get("ann_file", "")).is_file()


def _palette(count: int) -> list[list[int]]:
    """VOC's own colours: the bits of the label spread over red, green and blue."""
    return [
        [sum((label >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)]
        for label in range(count)
    ]
