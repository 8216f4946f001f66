"""What can be wrong with a data set: code, severity and words of every rule."""

from __future__ import annotations

from typing import NamedTuple

SEVERITIES = ("error", "mended", "warning")


class Rule(NamedTuple):
    """``severity`` as in ``Finding``; ``what`` is wrong, in the plural; ``advice``: what to do, or what was done."""

    severity: str
    what: str
    advice: str = ""


RULES: dict[str, Rule] = {
    # annotation files
    "unreadable-file": Rule("error", "annotation files that cannot be read"),
    "no-images": Rule("error", "annotation files without images"),
    "no-categories": Rule("error", "annotation files without categories"),
    "no-objects": Rule("error", "annotation files without objects", "nothing to train on, and no AP to compute"),
    "no-usable-objects": Rule(
        "error", "annotation files without a usable object", "nothing to train on, and no AP to compute"
    ),
    "no-train": Rule("error", "data sets without a training split", "add one: nothing to train on"),
    "no-val": Rule("error", "data sets without a validation split", "train with --val-split 0.2, or add one"),
    "test-unusable": Rule(
        "warning", "test splits that mmms test --split test cannot use", "training does not need them"
    ),
    "other-categories": Rule(
        "error", "annotation files whose categories differ", "list the same categories in the same order in every file"
    ),
    "unlisted-classes": Rule(
        "error", "classes that no training object has",
        "correct their names, or list all classes in a classes.txt in the folder, one a line",
    ),
    "class-order": Rule(
        "error", "annotation files whose categories do not come in the order of the config's classes",
        "mmdet numbers classes in the file's order: list all of them in one order, in the config and in every file",
    ),
    "category-order": Rule(
        "mended", "annotation files with fewer categories than the training file, or in another order",
        "the training file's are used",
    ),
    "category-group": Rule(
        "mended", "categories that only group others: without an object, and the supercategory of another",
        "left out: they are not classes",
    ),
    "category-spelling": Rule(
        "mended", "categories whose accented letters are spelled otherwise than in the training file",
        "the training file's spelling is used",
    ),
    "category-id": Rule("error", "categories without an integer id"),
    "category-id-twice": Rule("error", "category ids that are used twice"),
    "category-name": Rule("error", "categories without a name"),
    "category-name-twice": Rule("error", "category names that are listed twice"),
    "image-id": Rule("error", "images without an integer id"),
    "image-id-twice": Rule("error", "image ids that are used twice"),
    "file-name": Rule("error", "images whose file_name is missing, or cannot be a file's"),
    "file-name-url": Rule("mended", "images without file_name", "taken from the end of coco_url, as in LVIS's files"),
    "file-name-outside": Rule(
        "mended", "file names that are absolute or leave the folder of the pictures",
        "not followed: the pictures are found by the last part of the name",
    ),
    "file-name-elsewhere": Rule(
        "mended", "file names with folders that do not exist", "the pictures are found by the last part of the name"
    ),
    "file-name-ambiguous": Rule(
        "error", "file names whose last part several images share",
        "name the folder that they start from with --img-dir",
    ),
    "file-name-twice": Rule("warning", "pictures that are listed as several images"),
    "file-name-spelling": Rule(
        "mended", "names whose accented letters are spelled otherwise than those of the files",
        "macOS writes a letter and its accent as two characters: the files' spelling is used",
    ),
    "backslashes": Rule("mended", "file names with backslashes", "read as /"),
    "image-size": Rule("mended", "images without width and height", "taken from the pictures"),
    "image-size-wrong": Rule("mended", "images with another width and height than their pictures",
        "the pictures' are used",),
    "image-size-scaled": Rule(
        "error", "images whose boxes were drawn at another size than the pictures have",
        "use the pictures that were annotated, or scale the boxes",
    ),
    "byte-order-mark": Rule(
        "mended", "files that begin with a byte-order mark", "left out of the copy: pycocotools refuses it"
    ),
    "annotation-id": Rule(
        "mended", "annotations without an integer id above 0 of their own",
        "all are numbered anew: pycocotools ignores matches with id 0, and keeps only the last object of a repeated id",
    ),
    "unknown-image": Rule("error", "annotations of an unknown image_id"),
    "unknown-category": Rule("error", "annotations with an unknown category_id"),
    "iscrowd": Rule("mended", "annotations whose iscrowd is missing or not 0 or 1",
        "taken as 0, or as 1 where it is true",),
    "box-missing": Rule("mended", "objects without bbox", "taken around the masks"),
    "box-and-mask-missing": Rule("error", "annotations that have no bbox [x, y, width, height] and no segmentation"),
    "box-not-numbers": Rule("error", "boxes that are not four numbers", "boxes are [x, y, width, height]"),
    "box-nan": Rule("error", "boxes with NaN, infinity or numbers beyond 1e9"),
    "box-negative": Rule("error", "boxes with a negative width or height", "boxes are [x, y, width, height]"),
    "box-small": Rule("warning", "boxes with a side below 1 px", "mmdet leaves these objects out"),
    "box-outside": Rule("warning", "boxes that lie outside their picture", "mmdet leaves these objects out"),
    "box-leaves": Rule("warning", "boxes that leave their picture by more than 2 px and 2 %"),
    "object-ignored": Rule("warning", "objects that are marked ignore", "mmdet leaves these objects out"),
    "object-empty": Rule("warning", "objects whose masks hold no pixel", "mmdet leaves these objects out"),
    "object-crowd": Rule(
        "warning", "objects that are crowds", "neither trained on nor counted in AP"
    ),
    "object-other-class": Rule(
        "warning", "objects whose category is not among the config's classes", "mmdet leaves these objects out"
    ),
    "box-flat": Rule("warning", "boxes of zero width or height"),
    "box-normalised": Rule(
        "warning", "files whose boxes lie within 0..1.5", "are they normalised? boxes are in pixels"
    ),
    "box-corners": Rule(
        "warning", "files whose boxes look like [x1, y1, x2, y2]", "boxes are [x, y, width, height]"
    ),
    "box-mask": Rule(
        "warning", "files whose boxes do not lie around their masks",
        "IoU of boxes takes the boxes, IoU of masks the masks",
    ),
    "area": Rule("mended", "annotations without an area above 0",
        "computed from the mask, or the box where there is none",),
    "segmentation-missing": Rule(
        "error", "annotations without segmentation", "masks are trained: add them, or use a config without a mask head"
    ),
    "segmentation-bad": Rule("error", "segmentations that cannot be used"),
    "no-masks": Rule("error", "annotation files whose masks are all empty", "no mask can be learned from these"),
    "mask-empty": Rule("warning", "masks without a pixel in their picture", "they are trained as empty masks"),
    "polygon-short": Rule("mended", "polygons of fewer than 3 points", "left out; their objects have other polygons"),
    "polygon-outside": Rule("warning", "polygons that leave their picture by more than 2 px and 2 %"),
    "object-twice": Rule("warning", "objects that are listed twice, with the same image, category and bbox"),
    "class-unused": Rule("warning", "categories without an object"),
    "class-unusable": Rule("warning", "categories without a usable object", "nothing to learn, and nothing to measure"),
    "class-empty": Rule("warning", "classes without a picture", "nothing to learn, and nothing to measure"),
    "class-everywhere": Rule("warning", "classes that all pictures have", "nothing to learn: no picture is without"),
    "image-unused": Rule("warning", "images without an object"),
    "difficult": Rule(
        "warning", "objects that are marked difficult",
        "detections of them are neither right nor wrong, as of COCO's crowds",
    ),
    "scored": Rule("warning", "annotations with a score", "ground truth has none: are these predictions?"),
    # predictions
    "no-predictions": Rule("warning", "files without any predictions", "counted as a model that finds nothing"),
    "score-percent": Rule(
        "warning", "files whose scores look like per cent",
        "AP uses only their order; --score-threshold is compared with them as they are",
    ),
    "score-outside": Rule("warning", "scores outside 0..1", "AP uses only their order"),
    # pictures
    "picture-missing": Rule("error", "pictures that are missing"),
    "picture-empty": Rule("error", "pictures of 0 bytes"),
    "picture-unreadable": Rule("error", "pictures that cannot be read"),
    "picture-too-large": Rule(
        "error", "pictures of more pixels than --max-pixels", "make them smaller, or allow more if the memory does"
    ),
    "picture-truncated": Rule("error", "pictures that end too early", "copy or download them again"),
    "picture-rotated": Rule(
        "error", "pictures with an EXIF rotation that were annotated without it",
        "training rotates them: remove the tag (exiftool -Orientation= FILE), so that boxes and pixels agree",
    ),
    "picture-exif": Rule("warning", "pictures with an EXIF rotation",
        "training rotates them: were the boxes drawn on rotated pictures?",),
    "picture-16-bit": Rule("warning", "pictures with 16 bits a channel", "training keeps the upper 8 bits of each"),
    "picture-cmyk": Rule("warning", "CMYK pictures", "training converts them to RGB without their colour profile"),
    "picture-small": Rule(
        "warning", "pictures with a side below filter_cfg.min_size",
        "detectors leave these out of training; it is 32 px in mmdet's own configs",
    ),
    "picture-twice": Rule("warning", "pictures with the same content within one split"),
    "picture-in-two-splits": Rule(
        "warning", "pictures that occur in two splits", "figures on them say nothing about new pictures"
    ),
    "picture-not-listed": Rule("warning", "pictures in the folder that the annotation file does not list"),
    # masks of a class for each pixel
    "no-pairs": Rule("error", "splits without a picture that has a mask"),
    "mask-missing": Rule("error", "pictures without a mask"),
    "mask-unreadable": Rule("error", "masks that cannot be read"),
    "mask-colour": Rule("error", "masks in colour", "allowed is one label a pixel: a grey or palette PNG"),
    "mask-size": Rule("error", "masks of another size than their picture"),
    "mask-jpeg": Rule("warning", "masks saved as JPEG", "that blurs labels at the edges: save them as PNG"),
    "mask-labels": Rule(
        "error", "labels outside the classes",
        "other classes than VOC's are named in labels.txt, one a line, background first",
    ),
    "label-outside": Rule(
        "error", "labels outside the config's classes",
        "the data set's metainfo names these; its label_map and reduce_zero_label change labels",
    ),
    "mask-not-binary": Rule(
        "error", "labels besides 0 and 255, which --binary-masks is for",
        "leave --binary-masks out where masks hold the numbers of classes: 0, 1, 2, ...",
    ),
    "mask-binary": Rule(
        "error", "splits whose masks hold nothing but 0 and 255",
        "255 is void and never trained on: write object pixels as 1, or add --binary-masks, which reads 255 as class 1",
    ),
    "ignore-label-unused": Rule("warning", "labels of --ignore-label that occur in no mask of any split"),
    "mask-void": Rule(
        "warning", "masks of which more than half is void", "void pixels are neither trained on nor counted"
    ),
    "mask-void-only": Rule("warning", "masks that hold nothing but void", "nothing can be learned from these"),
    "mask-one-label": Rule(
        "error", "splits whose masks hold one label and void at most", "nothing to learn: there is one class"
    ),
    "mask-unpaired": Rule("warning", "masks without a picture", "these are not used"),
    "mask-class-unused": Rule("warning", "classes that occur in no mask"),
}  # fmt: skip
