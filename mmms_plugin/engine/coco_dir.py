"""``--coco-dir``: every data set of a detection config reads one's own COCO-style folder."""

from __future__ import annotations

import colorsys
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmms_plugin.engine.config_edit import coco_metrics, leaf_datasets, set_num_classes
from mmms_plugin.errors import UserError

LAYOUT = "annotations/instances_{train,val}.json and images/ (or train2017/, val2017/, ...)"


@dataclass(frozen=True)
class CocoSplit:
    """One annotation file and the folder of its images, both absolute; classes in the file's order."""

    ann_file: Path
    image_dir: Path
    classes: tuple[str, ...]
    with_masks: bool


def use_coco_dir(config: dict[str, Any], folder: str) -> list[str]:
    """Point all data sets, metrics and class counts of a detector's ``config`` at ``folder``; return remarks.

    Raises: UserError if the folder is not of COCO's layout or does not fit the config.
    """
    splits = {name: read_split(Path(folder), name) for name in ("train", "val")}
    classes = splits["train"].classes
    if splits["val"].classes != classes:
        raise UserError(
            f"{splits['val'].ann_file}: its {len(splits['val'].classes)} categories are not the {len(classes)} of "
            f"{splits['train'].ann_file.name}, in the same order: make both files list the same categories"
        )
    _check_masks(config, splits)
    for loader, name in (("train_dataloader", "train"), ("val_dataloader", "val"), ("test_dataloader", "val")):
        for dataset in leaf_datasets(config.get(loader)):
            split = splits[name]
            dataset.update(
                data_root="", ann_file=str(split.ann_file), data_prefix=dict(img=f"{split.image_dir}{os.sep}")
            )
            dataset["metainfo"] = dict(classes=classes, palette=_palette(len(classes)))
    for metric in coco_metrics(config):
        metric["ann_file"] = str(splits["val"].ann_file)
    set_num_classes(config["model"], len(classes))
    return [f"--coco-dir {folder}: {len(classes)} classes: {', '.join(classes)}"]


def read_split(folder: Path, name: str) -> CocoSplit:
    """Read and check ``annotations/instances_{name}*.json`` of a COCO-style folder.

    Raises: UserError, in one line, for whatever would stop training later.
    """
    if not folder.is_dir():
        raise UserError(f"--coco-dir {folder}: no such folder")
    candidates = [folder / "annotations" / f"instances_{name}{year}.json" for year in ("", "2017", "2014")]
    ann_file = next((path for path in candidates if path.is_file()), None)
    if ann_file is None:
        raise UserError(f"--coco-dir {folder}: annotations/instances_{name}.json is missing; expected are {LAYOUT}")
    data = _read_annotations(ann_file)
    image_dir = _find_images(folder, name, ann_file, [image["file_name"] for image in data["images"]])
    classes = tuple(category["name"] for category in data["categories"])
    masks = all(annotation.get("segmentation") for annotation in data["annotations"])
    return CocoSplit(ann_file.resolve(), image_dir.resolve(), classes, masks)


def _read_annotations(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file ({error})") from error
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(data, dict) or key not in data]
    if missing:
        raise UserError(f"{path}: not a COCO annotation file: {', '.join(missing)} missing")
    names = Counter(category["name"] for category in data["categories"])
    twice = [name for name, count in names.items() if count > 1]
    if twice or not names or not data["images"]:
        problem = f"category {twice[0]!r} is listed twice" if twice else "no categories" if not names else "no images"
        raise UserError(f"{path}: {problem}")
    _check_references(path, data)
    return data


def _check_references(path: Path, data: dict[str, Any]) -> None:
    images = {image["id"] for image in data["images"]}
    categories = {category["id"] for category in data["categories"]}
    for annotation in data["annotations"]:
        for key, known in (("image_id", images), ("category_id", categories)):
            if annotation.get(key) not in known:
                raise UserError(f"{path}: annotation {annotation.get('id')} has unknown {key} {annotation.get(key)}")
        if len(annotation.get("bbox") or ()) != 4:
            raise UserError(f"{path}: annotation {annotation.get('id')} has no bbox [x, y, width, height]")


def _find_images(folder: Path, name: str, ann_file: Path, file_names: list[str]) -> Path:
    places = [f"{name}2017", name, f"images/{name}2017", f"images/{name}", "images", f"{name}2014", "."]
    best, fewest = folder, len(file_names) + 1
    for place in places:
        if (folder / place).is_dir():
            present = _files_below(folder / place, file_names)
            missing = [file for file in file_names if file not in present]
            if not missing:
                return folder / place
            if len(missing) < fewest:
                best, fewest, first = folder / place, len(missing), missing[0]
    raise UserError(
        f"{ann_file}: {fewest} of its {len(file_names)} images are not in {best} (first: {first}); "
        f"expected are {LAYOUT}"
    )


def _files_below(folder: Path, file_names: list[str]) -> set[str]:
    """Those of ``file_names`` that exist; each sub-folder is listed once, which is fast for 100,000 images."""
    listings = {parent: set(os.listdir(folder / parent)) for parent in {os.path.dirname(f) for f in file_names}
                if (folder / parent).is_dir()}  # fmt: skip
    return {f for f in file_names if os.path.basename(f) in listings.get(os.path.dirname(f), ())}


def _check_masks(config: dict[str, Any], splits: dict[str, CocoSplit]) -> None:
    needed = bool(config["model"].get("roi_head", {}).get("mask_head"))
    for split in splits.values():
        if needed and not split.with_masks:
            raise UserError(
                f"{split.ann_file}: some annotations have no segmentation, and this config trains masks: "
                "take a faster_rcnn or cascade_rcnn config, or add the masks"
            )


def _palette(count: int) -> list[tuple[int, int, int]]:
    """Distinct RGB colours, by steps of the golden angle in hue."""
    hues = [(0.58 + 0.381966 * i) % 1 for i in range(count)]
    return [tuple(round(255 * v) for v in colorsys.hsv_to_rgb(h, 0.75, 0.95)) for h in hues]  # type: ignore[misc]
