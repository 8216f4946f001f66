"""What ``mmms flops`` prints and writes: one backbone, or a paper's tables beside the measured figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import MODELS, init_default_scope
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmms_plugin.analysis.elastic_tables import Comparison, compare
from mmms_plugin.analysis.flops import exit_macs, measure
from mmms_plugin.engine.config_files import first_line, load_config
from mmms_plugin.errors import UserError
from mmms_plugin.files import written_whole


def show_elastic_tables(json_file: str | None) -> None:
    """Print Tables 1, 2, 6, 7 and 8 of the ELASTIC paper beside what is measured; keep them as JSON if asked to."""
    bar = Console(stderr=True)
    results = compare(lambda rows: track(rows, "measuring", console=bar, transient=True))
    title = "ELASTIC paper and measured; 224 x 224, convolutions and linear layers"
    table = Table(title=title, caption=_CAPTION, box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("", "params\nM\npaper", "\n\nhere", "GFLOPs\n\npaper", "GMAC\n\nhere", "up-\nsampl.\nGFLOPs",
                  "top-1\nerror\npaper"):  # fmt: skip
        table.add_column(title, justify="left" if title == "" else "right", no_wrap=True)
    before = ""
    for result in results:
        if result.row.table != before:
            table.add_section()
            table.add_row(f"[bold]Table {result.row.table}[/bold]")
        before = result.row.table
        table.add_row(*_cells(result))
    Console().print(table)
    if json_file:
        _write_json(json_file, [result.as_dict() for result in results])


_CAPTION = (
    "The paper's figures are rounded to 0.1; an exclamation mark where the measured one, with or without up-sampling "
    "(8 operations a value), rounds to another. "
    "DLA: with the layers that its authors count and never use. Errors are the paper's, not measured. "
    "Table 1: formulas for one 3x3 layer, 64 channels, 56 x 56."
)


def _cells(result: Comparison) -> list[str]:
    row = result.row
    digits = 4 if row.table == "1" else 1
    return [
        row.name,
        "" if row.params is None else f"{row.params:.{digits}f}", _marked(result.params, result.params_agree),
        f"{row.flops:.{digits}f}", _marked(result.gmacs, result.flops_agree),
        f"{result.cost.upsampling / 1e9:.3f}", "" if row.top1 is None else f"{row.top1:.2f}",
    ]  # fmt: skip


def _marked(value: float, agrees: bool) -> str:
    return f"{value:.3f}" if agrees else f"[red]! {value:.3f}[/red]"


def show_backbone(target: str, options: Mapping[str, Any], size: tuple[int, int], json_file: str | None) -> None:
    """Print parameters and multiply-adds of a registered backbone or of a config's.

    Raises: UserError for an unknown name, and for what the backbone refuses.
    """
    config = {**_backbone_config(target), **options}
    try:
        cost = measure(config, size)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise UserError(f"{target}: {first_line(error)} (give arguments with --cfg-options)") from error
    table = Table(
        "", "parameters M", "GMAC", "bilinear up-sampling GFLOPs", title=f"{config['type']}, {size[0]} x {size[1]}"
    )
    table.add_row(
        _arguments(config), f"{cost.params / 1e6:.3f}", f"{cost.macs / 1e9:.3f}", f"{cost.upsampling / 1e9:.3f}"
    )
    Console().print(table)
    exits = _exit_macs(target, config, size)
    for number, macs in enumerate(exits):
        Console().print(f"exit {number + 1}: {macs / 1e6:.1f} MMAC, classifiers included", highlight=False)
    if json_file:
        _write_json(json_file, dict(exits=exits, config=config, size=size, measured=asdict(cost)))


def _exit_macs(target: str, config: Mapping[str, Any], size: tuple[int, int]) -> list[int]:
    """Multiply-adds up to each exit of a config with several classifiers; empty where there is one, or none."""
    if MODELS.get(f"mmms_plugin.{target.removeprefix('mmms_plugin.')}") is not None:
        return []
    head = load_config(target).model.get("head") or {}
    if not str(head.get("type")).endswith("MultiExitHead"):
        return []
    with torch.device("meta"):
        return exit_macs(MODELS.build(dict(config)), list(MODELS.build(dict(head)).exits), size)


def _backbone_config(target: str) -> dict[str, Any]:
    name = target.removeprefix("mmms_plugin.")
    if MODELS.get(f"mmms_plugin.{name}") is not None:
        return dict(type=f"mmms_plugin.{name}")
    config = load_config(target)
    if "backbone" not in config.get("model", {}):
        raise UserError(f"config {target}: its model has no backbone")
    own = str(config.model.backbone.get("type")).startswith("mmms_plugin.")  # needs no host
    init_default_scope("mmengine" if own else config.get("default_scope") or "mmengine")
    return {key: value for key, value in config.model.backbone.to_dict().items() if key not in ("init_cfg", "_scope_")}


def _arguments(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in config.items() if key not in ("type", "norm_cfg"))


def _write_json(path: str, content: Any) -> None:
    with written_whole(Path(path)) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
