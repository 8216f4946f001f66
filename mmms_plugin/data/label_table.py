"""Pictures with any number of classes, as Roboflow exports them and ``--image-dir`` reads them.

``train/_classes.csv`` and ``valid/_classes.csv`` beside the pictures: a column for each class, a line for each picture,
1 where it has the class and 0 where not. Without these folders, one ``_classes.csv`` is for training.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmms_plugin.coco.findings import Findings
from mmms_plugin.coco.picture_files import MAX_PIXELS
from mmms_plugin.coco.text_files import LARGEST_LIST, text_of
from mmms_plugin.data.coco_layouts import entries_of
from mmms_plugin.data.own_data import OwnData, held_back
from mmms_plugin.data.pictures import Picture, look_at_all, note_picture
from mmms_plugin.data.splits import WORDS, listed, split_of
from mmms_plugin.errors import UserError, shown

TABLE = "_classes.csv"
ABSENT, PRESENT = "0", "1"
LAYOUT = f"train/{TABLE} and valid/{TABLE} beside the pictures, or COCO annotations with --coco-dir"


@dataclass
class LabelTable:
    """One split.

    Attributes:
        root: the folder of the pictures.
        classes: names of the columns.
        pictures: file names, and the numbers of their classes.
        held_back: these pictures are a share of a table for training.
        looked: what the header of each picture says, once they were looked at.
        findings: problems of the pictures and their labels.
    """

    root: Path
    classes: tuple[str, ...]
    pictures: list[tuple[str, list[int]]]
    held_back: bool = False
    looked: list[Picture] = field(default_factory=list)
    findings: Findings = field(default_factory=lambda: Findings(""))

    @property
    def paths(self) -> list[Path]:
        """The files of the pictures."""
        return [self.root / name for name, _ in self.pictures]

    def labels(self) -> dict[str, Any]:
        """The table in mmengine's form."""
        pictures = [dict(img_path=name, gt_label=labels) for name, labels in self.pictures]
        return dict(metainfo=dict(classes=list(self.classes)), data_list=pictures)

    def look(self, decode: bool = False, max_pixels: int = MAX_PIXELS) -> None:
        """Look at all pictures, and note what is wrong with them and their labels."""
        self.findings = Findings(f"{self.root / TABLE}{' (held back)' * self.held_back}")
        self.looked = look_at_all(self.paths, f"looking at {self.root.name}", decode, max_pixels)
        for (name, _), picture in zip(self.pictures, self.looked, strict=True):
            note_picture(self.findings, name, picture)
        note_labels(self.findings, self.classes, [labels for _, labels in self.pictures])


def note_labels(findings: Findings, classes: tuple[str, ...], labels: list[list[int]]) -> None:
    """Note classes that all pictures have, or none."""
    counts = [sum(i in of_picture for of_picture in labels) for i in range(len(classes))]
    for name, count in zip(classes, counts, strict=True):
        if count == 0:
            findings.add("class-empty", name[:40])
        elif count == len(labels):
            findings.add("class-everywhere", name[:40])


def label_files(own: OwnData) -> dict[str, Path]:
    """The table of each split, empty if there are none."""
    root = own.folder or Path()
    tables = {split_of(Path(path.name)): path / TABLE for path in listed(root) if (path / TABLE).is_file()}
    tables = {split: tables[split] for split in WORDS if split in tables}
    alone = {"train": root / TABLE} if (root / TABLE).is_file() else {}
    return {split: path for split, path in (tables or alone).items() if _is_table(path, own.flag)}


def _is_table(path: Path, flag: str) -> bool:
    """Whether it is about pictures; Roboflow's ``_classes.csv`` of masks names the classes of labels."""
    return text_of(path, flag, LARGEST_LIST).lstrip().casefold().startswith("filename")


def read_tables(own: OwnData) -> dict[str, LabelTable]:
    """The splits that training, or a test, uses, their pictures looked at; their classes are those of ``train``.

    Raises:
        UserError: a table is missing or cannot be read, or its classes differ.
    """
    files = label_files(own)
    if own.val_split and "val" in files:
        raise UserError(f"--val-split: {own.where} has pictures for validation already ({files['val']})")
    evaluated = "train" if own.val_split else "val" if own.training else own.split
    for split in ("train", evaluated):
        if split not in files:
            remedy = ", or hold back a share of the pictures with --val-split 0.2" if "train" in files else ""
            there = entries_of(own.folder or Path())
            raise UserError(f"{own.where}: no {TABLE} for {split}; expected are {LAYOUT}{remedy}; {there}")
    splits = {split: read_table(own, files[split]) for split in dict.fromkeys(("train", evaluated))}
    for table in splits.values():
        use_order(own, table, splits["train"].classes)
    if own.val_split:
        train = splits["train"]
        chosen = held_back([name for name, _ in train.pictures], own.val_split, own.split_seed)
        for split, side in (("train", False), ("val", True)):
            pictures = [picture for picture, held in zip(train.pictures, chosen, strict=True) if held is side]
            splits[split] = LabelTable(train.root, train.classes, pictures, held_back=side)
    for name in splits if own.training else [own.split]:
        splits[name].look(max_pixels=own.max_pixels)
    return splits


def read_table(own: OwnData, path: Path) -> LabelTable:
    """One table.

    Raises:
        UserError: a line that does not fit, or no line.
    """
    rows = csv.reader(text_of(path, own.flag, LARGEST_LIST).splitlines(), skipinitialspace=True)
    lines = [(rows.line_num, [cell.strip() for cell in row]) for row in rows if any(row)]
    classes, pictures, names = tuple(lines[0][1][1:]), [], set()
    if not classes or not all(classes) or len(set(classes)) < len(classes):
        raise UserError(f"{path}: the first line must be 'filename' and the names of the classes, each once")
    if len(lines) < 2:
        raise UserError(f"{path}: no pictures")
    for number, (name, *cells) in lines[1:]:
        if len(cells) != len(classes) or not set(cells) <= {ABSENT, PRESENT}:
            raise UserError(f"{path}, line {number}: must be a file name and {len(classes)} times 0 or 1")
        if not name or name in names:
            raise UserError(f"{path}, line {number}: file name {shown(name)}: must be stated, and in one line only")
        names.add(name)
        pictures.append((name, [i for i, cell in enumerate(cells) if cell == PRESENT]))
    return LabelTable(path.parent, classes, pictures)


def use_order(own: OwnData, table: LabelTable, classes: tuple[str, ...]) -> None:
    """Number a table's classes as in training.

    Raises:
        UserError: they are not the same.
    """
    if set(table.classes) != set(classes):
        other = sorted(set(table.classes) ^ set(classes))
        raise UserError(
            f"{own.where}: the classes of {table.root.name} are not those of training (first: {other[0]!r})"
        )
    number = [classes.index(name) for name in table.classes]
    table.pictures = [(name, sorted(number[i] for i in labels)) for name, labels in table.pictures]
    table.classes = classes
