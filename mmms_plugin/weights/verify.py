"""Converted weights in use: statistics of outputs, comparison with a reference, how far a change moves outputs."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmms_plugin.errors import UserError, first_line, shown
from mmms_plugin.weights.files import Checkpoint
from mmms_plugin.weights.options import Options
from mmms_plugin.weights.trusted import build_part, check_part

INPUT_SHAPE = (1, 3, 224, 224)
LOGITS = "output"
MAX_BYTES, MAX_ARRAYS = 1_000_000_000, 1000  # of a reference file, unpacked
MAX_PIXELS = 4_000_000  # of its input: 80 pictures of 224 x 224


@dataclass(frozen=True)
class Statistics:
    """Statistics of an output.

    Attributes:
        error: largest deviation from the reference, in standard deviations of the reference; None without one.
    """

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
    """Arrays of a ``--reference`` file: the input, and outputs by name."""

    image: Tensor
    outputs: dict[str, Tensor]


@dataclass(frozen=True)
class Classifier:
    """What makes logits of a backbone's maps: a linear layer after pooling, several exits, or nothing.

    Attributes:
        state: its tensors.
        exits: config of the classifiers if there are several.
    """

    state: dict[str, Tensor]
    exits: Mapping[str, Any] | None = None

    @property
    def logits(self) -> list[str]:
        """Names of the logits: ``output``, or ``exit1``, ``exit2``, ... if there are several classifiers."""
        if self.exits is None:
            return [LOGITS] if self.state else []
        return [f"exit{i + 1}" for i in range(len(self.exits["in_channels"]))]


def fixed_input() -> Tensor:
    """``RandomState(0).standard_normal`` as float32, ``[1, 3, 224, 224]``."""
    return torch.from_numpy(np.random.RandomState(0).standard_normal(INPUT_SHAPE).astype(np.float32))


def read_reference(path: str | Path, names: Sequence[str]) -> Reference:
    """Read an ``.npz`` with the array ``input``, ``[N, 3, H, W]``, and one array for each output, named in ``names``.

    Raises: UserError if it is not such a file.
    """
    arrays = _read_arrays(path)
    image = arrays.pop("input", None)
    if image is None or image.dim() != 4 or image.shape[1] != 3 or not image.numel():
        raise UserError(f"--reference {path}: it needs an array 'input' of shape [N, 3, H, W]")
    if image.numel() > 3 * MAX_PIXELS:
        raise UserError(f"--reference {path}: 'input' has {image.numel() // 3} pixels, allowed are {MAX_PIXELS}")
    # ``base.level2`` stands for ``level2``, ``norm5`` for ``features.norm5``.
    named = [
        next((full for full in names if name.endswith(f".{full}") or full.endswith(f".{name}")), name)
        for name in arrays
    ]
    if len(set(named)) < len(named):
        raise UserError(f"--reference {path}: two arrays for one output; its arrays are {', '.join(arrays)}")
    arrays = dict(zip(named, arrays.values(), strict=True))
    unknown = [name for name in arrays if name not in names]
    if unknown or not arrays:
        what = f"has {shown(unknown[0])}" if unknown else "has no outputs"
        raise UserError(f"--reference {path}: it {what}; its outputs may be named {', '.join(names)}")
    return Reference(image, arrays)


def _read_arrays(path: str | Path) -> dict[str, Tensor]:
    """All arrays of an ``.npz``, whose sizes in its directory are checked before they are unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            size, count = sum(entry.file_size for entry in archive.infolist()), len(archive.infolist())
        if size > MAX_BYTES or count > MAX_ARRAYS:
            raise ValueError(f"{count} arrays of {size} bytes; allowed are {MAX_ARRAYS} of {MAX_BYTES}")
        with np.load(path, allow_pickle=False) as arrays, np.errstate(all="ignore"):
            return {name: _real(name, arrays[name]) for name in arrays.files}
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen types of errors for damaged files
        raise UserError(f"--reference {path}: not an .npz of arrays ({first_line(error)[:200]})") from error


def _real(name: str, array: np.ndarray) -> Tensor:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise ValueError(f"{name} holds {getattr(array, 'dtype', 'bytes')}, not real numbers")
    return torch.from_numpy(np.asarray(array, np.float32))


@torch.no_grad()
def outputs_of(
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    names: Sequence[str],
    classifier: Classifier,
    image: Tensor | None = None,
    beneath_mask: bool = False,
) -> dict[str, Tensor]:
    """Name -> output of every stage, and the logits if there is a classifier; the network is gone afterwards.

    Args:
        config: of the backbone, built in eval mode.
        state: its tensors, loaded strictly.
        names: of the outputs of its stages.
        image: ``[N, 3, H, W]``; the fixed input if None.
        beneath_mask: let PSConv layers add the weights beneath the authors' mask, too, as the published layers do.
    Raises: UserError if the input does not suit the network.
    """
    image = fixed_input() if image is None else image
    part = check_part(config, "meta.backbone", out_indices=tuple(range(len(names))))
    backbone: Any = build_part(part, "meta.backbone", state).eval()
    for module in backbone.modules() if beneath_mask else ():
        if hasattr(module, "extra_keep"):
            module.extra_keep.fill_(True)
    try:
        maps = backbone(image)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--reference: an input of shape {list(image.shape)} does not suit the network: {error}"
        ) from error
    outputs = dict(zip(names, maps, strict=True))
    if classifier.exits is not None:
        from mmms_plugin.registry import MODELS

        heads = MODELS.build(dict(classifier.exits)).eval()
        heads.load_state_dict(classifier.state)
        outputs.update(zip(classifier.logits, heads(maps), strict=True))
    elif classifier.state:
        weight, bias = classifier.state["fc.weight"].float(), classifier.state["fc.bias"].float()
        outputs[LOGITS] = maps[-1].mean((2, 3)) @ weight.T + bias
    return outputs


def statistics(outputs: Mapping[str, Tensor], reference: Mapping[str, Tensor] | None = None) -> list[Statistics]:
    """Statistics of each output; with a reference, also the errors of the outputs in it.

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


def verify_written(
    written: Checkpoint, names: Sequence[str], classifier: Classifier, before_relu: Sequence[str], options: Options
) -> list[Statistics]:
    """Run what a written file holds, built from its own ``meta.backbone``, and compare it with ``--reference``.

    Args:
        names: of the outputs of its stages.
        before_relu: names of outputs whose reference lacks the ReLU that ends the stage here.
    Raises: UserError if an output differs from the reference by more than the tolerance.
    """
    image, wanted = None, None
    if options.reference:
        reference = read_reference(options.reference, [*names, *classifier.logits])
        image = reference.image
        wanted = {name: v.relu() if name in before_relu else v for name, v in reference.outputs.items()}
    prefix = written.meta["prefix"]
    state = {key.removeprefix(prefix): v for key, v in written.state.items() if key.startswith(prefix)}
    rows = statistics(outputs_of(written.meta["backbone"], state, names, classifier, image), wanted)
    check_tolerance(rows, options.tolerance)
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
    """Output -> root mean square difference, in standard deviations of ``before``."""
    return {name: float((after[name] - value).square().mean().sqrt() / value.std()) for name, value in before.items()}
