"""The splits of a COCO-style data set, read, checked against each other and mended."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from pathlib import Path

from mmms_plugin.coco.findings import Findings
from mmms_plugin.data.coco_file import CocoFile, check_objects, leave_out_groups, read_coco
from mmms_plugin.data.coco_layouts import Annotations, find_annotations, picture_folders
from mmms_plugin.data.coco_pictures import place_pictures
from mmms_plugin.data.own_data import OwnData, held_back
from mmms_plugin.errors import counted
from mmms_plugin.files import composed

WITHOUT_BOXES = dict.fromkeys(("box-small", "box-outside", "class-unused"), "none")  # if only classes are trained
WITHOUT_MASKS = {  # severities if only boxes are trained
    "segmentation-missing": "none", "segmentation-bad": "warning", "no-masks": "none", "mask-empty": "none",
}  # fmt: skip


def read_splits(own: OwnData, *, masks: bool, boxes: bool = True, decode: bool = False) -> dict[str, CocoFile]:
    """Read the annotation files that ``own`` names and check them, their pictures and their categories.

    Training reads no test split. For a test, a training file is read too, without its pictures: it has the order of the
    classes.

    Args:
        own: the data set.
        masks: masks are used; else problems of segmentations are warnings.
        boxes: boxes are used; else what is odd about them is not noted.
        decode: read every pixel, not only headers.

    Returns:
        The files by split, with all findings.

    Raises:
        UserError: a file is not found or is not an annotation file.
    """
    files = find_annotations(own)
    evaluated = "train" if own.val_split else own.split
    splits = {
        split: read_file(own, path, masks=masks, boxes=boxes)
        for split, path in files.items()
        if split in ("train", evaluated)
    }
    leave_out_groups(splits.values())
    for split, coco in splits.items():
        check_split(own, split, coco, decode=decode, look=own.training or split == evaluated)
    if own.val_split:
        splits["train"], splits["val"] = hold_back(splits["train"], own.val_split, own.split_seed)
    for split, coco in splits.items():
        if split != "train" and "train" in splits:
            align_categories(coco, splits["train"])
    return splits


def read_split(own: OwnData, split: str, path: Annotations, *, masks: bool, look: bool = True) -> CocoFile:
    """Read one annotation file alone and check it with its pictures; the arguments are those of `check_split`.

    Raises:
        UserError: not an annotation file.
    """
    coco = read_file(own, path, masks=masks)
    leave_out_groups([coco])
    check_split(own, split, coco, look=look)
    return coco


def read_file(own: OwnData, path: Annotations, *, masks: bool, boxes: bool = True) -> CocoFile:
    """Read one annotation file; ``masks`` and ``boxes`` are those of `read_splits`.

    Raises:
        UserError: not an annotation file.
    """
    severities = {**({} if masks else WITHOUT_MASKS), **({} if boxes else WITHOUT_BOXES)}
    return read_coco(path, own.flag, severities)


def check_split(own: OwnData, split: str, coco: CocoFile, *, decode: bool = False, look: bool = True) -> None:
    """Check one annotation file with its pictures.

    Args:
        own: the data set.
        split: "train", "val" or "test".
        coco: the annotation file.
        decode: read every pixel, not only headers.
        look: open the pictures; else objects are not checked either, since sizes may be unknown.
    """
    folders = [coco.image_dir] if coco.image_dir else picture_folders(own, split, coco.path)
    place_pictures(coco, folders, decode=decode, read=look, max_pixels=own.max_pixels)
    if look:
        check_objects(coco)


def hold_back(coco: CocoFile, share: float, seed: int) -> tuple[CocoFile, CocoFile]:
    """Divide an annotation file by image into training and validation; the findings stay with the first part.

    Raises:
        UserError: a part would have no pictures.
    """
    chosen = held_back([image["file_name"] for image in coco.images], share, seed)
    parts = []
    for side in (False, True):
        places = [place for place, held in enumerate(chosen) if held == side]
        images = [coco.images[place] for place in places]
        ids = {image["id"] for image in images}
        records = [record for record in coco.content["annotations"] if record.get("image_id") in ids]
        content = {**coco.content, "images": images, "annotations": records}
        content["categories"] = [dict(category) for category in coco.content["categories"]]
        findings = Findings(f"{coco.path} (held back)") if side else coco.findings
        pictures = [coco.pictures[place] for place in places]
        objects, boxed = ([r for r in kept if r["image_id"] in ids] for kept in (coco.objects, coco.boxed))
        part = CocoFile(
            coco.path, content, findings, objects, boxed, coco.image_dir, pictures, True, origin=coco.origin
        )
        if not records and "no-objects" not in findings:
            findings.add("no-objects")
        parts.append(part)
    return parts[0], parts[1]


def align_categories(coco: CocoFile, train: CocoFile) -> None:
    """Give a file the training file's categories in their order, if it lists no others."""
    same = {composed(name): name for name in train.classes}
    for category in coco.content["categories"]:
        spelling = same.get(composed(category["name"]), category["name"])
        if spelling != category["name"]:
            coco.mend("category-spelling", category["name"])
            category["name"] = spelling
    if coco.classes == train.classes:
        return
    own = {category["name"]: category for category in coco.content["categories"]}
    if not set(coco.classes) <= set(train.classes) or len(own) < len(coco.content["categories"]):
        foreign = sorted(set(coco.classes) - set(train.classes))
        if coco.origin and foreign and coco.origin.lists_no_classes:
            for name in foreign:
                coco.findings.add("unlisted-classes", name)
            return
        listed = f"{counted(len(coco.classes), 'category')}, {len(train.classes)} for training"
        coco.findings.add(
            "other-categories", f"{listed}; not among them: {', '.join(foreign[:3])}" if foreign else listed
        )
        return
    free = count(1 + max((category["id"] or 0 for category in own.values()), default=0))
    aligned = [own[name] if name in own else {"id": next(free), "name": name} for name in train.classes]
    coco.content["categories"] = aligned
    coco.mend("category-order", f"{counted(len(own), 'category')}, {len(aligned)} for training")


def write_mended(splits: Mapping[str, CocoFile], folder: Path) -> dict[str, Path]:
    """The annotation file to use for each split: the user's own, or a mended copy in ``folder``."""
    return {
        split: coco.write(folder / f"{split}.json") if coco.mended else coco.path.resolve()
        for split, coco in splits.items()
    }
