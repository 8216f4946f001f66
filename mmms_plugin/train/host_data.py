"""What the data sets of a config hold once a host has built them: objects to learn from, masks of the config's classes.

The data of ``--coco-dir`` and the like are checked before that, and so are the COCO files of a config (`config.data`).
Pascal VOC's XML files, LVIS and all others are read by their own hosts alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset

from mmms_plugin.coco.findings import Findings, refuse_errors
from mmms_plugin.data.own_data import VOID, OwnData
from mmms_plugin.data.seg_layouts import Pair
from mmms_plugin.data.seg_set import check_pairs
from mmms_plugin.errors import UserError, counted

LOADERS = ("LoadImageFromFile", "LoadAnnotations")  # whose pictures and masks are those of `check_pairs`


def check_built(dataset: Any, split: str, void: set[int], max_pixels: int) -> None:
    """Check a data set for training or validation.

    Args:
        dataset: as the host built it, perhaps with others inside.
        split: "train" or "val", for messages.
        void: labels of masks that the model ignores, besides 255.
        max_pixels: largest picture or mask that is decoded.

    Raises:
        UserError: nothing can be learned or measured, or pictures and masks do not fit.
    """
    parts = [part for part in _parts(dataset) if isinstance(part, BaseDataset) and len(part)]
    detection = [part for part in parts if _is_detection(part.get_data_info(0))]
    if detection and len(detection) == len(parts):
        _check_objects(detection, split)
    for part in detection:
        _check_presence(part, split)
    if split == "train" and parts and all("gt_label" in part.get_data_info(0) for part in parts):
        _check_labels(parts, split)
    for part in parts:
        if hasattr(part, "reduce_zero_label") and part.get_data_info(0).get("seg_map_path"):  # mmseg's
            _check_masks(part, split, void, max_pixels)


def _parts(dataset: Any) -> Iterator[Any]:
    """The data sets inside wrappers such as ConcatDataset and RepeatDataset."""
    inner = getattr(dataset, "datasets", None) or [getattr(dataset, "dataset", None)]
    for part in inner:
        if part is not None:
            yield from _parts(part)
    if inner == [None]:
        yield dataset


def _infos(part: BaseDataset) -> Iterator[dict[str, Any]]:
    return (part.get_data_info(i) for i in range(len(part)))


def _is_detection(info: dict[str, Any]) -> bool:
    instances = info.get("instances")
    return isinstance(instances, list) and all("bbox" in instance for instance in instances)


def _check_objects(parts: list[BaseDataset], split: str) -> None:
    objects = ignored = 0
    for info in (info for part in parts for info in _infos(part)):
        sides = info.get("width") or float("inf"), info.get("height") or float("inf")
        for instance in info["instances"]:
            x1, y1, x2, y2 = instance["bbox"]
            solid = x2 - x1 >= 1 and y2 - y1 >= 1 and x1 < sides[0] and y1 < sides[1] and x2 > 0 and y2 > 0
            if solid and not instance.get("ignore_flag"):
                return
            objects, ignored = objects + 1, ignored + bool(instance.get("ignore_flag"))
    pictures = sum(map(len, parts))
    why = f", of which {ignored} are difficult, crowds or ignored, and the others are too small or outside" * bool(
        objects
    )
    raise UserError(
        f"{split} data: no usable object in {pictures} pictures: {objects} objects of the config's classes{why}"
    )


def _check_presence(part: BaseDataset, split: str) -> None:
    if getattr(part, "backend_args", None):  # not on a disk
        return
    missing = [path for info in _infos(part) if not os.path.isfile(path := str(info.get("img_path")))]
    if missing:
        raise UserError(f"{split} data: pictures that are missing: {len(missing)} of {len(part)} (first: {missing[0]})")


def _check_labels(parts: list[BaseDataset], split: str) -> None:
    labels = (np.asarray(info["gt_label"]).tolist() for part in parts for info in _infos(part))
    first = next(labels)
    if (first == [] or isinstance(first, int)) and all(label == first for label in labels):
        which = "no label" if first == [] else f"label {first}"
        raise UserError(f"{split} data: all {sum(map(len, parts))} pictures have {which}: nothing to learn")


def _check_masks(part: Any, split: str, void: set[int], max_pixels: int) -> None:
    steps = {type(step).__name__ for step in part.pipeline.transforms}
    if not steps.issuperset(LOADERS) or getattr(part, "backend_args", None):
        return
    infos = list(_infos(part))
    paths = [(Path(info["img_path"]), Path(info["seg_map_path"])) for info in infos]
    pairs = [Pair(image, mask if os.path.isfile(mask) else None) for image, mask in paths]
    findings = Findings(f"{split} data", {} if split == "train" else {"mask-one-label": "warning"})
    labels, _ = check_pairs(pairs, findings, split, OwnData("", None, max_pixels=max_pixels))
    void = void | {VOID, part.ignore_index}
    read = {label: _read_as(label, infos[0]) for label in labels.pixels}
    classes = part.metainfo.get("classes") or ()
    for label, new in read.items():
        if classes and new not in void and not 0 <= new < len(classes):
            where = f"in {counted(labels.masks[label], 'mask')} ({labels.first[label]})"
            as_other = f", read as {new}" * (new != label)
            findings.add("label-outside", f"label {label}{as_other} {where}, allowed are 0 to {len(classes) - 1}")
    if read and len(set(read.values()) - void) < 2:
        findings.add("mask-one-label", ", ".join(f"label {label}" for label in sorted(read)))
    refuse_errors(findings)


def _read_as(label: int, info: dict[str, Any]) -> int:
    """The label that mmseg's LoadAnnotations makes of one in a mask."""
    if info.get("reduce_zero_label"):
        label = VOID if label in (0, VOID) else label - 1
    return (info.get("label_map") or {}).get(label, label)
