"""Annotation files and picture folders in the usual layouts.

COCO's own (``annotations/instances_train2017.json``, ``train2017/``), Roboflow's (``train/_annotations.coco.json``
beside the pictures, ``valid/``), CVAT's (``annotations/instances_Train.json`` or ``instances_default.json``,
``images/``), Label Studio's (``result.json``, ``images/``), FiftyOne's (``data/``, ``labels.json``), and plain
``train.json``, ``val.json``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from mmms_plugin.coco.formats import files_below, is_labelme
from mmms_plugin.data.label_layouts import Labelled, find_labels
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.data.splits import WORDS, is_below, listed, split_of, words_in
from mmms_plugin.errors import UserError

OTHER_KINDS = {"captions", "keypoints", "panoptic", "stuff", "info", "predictions"}  # of COCO's own files
INNER = ("images", "data")  # names for a folder of pictures
EXPECTED = "annotations/instances_{train,val}.json and images/, or train/_annotations.coco.json"
TRAIN_OPTIONS = "with --train-ann FILE and --val-ann FILE (or --val-split 0.2)"
GIVE = "give the folder with --data"
BY_SPLIT = "after their split, such as train.json"
Annotations = Path | Labelled
MANY = 50  # more JSON files in one folder are one for each picture


def find_annotations(own: OwnData) -> dict[str, Annotations]:
    """The annotation file, or the label files, of each split: "train", perhaps "val" and "test".

    Raises:
        UserError: one that is needed is missing, or several fit.
    """
    files = annotations_of(own)
    if (own.training or own.val_split) and "train" not in files:
        raise UserError(nothing_fits(own, files))
    if own.val_split:
        if "val" in files:
            raise UserError(f"--val-split: {own.where} has annotations for validation already ({files['val']})")
        return files
    needed = "val" if own.training else own.split
    if needed not in files and (own.training or "train" in files):
        listed = ", ".join(str(path) for path in files.values())
        flag = "--val-ann FILE" if needed == "val" else "--val-ann FILE without --split"
        raise UserError(
            f"{own.where}: no annotations for {needed} (found: {listed}): name them with {flag}, or hold back a share "
            "of the training pictures with --val-split 0.2"
        )
    if needed not in files:
        raise UserError(nothing_fits(own, files))
    return files


def annotations_of(own: OwnData) -> dict[str, Annotations]:
    """The annotation file of each split, or its label files of another format if ``own`` may have any layout.

    Raises:
        UserError: several fit.
    """
    files: dict[str, Annotations] = {} if own.yaml else {**annotation_files(own)}
    if not own.any_layout or any(isinstance(path, Path) and _has_annotations(path) for path in files.values()):
        return files
    return {**find_labels(own)} or files


def annotation_files(own: OwnData) -> dict[str, Path]:
    """The annotation file of each split that is named or found.

    Raises:
        UserError: several fit.
    """
    by_split: dict[str, list[Path]] = {}
    for path in _json_files(own.folder, own.work_dir) if own.folder else ():
        by_split.setdefault(split_of(path.relative_to(own.folder or "")), []).append(path)
    unnamed = [path for path in by_split.pop("", []) if _has_annotations(path)]
    if "train" not in by_split and len(unnamed) == 1:
        by_split["train"] = unnamed
    files = {split: _best(own, split, paths) for split, paths in by_split.items()}
    named = {"train": own.train_ann, "val": own.val_ann}
    return files | {split: path for split, path in named.items() if path is not None}


def _json_files(folder: Path, work_dir: Path) -> list[Path]:
    """JSON files of a folder, its sub-folders and their annotations/, except for folders with one for each picture.

    A work folder, which holds mended copies, is left out.
    """
    places = [folder, *(path for path in listed(folder) if path.is_dir())]
    places += [place / "annotations" for place in places[1:] if (place / "annotations").is_dir()]
    files: list[Path] = []
    has_work_dir = is_below(work_dir, folder) and os.path.abspath(work_dir) != os.path.abspath(folder)
    for place in places:
        if has_work_dir and is_below(place, work_dir):
            continue
        here = [path for path in listed(place) if path.name.lower().endswith(".json")]
        if len(here) <= MANY:
            here = [path for path in here if path.is_file() and not OTHER_KINDS & set(words_in(path.stem))]
            files += (path for path in here if not is_labelme(path))
    return files


def _has_annotations(path: Path) -> bool:
    """Whether a file contains the keys of an annotation file."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return all(key in content for key in (b'"images"', b'"annotations"', b'"categories"'))


def _best(own: OwnData, split: str, paths: list[Path]) -> Path:
    """The file with the most usual name."""
    usual = [f"instances_{split}", f"instances_{split}2017", f"instances_{split}2014"]
    ranks = [
        usual.index(path.stem) if path.stem in usual else len(usual) + (not path.stem.startswith(("instances", "_")))
        for path in paths
    ]
    best = [path for path, rank in zip(paths, ranks, strict=True) if rank == min(ranks)]
    if len(best) > 1:
        option = "--train-ann FILE" if split == "train" else "--val-ann FILE"
        listed = ", ".join(str(path.relative_to(own.folder or Path())) for path in best[:4])
        raise UserError(
            f"{own.where}: {len(best)} files may be the annotations for {split} ({listed}): choose by {option}"
        )
    return best[0]


def picture_folders(own: OwnData, split: str, ann_file: Path) -> list[Path]:
    """Where the pictures of an annotation file may be, the likeliest first, all within the data set's folder."""
    root = own.img_dir or own.folder or ann_file.parent.parent
    names = _folder_names(root, split)
    below = [*names, *(f"images/{name}" for name in _folder_names(root / "images", split)), *INNER, "."]
    candidates = [root / name for name in (*below, *(f"{name}/{inner}" for name in names for inner in INNER))]
    if own.img_dir is None:
        near = [place / inner for place in ann_file.parents[:2] for inner in (".", *INNER)]
        within = own.folder is not None and is_below(ann_file, own.folder)
        candidates += [folder for folder in near if not within or is_below(folder, root)]
    folders = list(dict.fromkeys(folder for folder in candidates if folder.is_dir()))
    return folders or [root]


def _folder_names(root: Path, split: str) -> list[str]:
    """Sub-folders named after a split, in its usual spellings first: train2017, train, Train, train2014."""
    if not root.is_dir():
        return []
    fitting = [path.name for path in listed(root) if path.is_dir() and WORDS[split] & set(words_in(path.name))]
    usual = [f"{split}2017", split]
    return sorted(fitting, key=lambda name: usual.index(name) if name in usual else len(usual))


def nothing_fits(
    own: OwnData, by_split: Mapping[str, Annotations], split: str = "training", options: str = TRAIN_OPTIONS
) -> str:
    """The message where a split has no annotations; `describe_folder` has the other arguments."""
    if own.folder is None:
        return f"{own.where}: name the annotations for training too, with --train-ann FILE"
    if own.any_layout and by_split:
        found = ", ".join(f"{split} ({path})" for split, path in by_split.items())
        return f"{own.where}: no annotations for {split}; found: {found}"
    return f"{own.where}: no COCO annotations for {split} there; {describe_folder(own.folder, by_split, options)}"


def describe_folder(
    folder: Path,
    by_split: Mapping[str, Annotations] | None = None,
    options: str = TRAIN_OPTIONS,
    expected: str = EXPECTED,
) -> str:
    """What a folder holds instead of a known layout, and which option or export helps.

    Args:
        folder: the folder that was searched.
        by_split: annotations found in it, by split.
        options: how the command that reports this finds annotation files, after "name the annotation files".
        expected: the layouts that it reads.
    """
    splits = f" (annotations for {', '.join(by_split)})" if by_split else ""
    return f"{entries_of(folder)}{splits}; {_advice(folder, options, expected)}"


def entries_of(folder: Path, most: int = 6) -> str:
    """The first names in a folder, sub-folders before files, for messages."""
    folders, files = _entries(folder)
    names = [*(f"{name}/" for name in folders), *files]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"found: {', '.join(names[:most]) or 'nothing'}{more}"


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    entries = listed(folder)
    return [path.name for path in entries if path.is_dir()], [path.name for path in entries if not path.is_dir()]


def _advice(folder: Path, options: str, expected: str) -> str:
    folders, files = _entries(folder)
    names = chain(files, *(os.listdir(folder / name) for name in folders))
    counts = Counter(os.path.splitext(name)[1].lower() for name in names)
    described = any(name.endswith((".yaml", ".yml")) for name in files) and (counts[".txt"] or "labels" in folders)
    if described or ("labels" in folders and files_below(folder / "labels", (".txt",))):
        return f"this looks like YOLO's layout: {GIVE}"
    if counts[".xml"]:
        return f"XML files are Pascal VOC's: {GIVE}"
    if counts[".json"] > MANY:
        return f"one JSON file for each picture, as labelme writes them: {GIVE}"
    if {"masks", "SegmentationClass", "JPEGImages"} & set(folders):
        return "masks of classes are read by segmentation configs with --voc-dir"
    if counts[".json"]:
        return f"name the annotation files {options}"
    return f"expected are {expected}, or files named {options}"
