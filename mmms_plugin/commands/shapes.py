"""Draw shape-adapted networks, and how training shaped them.

Shows the side of every map, the scales, the multiply-adds and the memory beside those of the human design. For a work
folder, also shows how every scale changed during training; for several, in one figure, and their accuracy against
their cost. Of more than 8 networks, the figure of shapes has the 4 most and the 4 least accurate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmms_plugin.config.files import find_config
from mmms_plugin.errors import UserError, counted, one_line
from mmms_plugin.files import check_folder, checkpoint_file, make_folder, write_text
from mmms_plugin.options import CommandOptions, option, positional
from mmms_plugin.report.tables import Column, Table

if TYPE_CHECKING:
    from mmms_plugin.backbones.shape_plan import ShapedNetwork
    from mmms_plugin.scale.shapes import NetworkShape


DRAWN = 8  # most networks of a figure
CHECKPOINTS = (".pth", ".safetensors")


def _check_sources(sources: Sequence[str]) -> None:
    for source in sources:
        if Path(source).suffix in CHECKPOINTS:
            checkpoint_file(source)
        elif not Path(source).is_dir():
            find_config(source)


@dataclass(kw_only=True)
class Options(CommandOptions):
    sources: tuple[str, ...] = positional(
        metavar="SOURCE", exists=_check_sources,
        help="a config, a checkpoint of mmms convert, or a training's work folder",
    )  # fmt: skip
    size: tuple[int, int] | None = option(
        least=1, metavar=("H", "W"),
        help="height, then width, of the picture in px; --image-size of other commands takes WIDTHxHEIGHT (default: "
        "the config's; of a checkpoint, those of its design)",
    )  # fmt: skip
    out: str = option(default="shapes", metavar="DIR", help="folder for figures and shapes.json")


@dataclass(frozen=True)
class _Network:
    """A source's name, its backbone and the config of that, and the size of the picture, (height, width) in px."""

    name: str
    backbone: ShapedNetwork
    config: dict[str, Any]
    size: tuple[int, int]


def run(options: Options) -> None:
    """Print and draw the shape of each network and of its human design.

    Writes ``shapes.json``, ``shapes.png`` (.pdf, .svg), ``trajectory_*`` for each work folder, and for several
    ``trajectories`` and ``accuracy_and_cost``.

    Raises: UserError if a source is none of these, its backbone has no learned shape, or pictures are too small for it.
    """
    from mmengine.registry import MODELS
    from rich.console import Console

    from mmms_plugin.config.check import user_fault
    from mmms_plugin.report.figure_style import save
    from mmms_plugin.report.terminal import print_table, say
    from mmms_plugin.scale.shapes import (
        draw_accuracies,
        draw_compared_trajectories,
        draw_shapes,
        draw_trajectories,
        logged_accuracy,
        network_shape,
        trajectories,
    )

    def shape_of(name: str, backbone: ShapedNetwork, size: tuple[int, int]) -> NetworkShape:
        return user_fault(name, lambda: network_shape(name, backbone, size))  # such as pictures that are too small

    check_folder(options.out)
    networks = [_read(source, options.size) for source in options.sources]
    adapted = [shape_of(network.name, network.backbone, network.size) for network in networks]
    designs = [(_human_design(network.config), network.size) for network in networks]
    twins = {repr((sorted(config.items()), size)): (config, size) for config, size in designs}
    human = [shape_of("human design", MODELS.build(config), size) for config, size in twins.values()]
    folder = make_folder(options.out)
    accuracies = [logged_accuracy(Path(source)) for source in options.sources]
    trained = [(shape, accuracy) for shape, accuracy in zip(adapted, accuracies, strict=True) if accuracy is not None]
    save(draw_shapes([*human, *_few(adapted, trained)]), folder, "shapes")
    if len(trained) > 1:
        save(draw_accuracies(trained), folder, "accuracy_and_cost")
    content = [
        dict(
            name=shape.name, size=shape.sides[0][1:], params=shape.params, macs=shape.macs, memory=shape.memory,
            scales=shape.scales, sides=shape.sides,
        )
        for shape in (*human, *adapted)
    ]  # fmt: skip
    write_text(folder / "shapes.json", json.dumps(dict(networks=content), indent=1) + "\n")
    print_table(_table([*human, *adapted]), Console())
    trainings = {}
    for source in options.sources:
        if scalars := trajectories(Path(source)):
            name = Path(source).resolve().name
            trainings[one_line(name)] = scalars
            save(draw_trajectories(scalars), folder, f"trajectory_{name}")
    if len(trainings) > 1:
        save(draw_compared_trajectories(trainings), folder, "trajectories")
    say(f"written to {folder}: {', '.join(sorted(p.name for p in folder.glob('*.png')))}, shapes.json")


def _few(adapted: Sequence[NetworkShape], trained: Sequence[tuple[NetworkShape, float]]) -> list[NetworkShape]:
    """Networks to draw: all, or of many the most and the least accurate ones."""
    if len(adapted) <= DRAWN:
        return list(adapted)
    ranked = [shape for shape, _ in sorted(trained, key=lambda pair: -pair[1])]
    half = DRAWN // 2
    return [*ranked[:half], *ranked[-half:]] if len(ranked) >= DRAWN else list(adapted[:DRAWN])


def _read(source: str, size: tuple[int, int] | None) -> _Network:
    from mmms_plugin.backbones.shape_plan import ShapedNetwork
    from mmms_plugin.weights.files import read_checkpoint
    from mmms_plugin.weights.loading import load_backbone

    path = Path(source)
    own = None
    if path.is_dir():
        backbone, config, own = _of_work_folder(path)
    elif path.suffix in CHECKPOINTS:
        backbone = load_backbone(path)
        config = dict(read_checkpoint(path).meta["backbone"])
    else:
        backbone, config, own = _of_config(source)
    if not isinstance(backbone, ShapedNetwork):
        name = type(backbone).__name__
        raise UserError(f"{source}: its backbone {name} has no learned shape; give a ShapeAdaptor network")
    name = one_line(path.stem if path.suffix else path.resolve().name)
    return _Network(name, backbone, config, size or own or (design_side(config),) * 2)


def design_side(config: Mapping[str, Any]) -> int:
    """Side in px of the pictures that a backbone is designed for, by its config."""
    from mmms_plugin.backbones import shape_plan

    return shape_plan.design_side(config.get("design_size"), config.get("stem", "imagenet"))


def _of_config(source: str) -> tuple[Any, dict[str, Any], tuple[int, int] | None]:
    """The backbone of a config, its part of the config, and the size of the config's pictures, None if it has none."""
    from mmengine.registry import MODELS

    from mmms_plugin.config.check import user_fault
    from mmms_plugin.config.files import load_config
    from mmms_plugin.config.image_size import own_size
    from mmms_plugin.registry import use_scope

    config = load_config(source)
    declared = config.get("model", {}).get("backbone")
    if declared is None:
        raise UserError(f"config {source}: its model has no backbone")
    backbone = {key: value for key, value in declared.to_dict().items() if key not in ("init_cfg", "_scope_")}
    use_scope(config.get("default_scope") or "mmengine")
    size = None
    with suppress(UserError):  # a config without pipelines
        size = own_size(config)[::-1]
    return user_fault(f"config {source}", lambda: MODELS.build(dict(backbone))), backbone, size


def _of_work_folder(folder: Path) -> tuple[Any, dict[str, Any], tuple[int, int] | None]:
    """As `_of_config` of the config in a work folder, with the alphas of the newest checkpoint."""
    from mmms_plugin.weights.files import read_checkpoint
    from mmms_plugin.weights.newest import newest_checkpoint

    configs = sorted(folder.glob("*.py"))
    if len(configs) != 1:
        raise UserError(f"{folder}: {counted(len(configs), 'config')} in it; must be the one that training writes")
    checkpoint, _ = newest_checkpoint(folder)
    if checkpoint is None:
        raise UserError(f"{folder}: no usable checkpoint in it")
    (backbone, config, size), state = _of_config(str(configs[0])), read_checkpoint(checkpoint).state
    own = {key.removeprefix("backbone."): value for key, value in state.items() if key.endswith(".alpha")}
    for key, value in backbone.state_dict().items():
        if key in own:
            value.copy_(own[key])
    return backbone, config, size


def _human_design(config: dict[str, Any]) -> dict[str, Any]:
    """The config of the network without adaptors."""
    own = ("mode", "num_adaptors", "initial_scale", "output_dim", "limit_side", "fixed_shape")
    return {**{key: value for key, value in config.items() if key not in own}, "mode": "human"}


def _table(networks: Sequence[NetworkShape]) -> Table:
    columns = (
        "network", "picture", Column("parameters M", ".3f"), Column("GMAC", ".3f"), Column("MiB kept", ".2f"),
        "last map", Column("s of the adaptors", prose=True),
    )  # fmt: skip
    rows = []
    for network in networks:
        scales = ", ".join(f"{place} {scale:.3f}" for place, scale in network.scales.items()) or "–"
        picture, last = (f"{height} x {width}" for _, height, width in (network.sides[0], network.sides[-1]))
        rows.append(
            (network.name, picture, network.params / 1e6, network.macs / 1e9, network.memory / 2**20, last, scales)
        )
    note = "MiB kept: what training keeps of a picture for the backward pass, in float32"
    return Table("shapes", "height x width in px", columns, rows, note=note)
