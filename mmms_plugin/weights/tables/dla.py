"""Checkpoints of DLA's authors, github.com/ucbdrive/dla: plain state dicts of ImageNet classifiers, BSD-3-Clause."""

from __future__ import annotations

from mmms_plugin.weights.tables import Table
from mmms_plugin.weights.tables._dla import BACKBONE, CLASSIFIER, DECODER, dla

ARCHS = ("34", "46_c", "46x_c", "60", "60x", "60x_c", "102", "102x", "102x2", "169")

TABLE = Table(
    source="dla",
    about="DLA's authors' ImageNet classifiers (github.com/ucbdrive/dla)",
    archs={f"dla{arch}": dla(arch) for arch in ARCHS},
    rules=(*BACKBONE, *CLASSIFIER, *DECODER),
    licence="BSD-3-Clause",
    outputs=("level2", "level3", "level4", "level5"),
)
