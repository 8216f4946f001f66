"""Train configs with several seeds; compare metrics and costs.

Reports mean and standard deviation of the metrics. Runs are trained one at a time: seed 0 of every config first, then
seed 1 of every config. If the command is interrupted, give it again: it continues where it stopped.
"""

# A run is an `mmms train` in a process of its own, so that runs do not affect each other. Its record,
# DIR/CONFIG/seed_0.json, is written when it is done.

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from mmms_plugin.errors import RunError, UserError, one_line
from mmms_plugin.files import check_folder, make_folder, write_text
from mmms_plugin.options import REQUIRED, CommandOptions, option, positional
from mmms_plugin.processes import shell_words, wait_and_measure
from mmms_plugin.report.tables import Column, Table, print_table, to_markdown

NOT_METRICS = ("step", "time", "data_time", "epoch", "iter")
OWN_OPTIONS = ("--seed", "--work-dir", "--resume")
NOTE = (
    "Mean and standard deviation over the seeds; difference: from the first config, seed by seed. MMAC, and MiB kept "
    "for the backward pass: for one picture, with the learned shape; of a detector, backbone and neck. Peak: of the "
    "whole process."
)


def parse_train(text: str) -> list[str]:
    """The options in one argument as words."""
    try:
        return shell_words(text)
    except ValueError as error:
        raise UserError(f"--train {text}: {error}") from None


@dataclass(kw_only=True)
class Options(CommandOptions):
    configs: tuple[str, ...] = positional(
        metavar="CONFIG",
        help="config files, or names that `mmms configs` lists; each is compared with the first",
    )
    out: str = option(default=REQUIRED, metavar="DIR", help="folder for the runs, seeds.json and the table seeds.md")
    seeds: int = option(default=3, least=1, metavar="N", help="number of seeds: 0 to N - 1")
    train: tuple[str, ...] = option(
        default=(), metavar="OPTIONS", reader=parse_train,
        help="options of mmms train for all runs, as one argument: --train='--image-dir DIR --epochs 2'",
    )  # fmt: skip
    metrics: tuple[str, ...] | None = option(
        metavar="NAME",
        help="metrics in the table, such as accuracy/top1 (default: the first one reported); seeds.json has all",
    )  # fmt: skip


def run(options: Options) -> None:
    """Train the configs with all seeds; print and write their metrics and costs.

    Raises:
        UserError: wrong options, or ``out`` holds runs with other options.
        RunError: a training fails.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hosts warn about their own deprecated calls
        _run(options)


def _run(options: Options) -> None:
    from rich.console import Console

    configs, train = options.configs, list(options.train)
    _check(configs, train)
    check_folder(options.out)
    folder = make_folder(options.out)
    records: dict[str, list[dict[str, Any]]] = {config: [] for config in configs}
    for seed in range(options.seeds):
        for config in configs:
            records[config].append(_record(config, seed, folder / folder_name(config), train))
    content = {config: _summary(runs, folder / folder_name(config)) for config, runs in records.items()}
    for config in configs[1:]:
        content[config]["difference"] = _differences(content[configs[0]]["metrics"], content[config]["metrics"])
    names = list(options.metrics or list(content[configs[0]]["metrics"])[:1])
    for name in names:
        if any(name not in summary["metrics"] for summary in content.values()):
            known = ", ".join(content[configs[0]]["metrics"])
            raise UserError(f"--metrics {name}: not reported; allowed are {known}")
    table = _table(content, names)
    write_text(folder / "seeds.json", json.dumps(content, indent=1, default=vars) + "\n")
    write_text(folder / "seeds.md", to_markdown(table))
    console = Console()
    caption = ", ".join(filter(None, (f"seeds: {options.seeds}", " ".join(train))))
    print_table(replace(table, caption=caption, note=NOTE), console)
    console.print(f"written to {folder}: seeds.json, seeds.md", soft_wrap=True, highlight=False)


def folder_name(config: str) -> str:
    """Folder for a config's runs: ``cifar10/resnext29_small`` becomes ``cifar10-resnext29_small``."""
    parts = Path(config.replace("::", "/")).with_suffix("").parts
    return "-".join(part for part in parts[-2:] if part.strip("./") and not Path(part).anchor)


def _check(configs: Sequence[str], options: Sequence[str]) -> None:
    from mmms_plugin.config.files import load_config

    for config in configs:
        load_config(config)
    names = [folder_name(config) for config in configs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"CONFIG {twice}: given twice")
    for word in options:
        if word.partition("=")[0] in OWN_OPTIONS:
            raise UserError(f"--train {word}: this command sets {', '.join(OWN_OPTIONS)} itself")


def _record(config: str, seed: int, folder: Path, options: list[str]) -> dict[str, Any]:
    """The record of one run, from its file or by training now."""
    file = folder / f"seed_{seed}.json"
    if file.is_file():
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if record["options"] != options:
            before = " ".join(record["options"])
            raise UserError(
                f"--out {folder.parent}: {file.name} of {config} was trained with {before}; give another DIR"
            )
        return record
    print(f"training {config}, seed {seed}: {folder / f'seed_{seed}.log'}", flush=True)
    work_dir = make_folder(folder / f"seed_{seed}")
    peak = _train(config, seed, work_dir, options)
    metrics, seconds = read_scalars(work_dir)
    record = dict(config=config, seed=seed, options=options, metrics=metrics, seconds=seconds, peak_memory=peak)
    write_text(file, json.dumps(record, indent=1) + "\n")
    return record


def _train(config: str, seed: int, work_dir: Path, options: Sequence[str]) -> int:
    """Run ``mmms train``; returns the peak memory of its process in bytes."""
    own = ["--seed", str(seed), "--work-dir", str(work_dir), "--resume"]
    command = [sys.executable, "-m", "mmms_plugin", "train", config, *own, *options]
    log = work_dir.with_suffix(".log")
    with open(log, "ab") as stream:
        environment = os.environ | {"PYTHONUTF8": "1"}  # otherwise the command restarts itself, see commands.script
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT)
        try:
            peak = wait_and_measure(process)
        except KeyboardInterrupt:
            process.terminate()
            raise
    if process.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        kind = UserError if process.returncode == 2 else RunError
        raise kind(one_line(f"{config}, seed {seed}: {last} (see {log})"))
    return peak


def read_scalars(work_dir: Path) -> tuple[dict[str, float], float]:
    """Metrics of a training's last evaluation, and the median time of an iteration in seconds.

    Raises:
        RunError: the training logged no evaluation.
    """
    metrics: dict[str, float] = {}
    times: list[float] = []
    for file in sorted(work_dir.glob("*/vis_data/scalars.json")):
        for line in file.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if "loss" in entry:
                times.append(entry["time"])
            else:
                metrics = {key: value for key, value in entry.items() if key not in NOT_METRICS}
    if not metrics or not times:
        raise RunError(f"{work_dir}: the training logged no metrics; does the config evaluate?")
    return metrics, statistics.median(times)


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) over the seeds; ``deviation`` is None for one seed."""

    mean: float
    deviation: float | None
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, tuple(values))

    def text(self, digits: int, sign: str = "") -> str:
        """``58.21 ± 0.40``; with ``sign`` '+', gains have a sign too."""
        mean = f"{self.mean:{sign}.{digits}f}"
        return mean if self.deviation is None else f"{mean} ± {self.deviation:.{digits}f}"


def _summary(records: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    names = [name for name in records[0]["metrics"] if all(name in record["metrics"] for record in records)]
    costs = [trained_cost(folder / f"seed_{record['seed']}") for record in records]
    return dict(
        metrics={name: Spread.of([record["metrics"][name] for record in records]) for name in names},
        params=costs[0].params,
        macs=Spread.of([cost.macs for cost in costs]),
        kept=Spread.of([cost.kept for cost in costs]),
        seconds=Spread.of([record["seconds"] for record in records]),
        peak_memory=Spread.of([record["peak_memory"] for record in records]),
    )


class TrainedCost(NamedTuple):
    """Parameters; for one picture, multiply-adds and the bytes that training keeps for the backward pass."""

    params: int
    macs: int
    kept: int


def trained_cost(work_dir: Path) -> TrainedCost:
    """Cost of the config that training left in ``work_dir``, with the shape of its newest checkpoint.

    For detectors, multiply-adds and memory are those of backbone and neck.

    Raises: UserError if there is no config or no checkpoint.
    """
    import torch
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import MODELS, DefaultScope, init_default_scope

    from mmms_plugin.config.facts import as_counted, picture_size, task_name
    from mmms_plugin.config.files import load_config
    from mmms_plugin.scale.flops import count, kept_for_backward
    from mmms_plugin.weights.files import read_checkpoint
    from mmms_plugin.weights.newest import newest_checkpoint

    configs = sorted(work_dir.glob("*.py"))
    checkpoint, _ = newest_checkpoint(work_dir)
    if len(configs) != 1 or checkpoint is None:
        raise UserError(f"{work_dir}: must hold one config and a checkpoint, as training writes them")
    config = load_config(str(configs[0]))
    with DefaultScope.overwrite_default_scope(config.default_scope):
        init_default_scope(config.default_scope)
        model: Any = revert_sync_batchnorm(MODELS.build(config.model))
    state = read_checkpoint(checkpoint).state
    for key, value in model.state_dict().items():
        if key.endswith(".alpha"):
            value.copy_(state[key])
    model = model.train().to("meta")  # in training mode, adaptors keep their scale as the number that this needs
    part, size = as_counted(model, task_name(config.model)), picture_size(config)
    kept = kept_for_backward(part, torch.empty(2, 3, *size, device="meta")) // 2
    cost = count(part, torch.empty(1, 3, *size, device="meta"))
    return TrainedCost(cost.params, cost.macs, kept)


def _differences(first: Mapping[str, Spread], other: Mapping[str, Spread]) -> dict[str, Spread]:
    """Differences from the first config, seed by seed."""
    return {
        name: Spread.of([b - a for a, b in zip(first[name].values, other[name].values, strict=True)])
        for name in first
        if name in other
    }


def _table(content: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> Table:
    columns = ["config", *(title for name in names for title in (name, "difference"))]
    costs = [Column("parameters K", ".1f"), Column("MMAC", ".2f"), Column("kept MiB", ".2f")]
    costs += [Column("s/iteration", ".3f"), Column("peak GiB", ".2f")]
    rows = []
    for config, summary in content.items():
        cells = [config]
        for name in names:
            metric, difference = summary["metrics"][name], summary.get("difference", {}).get(name)
            digits = 2 if metric.mean > 1 else 4  # per cent, or a share such as COCO's AP
            cells += [metric.text(digits), difference.text(digits, "+") if difference else "–"]
        values = (summary["params"] / 1e3, summary["macs"].mean / 1e6, summary["kept"].mean / 2**20)
        rows.append([*cells, *values, summary["seconds"].mean, summary["peak_memory"].mean / 2**30])
    return Table("seeds", "", [*columns, *costs], rows)
