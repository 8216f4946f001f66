"""An ONNX file that computes in integers of 8 bits, with ranges from real pictures (onnxruntime's static quantisation).

Weights have a range for each channel, are symmetric, and use 7 of the bits, so that sums do not saturate on processors
without VNNI; activations have a range for each map and are unsigned. Pictures are used in turn: one for the ranges,
one for the comparison.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from mmms_plugin.export.engines import PICTURE, Onnx, Run

MOST = 128  # pictures that are used
Array = NDArray[np.float32]
Load = Callable[[Path], Array]


@dataclass(frozen=True)
class Quantized:
    """How far a file in integers is from the same file in float32.

    Attributes:
        ranges: number of pictures that gave the ranges.
        compared: number of others, which both files ran on.
        error: average difference of the outputs, in their standard deviations; the largest one of all outputs.
        agreement: share of decisions that stay, of the pictures or pixels of ``logits``; None without such an output.
    """

    ranges: int
    compared: int
    error: float
    agreement: float | None

    def __str__(self) -> str:
        same = "" if self.agreement is None else f", {self.agreement:.2%} of the decisions are the same"
        return (
            f"8-bit integers: ranges from {self.ranges} pictures; on {self.compared} others the outputs differ from "
            f"float32's by {self.error:.2g} standard deviations on average{same}"
        )


@dataclass(frozen=True)
class Calibration:
    """Pictures for the step to integers.

    Attributes:
        ranges: those that give the ranges.
        others: those on which the result is compared with float32.
        load: a picture's file as the network takes it, ``[C, H, W]``.
    """

    ranges: Sequence[Path]
    others: Sequence[Path]
    load: Load

    @classmethod
    def of(cls, pictures: Sequence[Path], load: Load) -> Calibration:
        """With every second picture for the ranges, of at most `MOST`."""
        pictures = pictures[:: -(-len(pictures) // MOST)]
        return cls(pictures[::2], pictures[1::2], load)


def quantize(file: Path, calibration: Calibration, names: Sequence[str]) -> Quantized:
    """Replace an ONNX file of float32, with the input `PICTURE`, by one in integers.

    Args:
        file: to replace.
        calibration: which loads pictures ``[1, C, H, W]``.
        names: of the outputs.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    load, console = calibration.load, Console(stderr=True)
    ranges, others = (
        track(paths, what, console=console, transient=True)
        for paths, what in ((calibration.ranges, "ranges of maps"), (calibration.others, "comparing with float32"))
    )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared, small = (str(Path(folder, name)) for name in ("prepared.onnx", "int8.onnx"))
        quant_pre_process(str(file), prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared, small, _Reader(ranges, load), per_channel=True, reduce_range=True,
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
        )  # fmt: skip
        model, facts = onnx.load(small), onnx.load(str(file), load_external_data=False).metadata_props
        del model.metadata_props[:]
        model.metadata_props.extend(facts)
        onnx.save(model, small)
        error, agreement = compare(Onnx().load(file), Onnx().load(Path(small)), map(load, others), names)
        file.write_bytes(Path(small).read_bytes())
    return Quantized(len(calibration.ranges), len(calibration.others), error, agreement)


class _Reader:
    """The pictures as onnxruntime's calibration asks for them."""

    def __init__(self, pictures: Iterable[Path], load: Load) -> None:
        self._inputs = iter({PICTURE: load(path)} for path in pictures)

    def get_next(self) -> dict[str, Array] | None:
        return next(self._inputs, None)


def compare(whole: Run, small: Run, pictures: Iterable[Array], names: Sequence[str]) -> tuple[float, float | None]:
    """Average differences of the outputs, in standard deviations, and the share of equal decisions."""
    differences: list[list[float]] = [[] for _ in names]
    same: list[NDArray[np.bool_]] = []
    for x in pictures:
        for found, expected, of_output, name in zip(small(x), whole(x), differences, names, strict=True):
            of_output.append(float(np.abs(found - expected).mean() / (expected.std() or 1.0)))
            if name == names[-1] and not name.startswith("map"):
                same.append((found.argmax(1) == expected.argmax(1)).ravel())
    error = max(float(np.mean(of_output)) for of_output in differences)
    return error, float(np.concatenate(same).mean()) if same else None
