"""Converted weights at work: statistics of outputs, comparison with a reference, how far a change moves them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from mmms_plugin.backbones.base import Backbone
from mmms_plugin.errors import UserError, first_line
from mmms_plugin.weights.trusted import build_part, check_part

INPUT_SHAPE = (1, 3, 224, 224)
LOGITS = "output"
MAX_BYTES, MAX_ARRAYS = 1_000_000_000, 1000  # of a reference file, unpacked
MAX_PIXELS = 4_000_000  # of its input: 80 pictures of 224 x 224


@dataclass(frozen=True)
class Statistics:
    """Of one output; ``error``: largest deviation from the reference in units of the reference's standard deviation."""

    name: str
    shape: tuple[int, ...]
    mean: float
    std: float
    absmax: float
    error: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Reference:
    """Arrays of an ``--reference`` file: the input and outputs by name."""

    image: Tensor
    outputs: dict[str, Tensor]


def fixed_input() -> Tensor:
    """``RandomState(0).standard_normal`` as float32, ``[1, 3, 224, 224]``."""
    return torch.from_numpy(np.random.RandomState(0).standard_normal(INPUT_SHAPE).astype(np.float32))


def read_reference(path: str | Path, names: Sequence[str]) -> Reference:
    """Read an ``.npz`` with the array ``input``, ``[N, 3, H, W]``, and one array for each output, named in ``names``.

    Raises: UserError if it is no such file.
    """
    arrays = _read_arrays(path)
    image = arrays.pop("input", None)
    if image is None or image.dim() != 4 or image.shape[1] != 3 or not image.numel():
        raise UserError(f"--reference {path}: it needs an array 'input' of shape [N, 3, H, W]")
    if image.numel() > 3 * MAX_PIXELS:
        raise UserError(f"--reference {path}: 'input' has {image.numel() // 3} pixels, allowed are {MAX_PIXELS}")
    named = [_full_name(name, names) for name in arrays]
    if len(set(named)) < len(named):
        raise UserError(f"--reference {path}: two arrays for one output; its arrays are {', '.join(arrays)}")
    arrays = dict(zip(named, arrays.values(), strict=True))
    unknown = [name for name in arrays if name not in names]
    if unknown or not arrays:
        what = f"has {unknown[0]!r}" if unknown else "has no outputs"
        raise UserError(f"--reference {path}: it {what}; its outputs may be named {', '.join(names)}")
    return Reference(image, arrays)


def _read_arrays(path: str | Path) -> dict[str, Tensor]:
    """All arrays of an ``.npz``; what its directory says of their size is checked before they are unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            size, count = sum(entry.file_size for entry in archive.infolist()), len(archive.infolist())
        if size > MAX_BYTES or count > MAX_ARRAYS:
            raise ValueError(f"{count} arrays of {size} bytes; allowed are {MAX_ARRAYS} of {MAX_BYTES}")
        with np.load(path, allow_pickle=False) as arrays, np.errstate(all="ignore"):
            return {name: _real(name, arrays[name]) for name in arrays.files}
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen types for damaged files
        raise UserError(f"--reference {path}: not an .npz of arrays ({first_line(error)[:200]})") from error


def _real(name: str, array: np.ndarray) -> Tensor:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise ValueError(f"{name} holds {getattr(array, 'dtype', 'bytes')}, not real numbers")
    return torch.from_numpy(np.asarray(array, np.float32))


def _full_name(name: str, names: Sequence[str]) -> str:
    """The output that a name means: ``base.level2`` is ``level2``, ``norm5`` is ``features.norm5``."""
    return next((n for n in names if name.endswith(f".{n}") or n.endswith(f".{name}")), name)


def build(config: Mapping[str, Any], state: Mapping[str, Tensor], stages: int) -> Backbone:
    """The backbone of a config in eval mode, all its stages returned, loaded strictly."""
    part = check_part(config, "meta.backbone", out_indices=tuple(range(stages)))
    return cast(Backbone, build_part(part, "meta.backbone", state).eval())


def logit_names(head: Mapping[str, Tensor], exits: Mapping[str, Any] | None) -> list[str]:
    """What the logits are called: ``output``, or ``exit1``, ``exit2``, ... where there are several classifiers."""
    if exits is None:
        return [LOGITS] if head else []
    return [f"exit{i + 1}" for i in range(len(exits["in_channels"]))]


@torch.no_grad()
def run(
    backbone: Backbone,
    head: Mapping[str, Tensor],
    names: Sequence[str],
    image: Tensor,
    exits: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    """Name -> output of every stage, and the logits where there is a classifier.

    Args:
        head: state dict of the classifier. exits: config of the classifiers where there are several.

    Raises: UserError if the input does not suit the network.
    """
    try:
        maps = backbone(image)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--reference: an input of shape {list(image.shape)} does not suit the network: {error}"
        ) from error
    outputs = dict(zip(names, maps, strict=True))
    if exits is not None:
        from mmms_plugin.registry import MODELS

        classifiers = MODELS.build(dict(exits)).eval()
        classifiers.load_state_dict(head)
        outputs.update(zip(logit_names(head, exits), classifiers(maps), strict=True))
    elif head:
        weight, bias = head["fc.weight"].float(), head["fc.bias"].float()
        outputs[LOGITS] = maps[-1].mean((2, 3)) @ weight.T + bias
    return outputs


def statistics(outputs: Mapping[str, Tensor], reference: Mapping[str, Tensor] | None = None) -> list[Statistics]:
    """Statistics of each output; with a reference, errors of those it has.

    Raises: UserError if shapes differ.
    """
    rows = []
    for name, value in outputs.items():
        error = None
        if reference is not None and name in reference:
            wanted = reference[name]
            if wanted.dim() > value.dim() and name == LOGITS:
                wanted = wanted.flatten(1)  # published as [N, classes, 1, 1]
            if wanted.shape != value.shape:
                raise UserError(
                    f"--reference: {name} has shape {list(wanted.shape)}, the network's is {list(value.shape)}"
                )
            error = float((value - wanted).abs().max() / wanted.std())
        figures = (float(value.mean()), float(value.std()), float(value.abs().max()))
        rows.append(Statistics(name, tuple(value.shape), *figures, error))
    return rows


def check_tolerance(rows: Sequence[Statistics], tolerance: float) -> None:
    """Raises: UserError naming the worst output if any error is above the tolerance, or not a number."""
    bad = [row for row in rows if row.error is not None and not row.error <= tolerance]
    if bad:
        worst = max(bad, key=lambda row: row.error if row.error == row.error else float("inf"))  # type: ignore
        raise UserError(
            f"--reference: {len(bad)} outputs differ, most of all {worst.name}: {worst.error:.3g} of its standard "
            f"deviation, allowed is {tolerance:g}; nothing is written"
        )


def movement(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, float]:
    """Output -> root mean square difference in units of the standard deviation of ``before``."""
    return {name: float((after[name] - value).square().mean().sqrt() / value.std()) for name, value in before.items()}
