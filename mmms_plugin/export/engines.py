"""The formats of exported files: how each is written, and read back by its engine."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from mmms_plugin.errors import RunError
from mmms_plugin.export.endings import check_ending
from mmms_plugin.export.graph import Graph
from mmms_plugin.export.resampling import onnx_translations

PICTURE = "picture"  # the input's name
INFO = "mmms_plugin"  # key of the facts beside the graph
Run = Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]


class Engine(ABC):
    """One format.

    Attributes:
        name: of the program that runs it, in messages.
        own_operators: whether those of this package can be translated.
    """

    name: ClassVar[str]
    own_operators: ClassVar[bool] = False

    @abstractmethod
    def write(self, graph: Graph, path: Path, info: Mapping[str, Any]) -> None:
        """Write a graph with facts about it."""

    @abstractmethod
    def load(self, path: Path) -> Run:
        """The file as a function of pictures, run by its engine."""


class Torch(Engine):
    """``.pt2``, read by ``torch.export.load``."""

    name = "torch"

    def write(self, graph: Graph, path: Path, info: Mapping[str, Any]) -> None:
        torch.export.save(graph.program, path, extra_files={f"{INFO}.json": json.dumps(info)})

    def load(self, path: Path) -> Run:
        module = torch.export.load(path).module()

        def run(x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
            try:
                with torch.no_grad():
                    return [y.numpy() for y in module(torch.from_numpy(x))]
            except AssertionError as error:  # a guard: where the network crops a map, only sizes that need it
                shape = " x ".join(map(str, x.shape))
                raise RunError(
                    f"{path.name}: torch.export's graph of this network refuses pictures of {shape}: write .onnx, or "
                    "give the network's stride to --multiple, such as 32"
                ) from error

        return run


class Onnx(Engine):
    """``.onnx``, read by onnxruntime."""

    name = "onnxruntime"
    own_operators = True

    def write(self, graph: Graph, path: Path, info: Mapping[str, Any]) -> None:
        program = onnx_program(graph)
        program.model.metadata_props[INFO] = json.dumps(info)
        program.save(path)

    def load(self, path: Path) -> Run:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda x: list(session.run(None, {PICTURE: x}))


class OpenVino(Engine):
    """``.xml`` with ``.bin`` beside it, read by OpenVINO."""

    name = "OpenVINO"

    def write(self, graph: Graph, path: Path, info: Mapping[str, Any]) -> None:
        import openvino

        model = openvino.convert_model(graph.program)
        for port, name in zip((*model.inputs, *model.outputs), (PICTURE, *graph.names), strict=True):
            port.get_tensor().set_names({name})
        openvino.save_model(model, path, compress_to_fp16=False)

    def load(self, path: Path) -> Run:
        import openvino

        # by default it computes with bfloat16 where the processor can
        compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda x: [np.asarray(y) for y in compiled(x).values()]


ENGINES: Mapping[str, Engine] = {".onnx": Onnx(), ".pt2": Torch(), ".xml": OpenVino()}


def onnx_program(graph: Graph) -> Any:
    """The graph as torch's ONNX program, with named axes."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph.program, (), None, dynamo=True, verbose=False, input_names=[PICTURE], output_names=[*graph.names],
            custom_translation_table=onnx_translations(),
        )  # fmt: skip
    assert program is not None
    return program


def engine_for(out: Path) -> Engine:
    """The engine of a file's ending.

    Raises: UserError for another ending, and where the engine is not installed.
    """
    check_ending(out)
    return ENGINES[out.suffix]
