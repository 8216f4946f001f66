"""``--voc-dir``: every data set of a segmentation config reads the user's own pictures and masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmms_plugin.coco.findings import Findings, refuse_errors
from mmms_plugin.config.coco_dir import MENDED
from mmms_plugin.config.edit import dicts_in, leaf_datasets, set_num_classes
from mmms_plugin.data.masks import check_labels, check_pairs
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.data.seg_layouts import listed_pairs, pictures_by_name
from mmms_plugin.data.seg_set import VOC_CLASSES, SegData, read_seg_set, write_pairs
from mmms_plugin.errors import UserError
from mmms_plugin.processes import shell_line

MASKS = "SegmentationClass"


def use_voc_dir(config: dict[str, Any], own: OwnData) -> list[str]:
    """Point all data sets and class counts of a segmenter's ``config`` at the user's folder; return remarks.

    Classes are the lines of ``labels.txt`` in the folder (background first), else VOC's 21 in VOC's layout, else those
    that the masks show.
    Raises: UserError if the data are not found, cannot be trained on or do not fit the config.
    """
    data = read_seg_set(own, ("train", "val") if own.training else (own.split,))
    command = f"mmms check-data {shell_line([str(own.folder)])}"
    refuse_errors(data.all_findings, command)
    remarks = [f"{own.where}: {len(data.classes)} classes: {', '.join(data.classes)}", *data.remarks]
    remarks += [f"{split}: {len(pairs)} pictures with masks" for split, pairs in data.found.splits.items()]
    loaders = {"train_dataloader": "train", "val_dataloader": own.split, "test_dataloader": own.split}
    used = {key: split for key, split in loaders.items() if split in data.found.splits and config.get(key)}
    plain_voc = data.found.voc and not own.val_split and own.split != "train" and not own.binary_masks
    if plain_voc:
        remarks += _use_voc_lists(config, own, data, used, command)
    else:
        _use_pairs(config, own, data, used)
    remarks += _keep_label_0(config)
    set_num_classes(config["model"], len(data.classes))
    return remarks + [f"{finding.file}: {finding.severity}: {finding.text}" for finding in data.all_findings]


def _use_voc_lists(
    config: dict[str, Any], own: OwnData, data: SegData, used: dict[str, str], command: str
) -> list[str]:
    """VOC's own layout: the config's data sets keep their lists, in another folder."""
    root = data.found.root.resolve()
    remarks = _drop_missing_augmentation(config, own, data.classes, command) if own.training else []
    for loader, split in used.items():
        for dataset in leaf_datasets(config[loader]):
            dataset["data_root"] = str(root)
            if split == "test":
                dataset["ann_file"] = "ImageSets/Segmentation/test.txt"
            if data.classes != VOC_CLASSES:
                # PascalVOCDataset knows VOC's own names only; its base class reads the same files
                dataset.update(type="BaseSegDataset", img_suffix=".jpg", seg_map_suffix=".png")
                dataset["metainfo"] = _metainfo(data.classes)
    return remarks


def _use_pairs(config: dict[str, Any], own: OwnData, data: SegData, used: dict[str, str]) -> None:
    """Any other layout: lists of paths in the work folder, and a data set that reads those."""
    for loader, split in used.items():
        listing = write_pairs(data.found.splits[split], own.work_dir / MENDED / f"{split}_pairs.txt")
        for wrapper in dicts_in(config[loader]):
            if isinstance(wrapper.get("datasets"), list):
                wrapper["datasets"] = wrapper["datasets"][:1]
        for dataset in leaf_datasets(config[loader]):
            kept: dict[str, Any] = {key: dataset[key] for key in ("pipeline", "test_mode") if key in dataset}
            dataset.clear()
            dataset.update(kept, type="mmms_plugin.PairedSegDataset", ann_file=str(listing))
            dataset["metainfo"] = _metainfo(data.classes)
            if own.binary_masks:
                dataset["void_is_class"] = 1


def _keep_label_0(config: dict[str, Any]) -> list[str]:
    """ADE20K's configs take label 0 for void; the user's background is class 0."""
    shifted = [
        part
        for split in ("train", "val", "test")
        for part in dicts_in(config.get(f"{split}_dataloader"))
        if part.get("reduce_zero_label")
    ]
    for part in shifted:
        part["reduce_zero_label"] = False
    return ["reduce_zero_label is off: label 0 is the background class"] if shifted else []


def _drop_missing_augmentation(
    config: dict[str, Any], own: OwnData, classes: tuple[str, ...], command: str
) -> list[str]:
    """Take the data sets of SBD's extra masks out of a ConcatDataset where the folder has not all of them."""
    remarks = []
    for wrapper in dicts_in(config.get("train_dataloader")):
        parts = wrapper.get("datasets")
        if not isinstance(parts, list):
            continue
        lacks = [_lacks(part, own, classes, command) for part in parts]
        kept = [part for part, lack in zip(parts, lacks, strict=True) if not lack]
        if kept and len(kept) < len(parts):
            wrapper["datasets"] = kept
            listed = "; ".join(lack for lack in lacks if lack)
            remarks.append(
                f"{own.where}: {listed}: training on VOC's own train split alone, in as many iterations as with both"
            )
    return remarks


def _lacks(dataset: dict[str, Any], own: OwnData, classes: tuple[str, ...], command: str) -> str:
    """What a data set of VOC's layout has not got in the folder, in words; empty if it is all there."""
    root = (own.folder or Path()).resolve()
    masks, listing = dataset.get("data_prefix", {}).get("seg_map_path", ""), dataset.get("ann_file", "")
    if masks == MASKS:  # checked already
        return ""
    if not (
        (root / masks).is_dir() and (root / listing).is_file() and (root / listing).read_text(encoding="utf-8").split()
    ):
        return f"no {masks}/ with {listing} (the SBD masks)"
    try:
        pairs = listed_pairs(own, root / listing, pictures_by_name(root / "JPEGImages"), pictures_by_name(root / masks))
    except UserError as error:
        return f"{error} (the SBD masks)"
    without = [pair.image.stem for pair in pairs if pair.mask is None]
    if without:
        counted = f"{len(without)} of {len(pairs)} have no {masks}/NAME.png (first: {without[0]})"
        return f"of the images of {listing} (the SBD masks) {counted}"
    findings = Findings(str(root / masks))
    check_labels(check_pairs(pairs, findings, masks)[0], classes, findings)
    refuse_errors(findings, command)
    return ""


def _metainfo(classes: tuple[str, ...]) -> dict[str, Any]:
    return dict(classes=classes, palette=_palette(len(classes)))


def _palette(count: int) -> list[list[int]]:
    """VOC's own colours: the bits of the label spread over red, green and blue."""
    return [
        [sum((label >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)]
        for label in range(count)
    ]
