"""``--image-dir``, and ``--coco-dir`` for several labels: a classification config reads one's own pictures."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mmms_plugin.coco.findings import refuse_errors
from mmms_plugin.config.coco_dir import MENDED, check_command
from mmms_plugin.config.edit import dicts_in, leaf_datasets, set_num_classes
from mmms_plugin.data.coco_file import CocoFile
from mmms_plugin.data.coco_set import all_findings, read_splits
from mmms_plugin.data.image_folder import ImageFolder, read_folders
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.files import write_text

MULTI_LABEL = "MultiLabelDataset"
SIZES = ((32**2, "S"), (96**2, "M"), (float("inf"), "L"))  # COCO's, by the area of the object


def use_image_dir(config: dict[str, Any], own: OwnData) -> list[str]:
    """Point all data sets and class counts of a classifier's ``config`` at an ImageFolder; return remarks.

    Raises: UserError if the folder is not of that layout.
    """
    splits = read_folders(own)
    for split, dataset in _datasets(config, splits, own):
        listing = write_text(own.work_dir / MENDED / f"{split}.txt", splits[split].lines())
        dataset.update(
            type="mmpretrain.CustomDataset", data_root="", ann_file=str(listing.resolve()),
            data_prefix=f"{splits[split].root}{os.sep}", metainfo=dict(classes=splits[split].classes),
        )  # fmt: skip
        dataset.pop("split", None)  # of mmpretrain's ImageNet
    classes = next(iter(splits.values())).classes
    set_num_classes(config["model"], len(classes))
    counts = ", ".join(f"{name}: {len(split.pictures)} pictures" for name, split in splits.items())
    return [f"{own.where}: {_listed(classes)}; {counts}"]


def use_coco_labels(config: dict[str, Any], own: OwnData) -> list[str]:
    """Let the data sets of a ``config`` for several labels read the classes of COCO instances; return remarks.

    Label files are written to the work folder; they also say of which sizes the objects of each class are.

    Raises: UserError if the data cannot be used.
    """
    splits = read_splits(own, masks=False)
    findings = list(all_findings(splits))
    refuse_errors(findings, check_command(own))
    classes = next(iter(splits.values())).classes
    for split, dataset in _datasets(config, splits, own):
        listing = own.work_dir / MENDED / f"labels_{split}.json"
        write_text(listing, json.dumps(labels_of(splits[split])))
        folder = (splits[split].image_dir or Path()).resolve()
        dataset.update(data_root="", ann_file=str(listing.resolve()), data_prefix=f"{folder}{os.sep}")
    set_num_classes(config["model"], len(classes))
    remarks = [f"{own.where}: {_listed(classes)}"]
    return remarks + [f"{finding.file}: {finding.severity}: {finding.text}" for finding in findings]


def labels_of(coco: CocoFile) -> dict[str, Any]:
    """Labels in mmengine's form: for each picture its classes, and the object sizes (``S``, ``M``, ``L``) of each."""
    numbers = {category["id"]: i for i, category in enumerate(coco.content["categories"])}
    sizes: dict[int, dict[int, set[str]]] = {image["id"]: {} for image in coco.images}
    for record in coco.objects:
        area = record.get("area") or record["bbox"][2] * record["bbox"][3]
        size = next(name for limit, name in SIZES if area < limit)
        sizes[record["image_id"]].setdefault(numbers[record["category_id"]], set()).add(size)
    pictures = []
    for image in coco.images:
        found = sorted(sizes[image["id"]].items())
        labels, of_sizes = [label for label, _ in found], ["".join(sorted(names)) for _, names in found]
        pictures.append(dict(img_path=image["file_name"], gt_label=labels, label_sizes=of_sizes))
    return dict(metainfo=dict(classes=list(coco.classes)), data_list=pictures)


def is_multi_label(config: dict[str, Any]) -> bool:
    """Whether a classification config is for pictures with several labels."""
    loaders = [config.get(f"{split}_dataloader") for split in ("train", "val", "test")]
    return any(str(part.get("type")).endswith(MULTI_LABEL) for part in dicts_in(loaders))


def _datasets(
    config: dict[str, Any], splits: dict[str, ImageFolder] | dict[str, CocoFile], own: OwnData
) -> list[tuple[str, dict[str, Any]]]:
    """Split and config of every data set that is used."""
    loaders = (("train_dataloader", "train"), ("val_dataloader", own.split), ("test_dataloader", own.split))
    return [(split, data) for key, split in loaders if split in splits for data in leaf_datasets(config.get(key))]


def _listed(classes: tuple[str, ...]) -> str:
    shown = ", ".join(classes[:20])
    return f"{len(classes)} classes: {shown}{', ...' if len(classes) > 20 else ''}"
