"""Holding back a share of the pictures for validation."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import PurePosixPath

from mmms_plugin.errors import UserError


def held_back(names: Sequence[str], share: float, seed: int) -> list[bool]:
    """Which pictures are for validation: the same ones in every run and order, and few change when pictures are added.

    Pictures are ordered by a hash of seed and name, and the first ``share`` of them is taken. Roboflow's augmented
    copies of one picture (``NAME.rf.HASH.jpg``) stay together.

    Args:
        names: file names. share: above 0 and below 1. seed: another one holds back others.
    Raises:
        UserError: one side would be empty.
    """
    groups = [PurePosixPath(name).name.split(".rf.")[0] if ".rf." in name else name for name in names]
    order = sorted(set(groups), key=lambda group: blake2b(f"{seed}/{group}".encode("utf-8", "replace")).digest())
    count = round(share * len(order))
    if not 0 < count < len(order):
        raise UserError(f"--val-split {share}: of {len(order)} pictures this leaves {count} for validation")
    chosen = set(order[:count])
    return [group in chosen for group in groups]
