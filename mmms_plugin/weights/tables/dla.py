"""Checkpoints of DLA's authors, github.com/ucbdrive/dla: plain state dicts of ImageNet classifiers and, with DLA-Up, of
segmentation networks (``dla34up``; Cityscapes has 19 classes, others are read from the file)."""

from __future__ import annotations

from dataclasses import replace

from mmms_plugin.weights.tables import Arch, Table
from mmms_plugin.weights.tables._dla import BACKBONE, CLASSIFIER, DECODER, dla, dla_up

CITYSCAPES_CLASSES = 19
NAMES = ("34", "46_c", "46x_c", "60", "60x", "60x_c", "102", "102x", "102x2", "169")
ARCHS = {f"dla{name}": dla(name) for name in NAMES}
RULES = (*BACKBONE, *CLASSIFIER, *DECODER)


def _segmentor(name: str) -> Arch:
    note = "pictures were normalised by their data set's info.json, not in the file; meta has ImageNet's values"
    return replace(dla_up(name, CITYSCAPES_CLASSES), note=note)


TABLE = Table(
    source="dla",
    about="DLA's authors' classifiers and segmentation networks (github.com/ucbdrive/dla)",
    archs={**ARCHS, **{f"dla{name}up": _segmentor(name) for name in ("34", "60", "102", "169")}},
    rules=RULES,
    licence="BSD-3-Clause",
)
