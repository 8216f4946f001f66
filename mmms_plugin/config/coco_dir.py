"""``--coco-dir``: every data set of a detection config reads one's own COCO-style annotations."""

from __future__ import annotations

import colorsys
import os
from pathlib import Path
from typing import Any

from mmms_plugin.coco.findings import refuse_errors
from mmms_plugin.config.edit import coco_metrics, dicts_in, leaf_datasets, set_num_classes
from mmms_plugin.data.coco_file import CocoFile
from mmms_plugin.data.coco_set import all_findings, read_splits, write_mended
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.processes import shell_line

MENDED = "annotations"  # folder in the work folder


def use_coco_dir(config: dict[str, Any], own: OwnData) -> list[str]:
    """Point all data sets, metrics and class counts of a detector's ``config`` at the user's data; return remarks.

    Annotation files that need mending are written, mended, to the work folder; the user's files stay as they are.

    Raises: UserError if the data are not found, cannot be trained on or do not fit the config.
    """
    splits = read_splits(own, masks=uses_masks(config))
    findings = list(all_findings(splits))
    refuse_errors(findings, check_command(own))
    files = write_mended(splits, own.work_dir / MENDED)
    evaluated = own.split
    classes = next(iter(splits.values())).classes
    for loader, split in (("train_dataloader", "train"), ("val_dataloader", evaluated), ("test_dataloader", evaluated)):
        for dataset in leaf_datasets(config.get(loader)) if split in splits else ():
            point_at(dataset, files[split], splits[split])
            dataset["metainfo"] = dict(classes=classes, palette=_palette(len(classes)))
    for metric in coco_metrics(config):
        metric["ann_file"] = str(files[evaluated])
    set_num_classes(config["model"], len(classes))
    remarks = [f"{own.where}: {len(classes)} class{'' if len(classes) == 1 else 'es'}: {', '.join(classes)}"]
    remarks += [
        f"{split}: {len(coco.images)} images, {len(coco.content['annotations'])} objects, {files[split]}"
        for split, coco in splits.items()
    ]
    return remarks + [f"{finding.file}: {finding.severity}: {finding.text}" for finding in findings]


def point_at(dataset: dict[str, Any], ann_file: Path, coco: CocoFile) -> None:
    """Let a data set's config read an annotation file, its pictures where they were found."""
    dataset.update(data_root="", ann_file=str(ann_file))
    dataset["data_prefix"] = dict(img=f"{(coco.image_dir or Path()).resolve()}{os.sep}")


def uses_masks(config: dict[str, Any]) -> bool:
    """Whether a detector's config trains or evaluates masks."""
    loaders = [config.get(f"{split}_dataloader") for split in ("train", "val", "test")]
    return any(part.get("with_mask") for part in dicts_in(loaders)) or any(
        "segm" in metric.get("metric", ()) for metric in coco_metrics(config)
    )


def check_command(own: OwnData) -> str:
    """The command that lists all problems of the same data."""
    if own.folder is not None:
        return f"mmms check-data {shell_line([str(own.folder)])}"
    return f"mmms check-data --ann {shell_line([str(own.train_ann or own.val_ann)])}"


def _palette(count: int) -> list[tuple[int, int, int]]:
    """Distinct RGB colours, by steps of the golden angle in hue."""
    hues = [(0.58 + 0.381966 * i) % 1 for i in range(count)]
    return [tuple(round(255 * v) for v in colorsys.hsv_to_rgb(h, 0.75, 0.95)) for h in hues]  # type: ignore[misc]
