"""The user's own data in a config: all data sets read them and take their classes from them.

1. ``--coco-dir``, ``--train-ann``: COCO-style annotations, for detectors and for classifiers of several labels.
2. ``--voc-dir``: pictures and masks, for segmentation models.
3. ``--image-dir``: folders of pictures, for classifiers; for those of several labels, pictures and ``_classes.csv``.
4. ``--data``: any of these, and YOLO's, Pascal VOC's and labelme's annotations; the layout is found.
5. Without these options, the annotation files that a config names are checked in the same way.

Mended annotations and lists of files are written to the work folder; the user's files do not change.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmms_plugin.coco.findings import Finding, Findings, errors_first, refuse_errors
from mmms_plugin.coco.mending import object_area
from mmms_plugin.coco.picture_files import MAX_PIXELS
from mmms_plugin.coco.text_files import lines_of
from mmms_plugin.config.edit import (
    class_name,
    coco_metrics,
    dicts_in,
    drop_doubles,
    evaluators,
    leaf_datasets,
    loading_files,
    set_num_classes,
)
from mmms_plugin.data.coco_file import CocoFile, check_names, check_objects, read_coco
from mmms_plugin.data.coco_pictures import place_pictures
from mmms_plugin.data.coco_set import WITHOUT_MASKS, read_splits, write_mended
from mmms_plugin.data.coco_usable import note_usable
from mmms_plugin.data.image_folder import ImageFolder, read_folders
from mmms_plugin.data.label_table import LabelTable, note_labels, read_tables
from mmms_plugin.data.layouts import CLASSES, NOUNS, SEGMENTATION, TABLE
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.data.seg_layouts import listed_pairs, pictures_by_name
from mmms_plugin.data.seg_set import VOC_CLASSES, SegData, check_labels, check_pairs, read_seg_set, write_pairs
from mmms_plugin.errors import UserError, counted
from mmms_plugin.files import write_text
from mmms_plugin.processes import shell_line
from mmms_plugin.report.drawing import distinct_colours

MENDED = "annotations"  # folder in the work folder
MIXING = {"source_ratio", "dataset_ratio", "dataset_size"}  # arguments of samplers for several data sets
TOP_K = ("Accuracy", "ClassMetric")  # metrics of mmpretrain and the plugin that count the k best classes
WITHOUT_OBJECTS = {"no-objects": "warning", "no-usable-objects": "warning"}  # of one of several files of a split
SIZES = ((32**2, "S"), (96**2, "M"), (float("inf"), "L"))  # COCO's, by the area of the object


def use_coco_dir(config: dict[str, Any], own: OwnData) -> list[str]:
    """Point all data sets, metrics and class counts of a detector's ``config`` at the user's data; return remarks.

    Raises:
        UserError: the data are not found, cannot be trained on or do not fit the config.
    """
    splits = read_splits(own, masks=uses_masks(config))
    datasets, joined = _datasets(config, splits, own)
    for split, coco in splits.items():
        if own.training or split == own.split:  # the others' pictures were not looked at
            filtered = [dataset for of_split, dataset in datasets if own.training and split == of_split == "train"]
            note_usable(coco, min_size=min(map(_min_size, filtered), default=0))
    findings = _refuse_bad(splits, own)
    files = write_mended(splits, own.work_dir / MENDED)
    classes = next(iter(splits.values())).classes
    for split, dataset in datasets:
        dataset.update(data_root="", ann_file=str(files[split]), data_prefix=dict(img=_folder(splits[split])))
        dataset["metainfo"] = dict(classes=classes, palette=distinct_colours(len(classes)))
    for metric in coco_metrics(config):
        metric["ann_file"] = str(files[own.split])
    set_num_classes(config["model"], len(classes))
    counts = {split: len(coco.images) for split, coco in splits.items()}
    layout = next(iter(splits.values())).format
    remarks = [_headline(own, layout, counts, f"{counted(len(classes), 'class')}: {', '.join(classes)}")]
    remarks += [f"{split}: {coco.counts}, {files[split]}" for split, coco in splits.items()]
    if own.training:
        filters = [_filter(dataset) for split, dataset in datasets if split == "train"]
        remarks += _left_out(splits["train"], filters)
    return remarks + joined + _remarks(findings)


def _headline(own: OwnData, layout: str, counts: Mapping[str, int], classes: str) -> str:
    """The first remark: the classes, and what was found where any layout may be given."""
    if not own.any_layout:
        return f"{own.where}: {classes}"
    pictures = ", ".join(f"{split} {counted(count, 'picture')}" for split, count in counts.items())
    return f"{own.where}: {layout}; {pictures}; {classes}"


def _left_out(coco: CocoFile, filters: Sequence[Mapping[str, Any]]) -> list[str]:
    """A remark on the pictures that mmdet's data sets leave out of training by their ``filter_cfg``."""
    min_size = min((part.get("min_size", 0) for part in filters), default=0)
    reasons = [f"a side below {min_size} px"] * bool(min_size)
    drawn = {image["id"] for image in coco.images}
    if filters and all(part.get("filter_empty_gt") for part in filters):
        reasons.insert(0, "no object")
        drawn = {record["image_id"] for record in coco.content["annotations"]}
    kept = [image for image in coco.images if image["id"] in drawn and min(image["width"], image["height"]) >= min_size]
    if len(kept) == len(coco.images):
        return []
    count = counted(len(coco.images) - len(kept), "picture")
    return [f"train: {count} left out by the config's filter_cfg: {' or '.join(reasons)}"]


def _filter(dataset: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a data set leaves out of training."""
    return {} if dataset.get("test_mode") else dataset.get("filter_cfg") or {}


def _min_size(dataset: dict[str, Any]) -> float:
    """The shortest side of the pictures that a data set keeps for training, in px."""
    return _filter(dataset).get("min_size", 0)


def _refuse_bad(splits: Mapping[str, CocoFile], own: OwnData) -> list[Finding]:
    """The findings of all splits; raises UserError if training on them is impossible."""
    findings = errors_first(coco.findings for coco in splits.values())
    words = [str(own.given)] if own.given is not None else ["--ann", str(own.train_ann or own.val_ann)]
    refuse_errors(findings, f"mmms check-data {shell_line(words)}")
    return findings


def uses_masks(config: dict[str, Any]) -> bool:
    """Whether a detector's config trains or evaluates masks."""
    loaders = [config.get(f"{split}_dataloader") for split in ("train", "val", "test")]
    return any(part.get("with_mask") for part in dicts_in(loaders)) or any(
        "segm" in metric.get("metric", ()) for metric in coco_metrics(config)
    )


def use_voc_dir(config: dict[str, Any], own: OwnData) -> list[str]:
    """Point all data sets and class counts of a segmenter's ``config`` at the user's folder; return remarks.

    Classes are the lines of ``labels.txt`` in the folder (background first), or else VOC's 21 in VOC's layout, or else
    the labels in the masks.

    Raises:
        UserError: the data are not found, cannot be trained on or do not fit the config.
    """
    data = read_seg_set(own, ("train", "val") if own.training else (own.split,))
    command = f"mmms check-data {shell_line([str(own.folder)])}"
    refuse_errors(data.all_findings, command)
    counts = {split: len(pairs) for split, pairs in data.layout.splits.items()}
    classes = f"{len(data.classes)} classes: {', '.join(data.classes)}"
    remarks = [_headline(own, NOUNS[SEGMENTATION], counts, classes), *data.remarks]
    remarks += [f"{split}: {counted(len(pairs), 'picture')} with masks" for split, pairs in data.layout.splits.items()]
    if data.layout.voc and not own.val_split and own.split != "train" and not own.relabel:
        remarks += _use_voc_lists(config, own, data, command)
    else:
        remarks += _use_pairs(config, own, data)
    loaders = [config.get(f"{split}_dataloader") for split in ("train", "val", "test")]
    if shifted := [part for part in dicts_in(loaders) if part.get("reduce_zero_label")]:
        for part in shifted:  # ADE20K's configs ignore label 0
            part["reduce_zero_label"] = False
        remarks.append("reduce_zero_label is off: label 0 is the background class")
    set_num_classes(config["model"], len(data.classes))
    return remarks + _remarks(data.all_findings)


def _use_voc_lists(config: dict[str, Any], own: OwnData, data: SegData, command: str) -> list[str]:
    """VOC's own layout: the config's data sets keep their lists, in another folder."""
    root = data.layout.root.resolve()
    remarks = _drop_missing_augmentation(config, own, data.classes, command) if own.training else []
    parts = ("ann_file", "data_prefix")
    datasets, joined = _datasets(
        config, data.layout.splits, own, after=lambda dataset: [dataset.get(part) for part in parts]
    )
    for split, dataset in datasets:
        dataset["data_root"] = str(root)
        if split == "test":
            dataset["ann_file"] = "ImageSets/Segmentation/test.txt"
        if data.classes != VOC_CLASSES:
            # PascalVOCDataset knows only VOC's names; its base class reads the same files
            dataset.update(type="BaseSegDataset", img_suffix=".jpg", seg_map_suffix=".png")
            dataset["metainfo"] = _metainfo(data.classes)
    return remarks + joined


def _use_pairs(config: dict[str, Any], own: OwnData, data: SegData) -> list[str]:
    """Any other layout: lists of paths in the work folder, and a data set that reads these."""
    datasets, joined = _datasets(config, data.layout.splits, own)
    for split, dataset in datasets:
        listing = write_pairs(data.layout.splits[split], own.work_dir / MENDED / f"{split}_pairs.txt")
        kept: dict[str, Any] = {key: dataset[key] for key in ("pipeline", "test_mode") if key in dataset}
        dataset.clear()
        dataset.update(kept, type="mmms_plugin.PairedSegDataset", ann_file=str(listing))
        dataset["metainfo"] = _metainfo(data.classes)
        if own.relabel:
            dataset["relabel"] = own.relabel
    return joined


def _drop_missing_augmentation(
    config: dict[str, Any], own: OwnData, classes: tuple[str, ...], command: str
) -> list[str]:
    """Drop the data sets of SBD's extra masks from a ConcatDataset if the folder does not have all of them."""
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
            remarks.append(f"{own.where}: {listed}: training on VOC's own train split alone")
    return remarks


def _lacks(dataset: dict[str, Any], own: OwnData, classes: tuple[str, ...], command: str) -> str:
    """What the folder lacks of a data set in VOC's layout, in words; '' if nothing."""
    root = (own.folder or Path()).resolve()
    masks, listing = dataset.get("data_prefix", {}).get("seg_map_path", ""), dataset.get("ann_file", "")
    if masks == "SegmentationClass":  # checked before
        return ""
    try:
        if not ((root / masks).is_dir() and (root / listing).is_file() and lines_of(root / listing, own.flag)):
            return f"no {masks}/ with {listing} (the SBD masks)"
        pairs = listed_pairs(own, root / listing, pictures_by_name(root / "JPEGImages"), pictures_by_name(root / masks))
    except UserError as error:
        return f"{error} (the SBD masks)"
    without = [pair.image.stem for pair in pairs if pair.mask is None]
    if without:
        counted = f"{len(without)} of {len(pairs)} have no {masks}/NAME.png (first: {without[0]})"
        return f"of the images of {listing} (the SBD masks) {counted}"
    findings = Findings(str(root / masks))
    check_labels(check_pairs(pairs, findings, masks, own)[0], classes, findings, own)
    refuse_errors(findings, command)
    return ""


def _metainfo(classes: tuple[str, ...]) -> dict[str, Any]:
    """Classes with VOC's own colours: the bits of the label, spread over red, green and blue."""
    palette = [
        [sum((label >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)]
        for label in range(len(classes))
    ]
    return dict(classes=classes, palette=palette)


def use_image_dir(config: dict[str, Any], own: OwnData) -> list[str]:
    """Point all data sets and class counts of a classifier's ``config`` at folders of pictures; return remarks.

    Raises:
        UserError: the folder does not have this layout.
    """
    splits = read_folders(own)
    findings = errors_first(split.findings for split in splits.values())
    refuse_errors(findings, f"mmms check-data {shell_line([str(own.folder)])}")
    datasets, joined = _datasets(config, splits, own)
    for split, dataset in datasets:
        listing = write_text(own.work_dir / MENDED / f"{split}.txt", splits[split].lines())
        dataset.update(
            type="mmpretrain.CustomDataset", data_root="", ann_file=str(listing.resolve()),
            data_prefix=f"{splits[split].root}{os.sep}", metainfo=dict(classes=splits[split].classes),
        )  # fmt: skip
        dataset.pop("split", None)  # an argument of mmpretrain's ImageNet
        dataset["pipeline"] = loading_files(dataset.get("pipeline") or [])
    classes = next(iter(splits.values())).classes
    set_num_classes(config["model"], len(classes))
    for metric in evaluators(config):
        if class_name(metric) in TOP_K and "topk" in metric:
            numbers = metric["topk"] if isinstance(metric["topk"], list | tuple) else [metric["topk"]]
            metric["topk"] = tuple(k for k in numbers if k <= len(classes)) or (1,)
    return [_with_counts(own, CLASSES, splits, classes), *joined, *_remarks(findings)]


def _with_counts(
    own: OwnData, kind: str, splits: Mapping[str, ImageFolder] | Mapping[str, LabelTable], classes: tuple[str, ...]
) -> str:
    """The first remark on a classifier's data."""
    if own.any_layout:
        pictures = {name: len(split.pictures) for name, split in splits.items()}
        return _headline(own, NOUNS[kind], pictures, _listed(classes))
    counts = ", ".join(f"{name}: {counted(len(split.pictures), 'picture')}" for name, split in splits.items())
    return f"{own.where}: {_listed(classes)}; {counts}"


def use_coco_labels(config: dict[str, Any], own: OwnData) -> list[str]:
    """Let the data sets of a ``config`` for several labels read the classes of COCO instances; return remarks.

    Label files, with the sizes of the objects of each class, are written to the work folder.

    Raises:
        UserError: the data cannot be used.
    """
    splits = read_splits(own, masks=False, boxes=False)
    labels = {split: labels_of(coco) for split, coco in splits.items()}
    for split, coco in splits.items():
        if own.training or split == own.split:
            note_labels(coco.findings, coco.classes, [picture["gt_label"] for picture in labels[split]["data_list"]])
    findings = _refuse_bad(splits, own)
    classes = next(iter(splits.values())).classes
    folders = {split: _folder(coco) for split, coco in splits.items()}
    joined = _use_labels(config, own, labels, folders, classes)
    pictures = {split: len(coco.images) for split, coco in splits.items()}
    headline = _headline(own, next(iter(splits.values())).format, pictures, _listed(classes))
    counts = [f"{split}: {coco.counts}" for split, coco in splits.items()]
    return [headline, *counts, *joined, *_remarks(findings)]


def use_label_tables(config: dict[str, Any], own: OwnData) -> list[str]:
    """Let the data sets of a ``config`` for several labels read tables of labels; return remarks.

    Raises:
        UserError: the data cannot be used.
    """
    splits = read_tables(own)
    findings = errors_first(split.findings for split in splits.values())
    refuse_errors(findings, f"mmms check-data {shell_line([str(own.folder)])}")
    classes = next(iter(splits.values())).classes
    labels = {name: split.labels() for name, split in splits.items()}
    folders = {name: f"{split.root.resolve()}{os.sep}" for name, split in splits.items()}
    joined = _use_labels(config, own, labels, folders, classes)
    return [_with_counts(own, TABLE, splits, classes), *joined, *_remarks(findings)]


def _use_labels(
    config: dict[str, Any], own: OwnData, labels: Mapping[str, Any], folders: Mapping[str, str], classes: Sequence[str]
) -> list[str]:
    """Write the labels of each split, let the data sets read them, and return remarks."""
    datasets, joined = _datasets(config, labels, own)
    for split, dataset in datasets:
        listing = write_text(own.work_dir / MENDED / f"labels_{split}.json", json.dumps(labels[split]))
        dataset.update(data_root="", ann_file=str(listing.resolve()), data_prefix=folders[split])
    set_num_classes(config["model"], len(classes))
    return joined


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
    return f"{counted(len(classes), 'class')}: {shown}{', ...' if len(classes) > 20 else ''}"


def check_config_data(
    config: dict[str, Any], splits: tuple[str, ...], work_dir: Path, max_pixels: int = MAX_PIXELS
) -> list[str]:
    """Check every COCO annotation file of a config's data sets; return remarks.

    Pictures may lie anywhere, since the config is the user's own. Mended files are written to the work folder, and the
    config then points to them.

    Raises:
        UserError: the data cannot be trained on.
    """
    severities = {} if uses_masks(config) else WITHOUT_MASKS
    readers: dict[Path, list[dict[str, Any]]] = {}  # data sets of each annotation file, those of training first
    joined: set[Path] = set()  # files of which others of their split may have the objects
    for split in splits:
        paths = set()
        for dataset in leaf_datasets(config.get(f"{split}_dataloader")):
            path = Path(dataset.get("data_root") or "", dataset.get("ann_file") or "")
            if path.suffix == ".json" and class_name(dataset) == "CocoDataset":
                readers.setdefault(path.resolve(), []).append(dataset)
                paths.add(path.resolve())
        joined |= paths if len(paths) > 1 else set()
    files: dict[Path, CocoFile] = {}
    for path, datasets in readers.items():
        of_file = {**severities, **WITHOUT_OBJECTS} if path in joined else severities
        files[path] = read_coco(path, "ann_file", of_file)  # the config may list groups as classes
        check_names(files[path])
        given = datasets[0].get("data_prefix") or {}
        prefix = given if isinstance(given, str) else given.get("img") or given.get("img_path") or ""
        folder = Path(datasets[0].get("data_root") or "", prefix)
        place_pictures(files[path], [folder], follow_outside=True, max_pixels=max_pixels)
        check_objects(files[path])
        classes = _classes_of(config, datasets[0])
        note_usable(files[path], classes=classes, min_size=_min_size(datasets[0]))
        _compare_order(files[path], classes)
    findings = errors_first(coco.findings for coco in files.values())
    refuse_errors(findings, "mmms check-data --ann FILE")
    for number, (path, coco) in enumerate(files.items()):
        if coco.mended:
            mended = str(coco.write(work_dir / MENDED / f"{number}_{path.name}"))
            for dataset in readers[path]:
                dataset.update(data_root="", ann_file=mended, data_prefix=dict(img=_folder(coco)))
            for metric in coco_metrics(config):
                if Path(metric.get("ann_file") or "").resolve() == path:
                    metric["ann_file"] = mended
    findings += _renumber_for_metrics(config, files, work_dir / MENDED)
    return _remarks(findings)


def _compare_order(coco: CocoFile, classes: Sequence[str] | None) -> None:
    """Note classes whose number is another in mmdet, which counts a file's categories, than in the config."""
    numbered = [name for name in coco.classes if classes is None or name in classes]
    for number, (name, stated) in enumerate(zip(numbered, classes or numbered, strict=False)):
        if name != stated:
            coco.findings.add(
                "class-order", f"class {number} is {name[:40]!r} in the file, {stated[:40]!r} in the config"
            )
            return


def _classes_of(config: dict[str, Any], dataset: dict[str, Any]) -> Sequence[str] | None:
    """The names of a data set's classes, in the config or by its type; None if a file names them."""
    if stated := (dataset.get("metainfo") or {}).get("classes"):
        return None if isinstance(stated, str) else stated
    from mmengine.registry import DATASETS

    with DATASETS.switch_scope_and_registry(config.get("default_scope") or "mmengine") as registry:
        return getattr(registry.get(dataset["type"]), "METAINFO", {}).get("classes")


def _renumber_for_metrics(config: dict[str, Any], files: Container[Path], folder: Path) -> list[Finding]:
    """Mend the annotation ids of files that no data set reads, but CocoMetric does: pycocotools would drop objects."""
    findings: list[Finding] = []
    for metric in coco_metrics(config):
        path = Path(metric.get("ann_file") or "").resolve()
        ours = path in files or path.parent == folder.resolve() or not metric["type"].endswith("CocoMetric")
        if path.suffix == ".json" and path.is_file() and not ours:
            coco = read_coco(path, "ann_file")
            if "annotation-id" in coco.findings:
                refuse_errors(coco.findings, "mmms check-data --ann FILE")
                findings += coco.findings
                metric["ann_file"] = str(coco.write(folder / f"metric_{path.name}"))
    return findings


def _datasets(
    config: dict[str, Any],
    splits: Container[str],
    own: OwnData,
    after: Callable[[dict[str, Any]], Any] = lambda dataset: None,
) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    """The data sets of a config that will read the user's data, one where several are joined.

    Args:
        config: its joined data sets are changed.
        splits: those that the user's data have.
        own: the user's data.
        after: what a data set will read; by default, all of a split will read the same.

    Returns:
        Split and config of each data set, and remarks about those that were joined.

    Raises:
        UserError: a dataloader mixes several data sets in proportions.
    """
    keys = (("train_dataloader", "train"), ("val_dataloader", own.split), ("test_dataloader", own.split))
    datasets, remarks = [], []
    for key, split in keys:
        loader = config.get(key)
        if split not in splits or not loader:
            continue
        if dropped := drop_doubles(loader, after):
            mixed = MIXING & set(loader.get("sampler") or ())
            if mixed:
                raise UserError(
                    f"{own.where}: {key} mixes {1 + dropped} data sets ({key}.sampler.{mixed.pop()}), and this is one: "
                    "use a config with one data set"
                )
            remarks.append(
                f"{own.where}: {key} joins {1 + dropped} data sets; these data take the place of all, with the "
                "pipeline of the first"
            )
            for evaluator in dicts_in(config.get(key.replace("dataloader", "evaluator"))):
                if "dataset_prefixes" in evaluator:  # MultiDatasetsEvaluator wants one for each data set
                    first = {name: evaluator[name][:1] for name in ("dataset_prefixes", "metrics")}
                    evaluator.update(first)
        datasets += [(split, dataset) for dataset in leaf_datasets(loader)]
    return datasets, remarks


def _folder(coco: CocoFile) -> str:
    """The folder of an annotation file's pictures, as OpenMMLab's data sets expect it."""
    return f"{(coco.image_dir or Path()).resolve()}{os.sep}"


def _remarks(findings: Iterable[Finding]) -> list[str]:
    return [f"{finding.file}: {finding.severity}: {finding.text}" for finding in findings]
