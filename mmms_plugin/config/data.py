"""The user's own data: every data set of a config reads them, and takes its classes from them.

1. ``--coco-dir``, ``--train-ann``: a detector reads COCO-style annotations, a classifier for several labels as well.
2. ``--voc-dir``: a segmentation model reads pictures and masks.
3. ``--image-dir``: a classifier reads folders of pictures.
4. Without these, the annotation files that a config names itself are checked as those of ``--coco-dir``.

What has to be mended or listed is written to the work folder; the user's files stay as they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

from mmms_plugin.coco.findings import Finding, Findings, errors_first, refuse_errors
from mmms_plugin.coco.mending import object_area
from mmms_plugin.config.edit import coco_metrics, dicts_in, leaf_datasets, set_num_classes
from mmms_plugin.data.coco_file import CocoFile, check_objects, read_coco
from mmms_plugin.data.coco_pictures import place_pictures
from mmms_plugin.data.coco_set import WITHOUT_MASKS, read_splits, write_mended
from mmms_plugin.data.image_folder import read_folders
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.data.seg_layouts import listed_pairs, pictures_by_name
from mmms_plugin.data.seg_set import VOC_CLASSES, SegData, check_labels, check_pairs, read_seg_set, write_pairs
from mmms_plugin.errors import UserError
from mmms_plugin.files import write_text
from mmms_plugin.processes import shell_line
from mmms_plugin.report.drawing import distinct_colours

MENDED = "annotations"  # folder in the work folder
MASKS = "SegmentationClass"
SIZES = ((32**2, "S"), (96**2, "M"), (float("inf"), "L"))  # COCO's, by the area of the object


def use_coco_dir(config: dict[str, Any], own: OwnData) -> list[str]:
    """Point all data sets, metrics and class counts of a detector's ``config`` at the user's data; return remarks.

    Annotation files that need mending are written, mended, to the work folder; the user's files stay as they are.

    Raises: UserError if the data are not found, cannot be trained on or do not fit the config.
    """
    splits = read_splits(own, masks=uses_masks(config))
    findings = errors_first(coco.findings for coco in splits.values())
    refuse_errors(findings, check_command(own))
    files = write_mended(splits, own.work_dir / MENDED)
    classes = next(iter(splits.values())).classes
    for split, dataset in _datasets(config, splits, own):
        dataset.update(data_root="", ann_file=str(files[split]), data_prefix=dict(img=_folder(splits[split])))
        dataset["metainfo"] = dict(classes=classes, palette=distinct_colours(len(classes)))
    for metric in coco_metrics(config):
        metric["ann_file"] = str(files[own.split])
    set_num_classes(config["model"], len(classes))
    remarks = [f"{own.where}: {len(classes)} class{'' if len(classes) == 1 else 'es'}: {', '.join(classes)}"]
    remarks += [
        f"{split}: {len(coco.images)} images, {len(coco.content['annotations'])} objects, {files[split]}"
        for split, coco in splits.items()
    ]
    return remarks + _remarks(findings)


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
    remarks += [f"{split}: {len(pairs)} pictures with masks" for split, pairs in data.layout.splits.items()]
    used = {key: split for key, split in _loaders(own) if split in data.layout.splits and config.get(key)}
    plain_voc = data.layout.voc and not own.val_split and own.split != "train" and not own.binary_masks
    if plain_voc:
        remarks += _use_voc_lists(config, own, data, used, command)
    else:
        _use_pairs(config, own, data, used)
    remarks += _keep_label_0(config)
    set_num_classes(config["model"], len(data.classes))
    return remarks + _remarks(data.all_findings)


def _use_voc_lists(
    config: dict[str, Any], own: OwnData, data: SegData, used: dict[str, str], command: str
) -> list[str]:
    """VOC's own layout: the config's data sets keep their lists, in another folder."""
    root = data.layout.root.resolve()
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
        listing = write_pairs(data.layout.splits[split], own.work_dir / MENDED / f"{split}_pairs.txt")
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
    return dict(classes=classes, palette=_voc_colours(len(classes)))


def _voc_colours(count: int) -> list[list[int]]:
    """VOC's own colours: the bits of the label spread over red, green and blue."""
    return [
        [sum((label >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)]
        for label in range(count)
    ]


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
    findings = errors_first(coco.findings for coco in splits.values())
    refuse_errors(findings, check_command(own))
    classes = next(iter(splits.values())).classes
    for split, dataset in _datasets(config, splits, own):
        listing = own.work_dir / MENDED / f"labels_{split}.json"
        write_text(listing, json.dumps(labels_of(splits[split])))
        dataset.update(data_root="", ann_file=str(listing.resolve()), data_prefix=_folder(splits[split]))
    set_num_classes(config["model"], len(classes))
    remarks = [f"{own.where}: {_listed(classes)}"]
    return remarks + _remarks(findings)


def labels_of(coco: CocoFile) -> dict[str, Any]:
    """Labels in mmengine's form: for each picture its classes, and the object sizes (``S``, ``M``, ``L``) of each."""
    numbers = {category["id"]: i for i, category in enumerate(coco.content["categories"])}
    sizes: dict[int, dict[int, set[str]]] = {image["id"]: {} for image in coco.images}
    for record in coco.objects:
        size = next(name for limit, name in SIZES if object_area(record) < limit)
        sizes[record["image_id"]].setdefault(numbers[record["category_id"]], set()).add(size)
    pictures = []
    for image in coco.images:
        classes = sorted(sizes[image["id"]].items())
        labels, of_sizes = [label for label, _ in classes], ["".join(sorted(names)) for _, names in classes]
        pictures.append(dict(img_path=image["file_name"], gt_label=labels, label_sizes=of_sizes))
    return dict(metainfo=dict(classes=list(coco.classes)), data_list=pictures)


def _listed(classes: tuple[str, ...]) -> str:
    shown = ", ".join(classes[:20])
    return f"{len(classes)} classes: {shown}{', ...' if len(classes) > 20 else ''}"


def check_config_data(config: dict[str, Any], splits: tuple[str, ...], work_dir: Path) -> list[str]:
    """Check every COCO annotation file of a config's data sets; return remarks.

    File names of pictures are followed wherever they lead, as the user's own config says so. Mended files are written
    to the work folder, and the config points to them.

    Raises: UserError if the data cannot be trained on.
    """
    severities = {} if uses_masks(config) else WITHOUT_MASKS
    files: dict[Path, CocoFile] = {}
    for split in splits:
        for dataset in leaf_datasets(config.get(f"{split}_dataloader")):
            path = _annotations(dataset)
            if path is not None and path not in files:
                files[path] = _read_annotations(dataset, path, severities)
    findings = errors_first(coco.findings for coco in files.values())
    refuse_errors(findings, "mmms check-data --ann FILE")
    mended = {
        path: coco.write(work_dir / MENDED / f"{number}_{path.name}")
        for number, (path, coco) in enumerate(files.items())
        if coco.mended
    }
    for split in splits:
        for dataset in leaf_datasets(config.get(f"{split}_dataloader")):
            path = _annotations(dataset)
            if path in mended:
                folder = _folder(files[path])
                dataset.update(data_root="", ann_file=str(mended[path]), data_prefix=dict(img=folder))
    for metric in coco_metrics(config):
        path = Path(metric.get("ann_file") or "").resolve()
        if path in mended:
            metric["ann_file"] = str(mended[path])
    return _remarks(findings)


def _annotations(dataset: dict[str, Any]) -> Path | None:
    path = Path(dataset.get("data_root") or "", dataset.get("ann_file") or "")
    if path.suffix != ".json" or str(dataset.get("type")).rpartition(".")[2] != "CocoDataset":
        return None  # other data sets have files of their own form
    return path.resolve()


def _read_annotations(dataset: dict[str, Any], path: Path, severities: dict[str, str]) -> CocoFile:
    coco = read_coco(path, "ann_file", severities)
    prefix = dataset.get("data_prefix") or {}
    place_pictures(
        coco,
        [Path(dataset.get("data_root") or "", prefix.get("img") or prefix.get("img_path") or "")],
        follow_outside=True,
    )
    check_objects(coco)
    return coco


def _loaders(own: OwnData) -> Iterator[tuple[str, str]]:
    """Key of each dataloader and the split that it reads."""
    yield from (("train_dataloader", "train"), ("val_dataloader", own.split), ("test_dataloader", own.split))


def _datasets(config: dict[str, Any], splits: Container[str], own: OwnData) -> list[tuple[str, dict[str, Any]]]:
    """Split and config of every data set that is used."""
    loaders = [(key, split) for key, split in _loaders(own) if split in splits]
    return [(split, dataset) for key, split in loaders for dataset in leaf_datasets(config.get(key))]


def _folder(coco: CocoFile) -> str:
    """Where the pictures of an annotation file were found, as OpenMMLab's data sets take it."""
    return f"{(coco.image_dir or Path()).resolve()}{os.sep}"


def _remarks(findings: Iterable[Finding]) -> list[str]:
    return [f"{finding.file}: {finding.severity}: {finding.text}" for finding in findings]
