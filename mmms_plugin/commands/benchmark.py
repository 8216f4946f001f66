"""Measure the speed of layers, backbones, early exits and size-ap.

Layers and backbones are compared with their plain counterparts, size-ap with the other evaluators installed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mmms_plugin.errors import UserError
from mmms_plugin.files import check_folder
from mmms_plugin.options import CommandOptions, option, positional

if TYPE_CHECKING:
    from mmms_plugin.report.tables import Table
    from mmms_plugin.scale.speed import Setting

BENCHMARKS = Path(__file__).parents[2] / "tools/benchmarks"
SUBJECTS = {
    "layers": "PSConv layers and plain ones",
    "backbones": "the networks of every method and plain ones",
    "growth": "how their time and memory grow with the side and the number of pictures",
    "early-exit": "time and multiply-adds that MSDNet's early exits save",
    "size-ap": "evaluation by object size, from file to result, beside the other evaluators installed",
    "size-ap-coverage": "how often the evaluation's 95 % intervals contain the truth, on synthetic data",
    "size-ap-seeds": "the same for the difference of two methods with several seeds each",
    "all": "all that measure time, written as a page",
}
ROUNDS = {"layers": 15, "backbones": 7, "growth": 3, "early-exit": 5, "size-ap": 3, "size-ap-coverage": 500,
          "size-ap-seeds": 300}  # fmt: skip
ALL: tuple[tuple[str, dict[str, Any]], ...] = (  # subjects of ``all`` and their options
    ("layers", {}),
    ("layers", {"backward": True}),
    ("backbones", {"optimize": True, "channels_last": True}),
    ("backbones", {"backward": True, "channels_last": True}),
    ("growth", {"optimize": True, "channels_last": True}),
    ("early-exit", {}),
    ("size-ap", {}),
)
NETWORKS = ("layers", "backbones", "growth", "all")
ALLOWED = {  # subjects of each option that is not for every one
    **dict.fromkeys(("device", "dtype", "channels_last", "backward"), NETWORKS),
    "optimize": ("backbones", "growth"), "image_size": ("backbones", "all"), "batch": ("layers", "backbones", "all"),
    "arch": ("early-exit", "all"), "out": ("growth", "all"), "images": ("size-ap", "all"), "seeds": ("size-ap-seeds",),
}  # fmt: skip
MODELS, EVALUATION = "networks", "evaluation"  # headings


def only_for(name: str) -> str:
    """The end of an option's help."""
    return f", for {', '.join(ALLOWED[name])}"


@dataclass(kw_only=True)
class Options(CommandOptions):
    what: str = positional(
        choices=tuple(SUBJECTS), help="; ".join(f"{subject}: {text}" for subject, text in SUBJECTS.items())
    )
    rounds: int | None = option(
        least=1, metavar="N",
        help="measurements of each candidate (default: layers 15; backbones 7; growth, size-ap 3; early-exit 5), or "
        "data sets (default: size-ap-coverage 500; size-ap-seeds 300)",
    )  # fmt: skip
    out: Path | None = option(
        metavar="DIR", help="folder for the figure of growth and the page of all (default: all: docs; growth: none)"
    )
    device: str = option(default="cpu", group=MODELS, help=f"cpu, cuda or mps{only_for('device')}")
    dtype: str = option(
        choices=("float32", "bfloat16", "float16"), default="float32", group=MODELS,
        help=f"number format of weights and pictures{only_for('dtype')}",
    )  # fmt: skip
    channels_last: bool = option(default=False, group=MODELS, help=f"NHWC memory format{only_for('channels_last')}")
    batch: int = option(default=8, least=1, metavar="N", group=MODELS, help=f"pictures per batch{only_for('batch')}")
    image_size: int = option(
        default=224, least=32, metavar="PX", group=MODELS, help=f"side of the pictures{only_for('image_size')}"
    )
    backward: bool = option(
        default=False, group=MODELS, help=f"time the forward and backward pass, as in training{only_for('backward')}"
    )
    optimize: bool = option(
        default=False, group=MODELS,
        help=f"optimize all networks for inference first: norms folded, 1x1 layers by oneDNN, kernels of PSConv put "
        f"together once{only_for('optimize')}",
    )  # fmt: skip
    arch: str = option(default="imagenet_step4", group=MODELS, help=f"architecture of MSDNet{only_for('arch')}")
    images: int = option(
        default=5000, least=1, metavar="N", group=EVALUATION, help=f"images in the data set{only_for('images')}"
    )
    seeds: int = option(
        default=3, metavar="N", group=EVALUATION, help=f"seeds of each method, at least 2{only_for('seeds')}"
    )


def of_checkout(name: str) -> ModuleType:
    """A module of ``tools/benchmarks``, which is in the repository but not in the installed package."""
    if not BENCHMARKS.is_dir():
        raise UserError(
            f"{BENCHMARKS}: no such folder; this benchmark is in the repository, not in the installed package"
        )
    if str(BENCHMARKS) not in sys.path:
        sys.path.insert(0, str(BENCHMARKS))
    return import_module(name)


def run(options: Options) -> None:
    for name, subjects in ALLOWED.items():
        default = next(field.default for field in fields(options) if field.name == name)
        if options.what not in subjects and getattr(options, name) != default:
            raise UserError(f"--{name.replace('_', '-')}: only for {', '.join(subjects)}, not for {options.what}")
    if options.out:
        check_folder(options.out)
    if options.optimize and options.backward:
        raise UserError("--optimize --backward: a network that is optimized for inference cannot be trained; give one")
    if options.what == "size-ap-coverage":
        of_checkout("size_ap_coverage").run_coverage(_rounds(options))
    elif options.what == "size-ap-seeds":
        if options.seeds < 2:
            raise UserError(f"--seeds {options.seeds}: must be an integer of at least 2")
        of_checkout("size_ap_seeds").run_seed_coverage(_rounds(options), options.seeds)
    elif options.what == "all":
        _write_page(options, options.out or Path("docs"))
    else:
        _show(_tables(options))


def _tables(options: Options) -> Iterable[Table]:
    """The tables of one subject, each when it has been measured."""
    rounds = _rounds(options)
    if options.what == "size-ap":
        yield from of_checkout("size_ap_speed").size_ap_speed(options.images, rounds)
    elif options.what == "early-exit":
        from mmms_plugin.backbones import MSDNet
        from mmms_plugin.exits.savings import early_exit_speed

        if options.arch not in MSDNet.arch_settings:
            raise UserError(f"--arch {options.arch}: allowed are {', '.join(MSDNet.arch_settings)}")
        yield early_exit_speed(options.arch, 64, rounds)
    elif options.what == "growth":
        from mmms_plugin.scale.growth import draw_growth, growth_table, measure_growth

        setting = _setting(options)
        rows = measure_growth(setting)
        if options.out:
            draw_growth(rows, options.out)
        yield growth_table(rows, setting)
    else:
        from mmms_plugin.scale.speed import speed

        yield speed(options.what, _setting(options))


def _setting(options: Options) -> Setting:
    import torch

    from mmms_plugin.devices import usable_device
    from mmms_plugin.scale.speed import Setting

    usable_device(options.device)
    return Setting(
        options.device, getattr(torch, options.dtype), options.channels_last, options.batch, options.image_size,
        _rounds(options), options.backward, options.optimize,
    )  # fmt: skip


def _rounds(options: Options) -> int:
    return options.rounds or ROUNDS[options.what]


def _show(tables: Iterable[Table]) -> list[Table]:
    from rich.console import Console

    from mmms_plugin.report.terminal import print_table

    shown = []
    for table in tables:
        print_table(table, Console())
        shown.append(table)
    return shown


def _write_page(options: Options, folder: Path) -> None:
    """Measure everything, and write ``benchmarks.md`` and its figure to ``folder``."""
    from mmms_plugin.files import write_text
    from mmms_plugin.report.tables import to_markdown
    from mmms_plugin.scale.clock import machine
    from mmms_plugin.scale.growth import FIGURE

    of_checkout("size_ap_speed")  # before hours of measuring
    if not folder.is_dir():
        raise UserError(f"--out {folder}: no such folder")
    parts = ["# Benchmarks", "`mmms benchmark all` measured these figures and wrote this page.", machine()]
    for subject, more in ALL:
        chosen = replace(options, what=subject, out=folder, **more)
        parts.append(f"## {_command(chosen)}")
        parts += [to_markdown(table).rstrip() for table in _show(_tables(chosen))]
        if subject == "growth":
            parts.append(f"![Ratios to the plain twin, by size of the pictures and by batch]({FIGURE}.svg)")
    write_text(folder / "benchmarks.md", "\n\n".join(parts) + "\n")


def _command(options: Options) -> str:
    """The command line of a section, without ``--out``."""
    words = ["mmms benchmark", options.what]
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name in ("what", "out") or value == field.default:
            continue
        if options.what not in ALLOWED.get(field.name, SUBJECTS):
            continue
        words.append(f"--{field.name.replace('_', '-')}" + ("" if value is True else f" {value}"))
    return f"`{' '.join(words)}`"
