"""What the decode heads here have in common: the authors' loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Loss = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None


def loss_or_default(loss_decode: Loss) -> dict[str, Any] | list[dict[str, Any]]:
    """Configs as plain dictionaries; None is cross-entropy averaged over the pixels that are not void."""
    if loss_decode is None:
        return dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True)
    return dict(loss_decode) if isinstance(loss_decode, Mapping) else [dict(loss) for loss in loss_decode]
