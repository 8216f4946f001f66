"""``mmms compare-seeds``: several configs trained with several seeds; mean and spread of their metrics, and costs.

A run is an ``mmms train`` in a process of its own, so that no run sees anything of another. Its record,
``DIR/CONFIG/seed_0.json``, is written when it is done.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from mmms_plugin.commands.trained_cost import trained_cost
from mmms_plugin.config.files import load_config
from mmms_plugin.errors import RunError, UserError, one_line
from mmms_plugin.files import check_folder, make_folder, write_text
from mmms_plugin.processes import wait_and_measure
from mmms_plugin.report.tables import Column, Table, print_table, to_markdown

NOT_METRICS = ("step", "time", "data_time", "epoch", "iter")
OWN_OPTIONS = ("--seed", "--work-dir", "--resume")
NOTE = (
    "Mean and standard deviation over the seeds; difference: of the same seeds, to the first config. MMAC, and MiB "
    "kept for the backward pass: for one picture, with the learned shape; of detectors the backbone and neck. "
    "Peak: of the whole process."
)


@dataclass(frozen=True)
class Spread:
    """Of one number over the seeds: ``deviation`` is that of the sample (n - 1), None for one seed."""

    mean: float
    deviation: float | None
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, tuple(values))

    def text(self, digits: int, sign: str = "") -> str:
        """``58.21 ± 0.40``; ``sign`` '+' writes one in front of a gain too."""
        mean = f"{self.mean:{sign}.{digits}f}"
        return mean if self.deviation is None else f"{mean} ± {self.deviation:.{digits}f}"


def compare_seeds(
    configs: Sequence[str], seeds: int, out: str, options: Sequence[str], metrics: Sequence[str] | None = None
) -> dict[str, Any]:
    """Train ``configs`` with the seeds 0 to ``seeds - 1``; print, write and return what they reached.

    Args:
        out: folder for the runs, ``seeds.json`` and ``seeds.md``.
        options: of ``mmms train``, for every run.
        metrics: for the table; by default the first that is reported.

    Raises: UserError for options that do not fit, and if ``out`` holds runs with others; RunError if a training fails.
    """
    _check(configs, options)
    check_folder(out)
    folder = make_folder(out)
    records: dict[str, list[dict[str, Any]]] = {config: [] for config in configs}
    for seed in range(seeds):
        for config in configs:
            records[config].append(_record(config, seed, folder / folder_name(config), list(options)))
    content = {config: _summary(found, folder / folder_name(config)) for config, found in records.items()}
    for config in configs[1:]:
        content[config]["difference"] = _differences(content[configs[0]]["metrics"], content[config]["metrics"])
    names = list(metrics or list(next(iter(content.values()))["metrics"])[:1])
    for name in names:
        if any(name not in one["metrics"] for one in content.values()):
            known = ", ".join(next(iter(content.values()))["metrics"])
            raise UserError(f"--metrics {name}: reported are {known}")
    table = _table(content, names)
    write_text(folder / "seeds.json", json.dumps(content, indent=1, default=vars) + "\n")
    write_text(folder / "seeds.md", to_markdown(table))
    console = Console()
    print_table(
        replace(table, caption=", ".join(filter(None, (f"{seeds} seeds", " ".join(options)))), note=NOTE), console
    )
    console.print(f"written to {folder}: seeds.json, seeds.md", soft_wrap=True, highlight=False)
    return content


def folder_name(config: str) -> str:
    """Of a config's runs: ``cifar10/resnext29_small`` is ``cifar10-resnext29_small``."""
    parts = Path(config.replace("::", "/")).with_suffix("").parts
    return "-".join(part for part in parts[-2:] if part.strip("./") and not Path(part).anchor)


def _check(configs: Sequence[str], options: Sequence[str]) -> None:
    for config in configs:
        load_config(config)
    names = [folder_name(config) for config in configs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"CONFIG: {twice} is given twice")
    for option in options:
        if option.partition("=")[0] in OWN_OPTIONS:
            raise UserError(f"--train {option}: this command sets {', '.join(OWN_OPTIONS)} itself")


def _record(config: str, seed: int, folder: Path, options: list[str]) -> dict[str, Any]:
    """Of one run, from its file or by training now."""
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
    """Run ``mmms train``; the most memory that its process held, in bytes."""
    own = ["--seed", str(seed), "--work-dir", str(work_dir), "--resume"]
    command = [sys.executable, "-m", "mmms_plugin", "train", config, *own, *options]
    log = work_dir.with_suffix(".log")
    with open(log, "ab") as stream:
        environment = os.environ | {"PYTHONUTF8": "1"}  # as it would start itself anew otherwise, see commands.script
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
    """What a training logged: the metrics of its last evaluation, and the median time of an iteration in seconds.

    Raises: RunError if it was not evaluated.
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


def _summary(records: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    names = [name for name in records[0]["metrics"] if all(name in one["metrics"] for one in records)]
    costs = [trained_cost(folder / f"seed_{one['seed']}") for one in records]
    return dict(
        metrics={name: Spread.of([one["metrics"][name] for one in records]) for name in names},
        params=costs[0].params,
        macs=Spread.of([cost.macs for cost in costs]),
        kept=Spread.of([cost.kept for cost in costs]),
        seconds=Spread.of([one["seconds"] for one in records]),
        peak_memory=Spread.of([one["peak_memory"] for one in records]),
    )


def _differences(first: Mapping[str, Spread], other: Mapping[str, Spread]) -> dict[str, Spread]:
    """Of the same seeds."""
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
