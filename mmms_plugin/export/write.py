"""The whole way from a model to a checked file."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mmms_plugin.errors import RunError, UserError
from mmms_plugin.export.assembled import assemble_kernels
from mmms_plugin.export.engines import Run, engine_for
from mmms_plugin.export.graph import Graph, Size, capture, outputs_of
from mmms_plugin.export.int8 import Array, Calibration, Quantized, quantize
from mmms_plugin.export.networks import ExportedNetwork, exported_network
from mmms_plugin.export.resampling import replace_resampling
from mmms_plugin.files import files_written_together
from mmms_plugin.inference.optimize import fold_norms

TOLERANCE = 1e-4  # largest difference from torch, in standard deviations of the output


@dataclass(frozen=True)
class Exported:
    """A written file.

    Attributes:
        path: of the file.
        graph: that it holds.
        engine: that ran it.
        error: largest difference from torch, in standard deviations of the output.
        shapes: of the pictures that were compared.
        int8: what the step to integers of 8 bits cost, if it was taken.
    """

    path: Path
    graph: Graph
    engine: str
    error: float
    shapes: Sequence[tuple[int, int, int, int]]
    int8: Quantized | None = None


def export_model(
    model: nn.Module,
    out: Path,
    task: str,
    size: Size,
    *,
    exits: Sequence[int] | None = None,
    multiple: int = 1,
    info: Mapping[str, Any] | None = None,
    int8: Calibration | None = None,
) -> Exported:
    """Write a model for the engine of the file's ending, after comparing it there with torch.

    Args:
        model: of a host, in eval mode, on the CPU; it stays as it is.
        out: ``.onnx``, ``.pt2`` or ``.xml``.
        task: as ``exported_network`` takes it.
        size: height and width in px that networks with learned sizes keep.
        exits: of a classifier with several exits, from 1.
        multiple: of which the heights and widths of pictures are multiples.
        info: facts to keep in the file beside the limits.
        int8: for a file in integers of 8 bits; for ``.onnx`` only.

    Raises:
        UserError: the model cannot be exported.
        RunError: the engine's outputs differ from torch's; then nothing is written.
    """
    engine = engine_for(out)
    original = exported_network(model, task, exits)
    prepared = exported_network(prepare(model, own_operators=engine.own_operators), task, exits)
    graph = capture(prepared, size, multiple)
    facts = dict(info or {}, outputs=graph.names, least=graph.least, multiple=graph.multiple, fixed=graph.fixed)
    with files_written_together(out.parent, "OUT") as folder:
        engine.write(graph, folder / out.name, facts)
        run, shapes = engine.load(folder / out.name), graph.checked_shapes()
        error = max(_difference(original, run, shape, engine.name) for shape in shapes)
        quantized = quantize(folder / out.name, _fitting(graph, int8), graph.names) if int8 else None
    return Exported(out, graph, engine.name, error, shapes, quantized)


def _fitting(graph: Graph, calibration: Calibration) -> Calibration:
    """Loads ``[1, C, H, W]`` of sizes that the graph takes: zeros are added at the right and the bottom."""

    def fitting(path: Path) -> Array:
        picture = calibration.load(path)
        height, width = picture.shape[1:]
        if graph.fixed and (height, width) != graph.least:
            raise UserError(
                f"--int8: {path} has {width} x {height} px after the test pipeline, the network takes "
                f"{graph.least[1]} x {graph.least[0]} px: set the pipeline's size by --image-size"
            )
        rows, columns = (
            -(-max(side, least) // graph.multiple) * graph.multiple
            for side, least in zip((height, width), graph.least, strict=True)
        )
        return np.pad(picture, ((0, 0), (0, rows - height), (0, columns - width)))[None]

    return replace(calibration, load=fitting)


def prepare(model: nn.Module, own_operators: bool) -> nn.Module:
    """A copy of which the simplest graph is captured: norms folded, kernels of PSConv assembled.

    Args:
        model: stays as it is.
        own_operators: whether the engine can have operators of this package, for Elastic's up-sampling.
    """
    tensors = [*model.parameters(), *model.buffers()]
    prepared = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    fold_norms(prepared)
    assemble_kernels(prepared)
    if own_operators:
        replace_resampling(prepared)
    return prepared


def _difference(network: ExportedNetwork, run: Run, shape: tuple[int, ...], engine: str) -> float:
    """Largest difference between an engine's outputs and torch's, in standard deviations of torch's."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    wanted = outputs_of(network, x)
    errors = [0.0]
    for y, expected in zip(run(x.numpy()), wanted, strict=True):
        if y.shape != tuple(expected.shape):
            raise RunError(f"{engine} gives {list(y.shape)} for pictures {list(shape)}, torch {list(expected.shape)}")
        scale = float(expected.std()) if expected.numel() > 1 else 0.0
        errors.append(float(np.abs(y - expected.numpy()).max()) / (scale or float(expected.abs().max()) or 1.0))
    if not (error := max(errors)) <= TOLERANCE:
        raise RunError(
            f"{engine}'s outputs for pictures {list(shape)} differ from torch's by {error:.2g} of their standard "
            f"deviation, allowed is {TOLERANCE:g}; nothing is written"
        )
    return error
