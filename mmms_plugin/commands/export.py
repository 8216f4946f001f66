"""Export a model as ONNX, torch.export or OpenVINO.

The ending of OUT is the format. Classifiers and segmentation models are exported whole, of detectors the backbone and
neck. Batch size, height and width stay free. Before the file gets its name, its engine runs it at other sizes, and the
outputs are compared with torch's.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmms_plugin.errors import UserError, one_line
from mmms_plugin.files import check_folder, checkpoint_file
from mmms_plugin.options import option, positional
from mmms_plugin.train.options import ModelOptions


@dataclass(kw_only=True)
class Options(ModelOptions):
    LEFT_OUT = ("device", "max_pixels")

    config: str = positional(
        help="a config file or name. A config is Python code and is run: use only configs that you trust"
    )
    checkpoint: str = positional(exists=checkpoint_file, help="weights of the config's model")
    out: Path = positional(
        metavar="OUT",
        help="file to write: .onnx for onnxruntime, .pt2 for torch.export.load, .xml for OpenVINO",
    )
    exits: tuple[int, ...] | None = option(
        metavar="N", least=1,
        help="exits of a network with several, such as MSDNet, from 1; nothing after the last of them is exported "
        "(default: the last exit)",
    )  # fmt: skip
    multiple: int = option(
        default=1, least=1, most=1024, metavar="N",
        help="take only heights and widths that are multiples of N px; with the stride, such as 32, networks with "
        "Elastic need no cropping and are faster",
    )  # fmt: skip
    int8: tuple[str, ...] | None = option(
        metavar="PICTURES",
        help="write .onnx in integers of 8 bits, with ranges from every second of these pictures (files, folders), at "
        "most 64; the others show how far it is from float32 (default: float32)",
    )  # fmt: skip


def run(options: Options) -> None:
    """Write the file.

    Raises:
        UserError: config and checkpoint do not fit each other, or the model cannot be exported.
        RunError: the engine's outputs differ from torch's.
    """
    from mmms_plugin.export.endings import check_ending

    if options.out.is_dir():
        raise UserError(f"OUT {options.out}: it is a folder, give a file")
    check_ending(options.out)
    check_folder(options.out.parent, "OUT")
    if options.int8 and options.out.suffix != ".onnx":
        raise UserError(f"--int8: OUT {options.out} must end in .onnx")
    pictures = _readable(options.int8, options.out) if options.int8 else []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hosts' warnings about their own deprecated calls
        _export(options, pictures)


def _export(options: Options, pictures: list[Path]) -> None:
    from mmms_plugin.config.checkpoint import check_function, use_components
    from mmms_plugin.config.function import Function
    from mmms_plugin.config.image_size import own_size
    from mmms_plugin.export.int8 import Calibration
    from mmms_plugin.export.write import export_model
    from mmms_plugin.report.terminal import say
    from mmms_plugin.train.predict import build_model, classes_of, config_of
    from mmms_plugin.train.tasks import task_of
    from mmms_plugin.weights.files import read_checkpoint

    saved = read_checkpoint(options.checkpoint)
    config = config_of(options, saved.meta)
    classes, _ = classes_of(config, saved.meta)
    remarks = [use_components(config.model, saved)]
    own = Function.of(config)
    model = build_model(config, saved, "cpu")
    remarks.append(check_function(model, own, saved, options.force))
    for remark in filter(None, remarks):
        print(one_line(remark), file=sys.stderr)
    width, height = own_size(config)
    calibration = Calibration.of(pictures, _loader(config, model)) if pictures else None
    inputs = _inputs(model)
    done = export_model(
        model, options.out, task_of(config).noun, (height, width), exits=options.exits, multiple=options.multiple,
        info=dict(inputs, classes=classes), int8=calibration,
    )  # fmt: skip
    graph = done.graph
    say(f"{done.path}: {', '.join(graph.names)}; {graph.limits()}")
    say(f"checked in {done.engine} at {_shapes(done.shapes)}: within {done.error:.1g} standard deviations of torch's")
    if done.int8:
        say(str(done.int8))
    if inputs:
        say(f"pictures: {inputs['channel_order']}, less mean {inputs['mean']}, divided by std {inputs['std']}")


def _readable(arguments: Sequence[str], out: Path) -> list[Path]:
    """Pictures of ``--int8``; raises UserError if there are fewer than two, or one of them cannot be read."""
    from mmms_plugin.data.pictures import problem_of
    from mmms_plugin.train.inputs import find_inputs

    paths = [source.path for source in find_inputs(arguments, out)]
    if len(paths) < 2:
        raise UserError(f"--int8: {len(paths)} picture; two are needed, one for ranges and one for the comparison")
    for path in paths:
        if problem := problem_of(path):
            raise UserError(f"--int8: {path}: {problem}")
    return paths


def _loader(config: Any, model: Any) -> Callable[[Path], Any]:
    """Loads a picture's file as the network takes it, ``[C, H, W]``: after test pipeline and normalisation."""
    from mmengine.dataset import pseudo_collate

    from mmms_plugin.config.check import user_fault
    from mmms_plugin.train.predict import picture_pipeline

    pipeline = picture_pipeline(config)

    def load(path: Path) -> Any:
        packed = user_fault("the test pipeline", partial(pipeline, {"img_path": str(path), "img_id": 0}))
        return model.data_preprocessor(pseudo_collate([packed]), False)["inputs"][0].float().numpy()

    return load


def _shapes(shapes: Any) -> str:
    return " and ".join(f"{n} x {c} x {h} x {w}" for n, c, h, w in shapes)


def _inputs(model: Any) -> dict[str, Any]:
    """How the host prepares pictures for its network; empty if its preprocessor does not say so."""
    preprocessor = getattr(model, "data_preprocessor", None)
    mean, std = (getattr(preprocessor, name, None) for name in ("mean", "std"))
    if mean is None or std is None:
        return {}
    conversions = ("_channel_conversion", "channel_conversion", "to_rgb")  # of mmengine and mmdet, mmseg, mmpretrain
    order = "RGB" if any(getattr(preprocessor, name, False) for name in conversions) else "BGR"
    numbers = {name: [round(v, 4) for v in value.flatten().tolist()] for name, value in (("mean", mean), ("std", std))}
    return dict(numbers, channel_order=order)
