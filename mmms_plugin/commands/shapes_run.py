"""What ``mmms shapes`` does: read the shape of networks from configs, checkpoints or work folders, and draw it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import MODELS, init_default_scope
from rich.console import Console

from mmms_plugin.backbones.shape_plan import ShapedNetwork
from mmms_plugin.compat.newest import newest_checkpoint
from mmms_plugin.config.files import load_config
from mmms_plugin.errors import UserError, one_line
from mmms_plugin.files import check_folder, make_folder, write_text
from mmms_plugin.report.figure_style import save
from mmms_plugin.report.tables import Column, Table, print_table
from mmms_plugin.scale.flops import count
from mmms_plugin.scale.shapes import NetworkShape, draw_shapes, draw_trajectories
from mmms_plugin.weights.files import read_checkpoint
from mmms_plugin.weights.loading import load_backbone

SCALAR = "s_"  # of the names that ShapeAdaptorHook logs


def show_shapes(sources: Sequence[str], size: tuple[int, int], out: str) -> list[NetworkShape]:
    """Print and draw the shape of each network and of its human-designed twin, for a picture of ``size``.

    Args:
        sources: configs, converted checkpoints or work folders of a training.
        size: height and width of the picture in px.
        out: folder for ``shapes.json``, ``shapes.png`` (.pdf, .svg), and ``trajectory_*`` of work folders.

    Raises: UserError if a source is none of these, or its backbone has no learned shape.
    """
    check_folder(out)
    found = [_read(source) for source in sources]
    networks = [network_shape(network.name, network.backbone, size) for network in found]
    humans = {repr(sorted(twin.items())): twin for twin in (_human_design(network.config) for network in found)}
    every = [*(network_shape("human design", MODELS.build(twin), size) for twin in humans.values()), *networks]
    folder = make_folder(out)
    save(draw_shapes(every), folder, "shapes")
    content = [dict(name=n.name, params=n.params, macs=n.macs, scales=n.scales, sides=n.sides) for n in every]
    write_text(folder / "shapes.json", json.dumps(dict(size=size, networks=content), indent=1) + "\n")
    console = Console(highlight=False)
    print_table(_table(every, size), console)
    for source in sources:
        if scalars := trajectories(Path(source)):
            save(draw_trajectories(scalars), folder, f"trajectory_{Path(source).resolve().name}")
    console.print(f"written to {folder}: {', '.join(sorted(p.name for p in folder.glob('*.png')))}, shapes.json")
    return every


@dataclass(frozen=True)
class _Found:
    """A network, and the config dict of its backbone."""

    name: str
    backbone: ShapedNetwork
    config: dict[str, Any]


def _read(source: str) -> _Found:
    path = Path(source)
    if path.is_dir():
        backbone, config = _of_work_folder(path)
    elif path.suffix in (".pth", ".safetensors"):
        backbone = load_backbone(path)
        config = dict(read_checkpoint(path).meta["backbone"])
    else:
        backbone, config = _of_config(source)
    if not isinstance(backbone, ShapedNetwork):
        name = type(backbone).__name__
        raise UserError(f"{source}: its backbone {name} has no learned shape; give a ShapeAdaptor network")
    return _Found(one_line(path.stem if path.suffix else path.resolve().name), backbone, config)


def _of_config(source: str) -> tuple[Any, dict[str, Any]]:
    config = load_config(source)
    found = config.get("model", {}).get("backbone")
    if found is None:
        raise UserError(f"config {source}: its model has no backbone")
    backbone = {key: value for key, value in found.to_dict().items() if key not in ("init_cfg", "_scope_")}
    init_default_scope(config.get("default_scope") or "mmengine")
    return MODELS.build(dict(backbone)), backbone


def _of_work_folder(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The backbone of the config that training left in its work folder, with the alphas of the newest checkpoint."""
    configs = sorted(folder.glob("*.py"))
    if len(configs) != 1:
        raise UserError(f"{folder}: {len(configs)} configs in it, expected the one that training writes")
    checkpoint, _ = newest_checkpoint(folder)
    if checkpoint is None:
        raise UserError(f"{folder}: no whole checkpoint in it")
    (backbone, config), state = _of_config(str(configs[0])), read_checkpoint(checkpoint).state
    own = {key.removeprefix("backbone."): value for key, value in state.items() if key.endswith(".alpha")}
    for key, value in backbone.state_dict().items():
        if key in own:
            value.copy_(own[key])
    return backbone, config


def _human_design(config: dict[str, Any]) -> dict[str, Any]:
    """The config of the same network without adaptors."""
    own = ("mode", "num_adaptors", "limit_side", "design_size", "fixed_shape")
    return {**{key: value for key, value in config.items() if key not in own}, "mode": "human"}


def network_shape(name: str, backbone: ShapedNetwork, size: tuple[int, int]) -> NetworkShape:
    """Sides, scales and cost of a network for a picture of ``size``, (height, width)."""
    sides = tuple(backbone.shapes(*size))
    cells = backbone.plan.cells
    backbone.eval()
    scales = {cells[index].name: adaptor.scale for index, adaptor in backbone.plan.adaptors.items()}
    cost = count(deepcopy(backbone).to("meta"), torch.empty(1, 3, *size, device="meta"))
    return NetworkShape(name, sides, scales, cost.params, cost.macs)


def _table(networks: Sequence[NetworkShape], size: tuple[int, int]) -> Table:
    columns = ("network", Column("parameters M", ".3f"), Column("GMAC", ".3f"), "last map",
               Column("s of the adaptors", left=True))  # fmt: skip
    rows = []
    for network in networks:
        scales = ", ".join(f"{place} {scale:.3f}" for place, scale in network.scales.items()) or "–"
        last = f"{network.sides[-1][1]} x {network.sides[-1][2]}"
        rows.append((network.name, network.params / 1e6, network.macs / 1e9, last, scales))
    return Table("shapes", f"{size[0]} x {size[1]} px", columns, rows)


def trajectories(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """``{place: [(iteration, s), ...]}`` from the scalars that training logged; empty if there are none."""
    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(folder.glob("*/vis_data/scalars.json")):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # the last line of a run that was stopped
                continue
            step = entry.get("step") if isinstance(entry, dict) else None
            if not isinstance(step, int):
                continue
            for name, value in entry.items():
                if name.startswith(SCALAR) and isinstance(value, float):
                    found.setdefault(one_line(name.removeprefix(SCALAR)), []).append((step, value))
    return found
