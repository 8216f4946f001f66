"""Train configs with several seeds; compare metrics and costs.

Reports mean and standard deviation of the metrics. Runs are trained one at a time, or with --jobs several: seed 0 of
every config first, then seed 1 of every config. If the command is interrupted, give it again: it continues where it
stopped.
"""

# A run is an `mmms train` in a process of its own, so that runs do not affect each other. Its record,
# DIR/CONFIG/seed_0.json, is written when it is done.

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from mmms_plugin import signals
from mmms_plugin.commands.compare_seeds_records import SeedRecord, TrainedCost, read_record, read_scalars, trained_cost
from mmms_plugin.errors import RunError, UserError, one_line
from mmms_plugin.files import WINDOWS, check_folder, make_folder, write_text
from mmms_plugin.options import REQUIRED, CommandOptions, option, positional
from mmms_plugin.processes import PEAK_MEMORY, POLL, shell_words, wait_and_measure
from mmms_plugin.report.tables import NOT_AVAILABLE, Column, Table, to_markdown

WRITTEN = ("seeds.json", "seeds.md")
JOBS = "jobs"  # heading of --help
OWN_OPTIONS = ("--seed", "--work-dir", "--resume")
NOTE = (
    "Mean and standard deviation over the seeds; difference: from the first config, seed by seed. MMAC, and MiB kept "
    "for the backward pass: for one picture, with the learned shape; of a detector, backbone and neck. Peak: of the "
    "whole process."
)


def parse_train(text: str) -> list[str]:
    """The options in one argument as words."""
    return _words("--train", text)


def parse_srun(text: str) -> list[str]:
    """The same for srun."""
    return _words("--srun", text)


def _words(flag: str, text: str) -> list[str]:
    try:
        return shell_words(text)
    except ValueError as error:
        raise UserError(f"{flag} {text}: {error}") from None


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
    jobs: int | None = option(
        least=1, metavar="N", group=JOBS,
        help="trainings at once; on this machine they share its GPUs, or else its cores (default: 1, and with "
        "--launcher slurm all)",
    )  # fmt: skip
    launcher: str = option(
        choices=["none", "slurm"], default="none", group=JOBS,
        help="slurm submits each training by srun, which queues it; none starts it on this machine",
    )  # fmt: skip
    srun: tuple[str, ...] = option(
        default=(), metavar="OPTIONS", reader=parse_srun, group=JOBS,
        help="options of srun, as one argument: --srun='--gres=gpu:1 --cpus-per-task=8 --time=4:00:00'",
    )  # fmt: skip

    def check_files(self) -> None:
        super().check_files()
        if self.srun and self.launcher != "slurm":
            raise UserError("--srun: give --launcher slurm too")
        if self.launcher == "slurm" and shutil.which("srun") is None:
            raise UserError("--launcher slurm: this machine has no srun; start the command where jobs are submitted")


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

    from mmms_plugin.report.terminal import print_table, say
    from mmms_plugin.size_ap.results import plain

    configs, train = options.configs, list(options.train)
    _check(configs, train)
    check_folder(options.out)
    folder = make_folder(options.out)
    files = {(config, seed): folder / folder_name(config) / f"seed_{seed}.json"
             for seed in range(options.seeds) for config in configs}  # fmt: skip
    runs = _finished(files, train)  # all of them, before hours of training
    for record, _ in runs.values():
        _check_metrics(options.metrics or (), record.config, record.metrics)
    waiting = [_Job(config, seed, file) for (config, seed), file in files.items() if (config, seed) not in runs]
    with closing(_trained(waiting, options)) as done:
        for job in done:
            runs[job.config, job.seed] = _Run(job.record(train), trained_cost(job.work_dir))
    content = {config: _summary([runs[config, seed] for seed in range(options.seeds)]) for config in configs}
    for config in configs[1:]:
        content[config]["difference"] = _differences(content[configs[0]]["metrics"], content[config]["metrics"])
    names = list(options.metrics or _first_common({config: content[config]["metrics"] for config in configs}))
    for config in configs:
        _check_metrics(names, config, content[config]["metrics"])
    table = _table(content, names)
    write_text(folder / "seeds.json", json.dumps(content, indent=1, default=lambda spread: plain(vars(spread))) + "\n")
    write_text(folder / "seeds.md", to_markdown(table))
    caption = ", ".join(filter(None, (f"seeds: {options.seeds}", " ".join(train))))
    print_table(replace(table, caption=caption, note=NOTE), Console())
    say(f"written to {folder}: {', '.join(WRITTEN)}")


def _finished(files: Mapping[tuple[str, int], Path], options: list[str]) -> dict[tuple[str, int], _Run]:
    """The trainings that an earlier run of the command has finished, with the costs of their networks.

    Raises:
        UserError: a record is damaged or of another training, its work folder is incomplete, or a folder for one of
            the others cannot be written.
    """
    runs = {}
    for (config, seed), file in files.items():
        for path in (file.with_suffix(".log"), *(file.parents[1] / name for name in WRITTEN)):
            if path.is_dir():
                raise UserError(f"--out {path}: a folder is where a file would be written; give another DIR")
        if file.exists():
            runs[config, seed] = _Run(read_record(file, config, seed, options), trained_cost(file.with_suffix("")))
        else:
            check_folder(file.with_suffix(""))
    return runs


def _check_metrics(names: Sequence[str], config: str, metrics: Iterable[str]) -> None:
    known = list(metrics)
    for name in names:
        if name not in known:
            raise UserError(f"--metrics {name}: not reported by {config}; allowed are {', '.join(known)}")


def _first_common(metrics: Mapping[str, Mapping[str, Spread]]) -> list[str]:
    """The first metric that all configs report."""
    common = [name for name in next(iter(metrics.values())) if all(name in others for others in metrics.values())]
    if not common:
        reported = "; ".join(f"{config} {', '.join(names) or 'none'}" for config, names in metrics.items())
        raise UserError(f"the configs report no metric in common: {reported}")
    return common[:1]


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


class _Run(NamedTuple):
    record: SeedRecord
    cost: TrainedCost


@dataclass
class _Job:
    """A training: its process, and the peak of its memory in bytes so far.

    Attributes:
        place: what its environment has beside that of this command; jobs that run at once have different ones.
    """

    config: str
    seed: int
    file: Path
    process: subprocess.Popen | None = None
    peak: int = 0
    place: Mapping[str, str] = field(default_factory=dict)

    @property
    def work_dir(self) -> Path:
        return self.file.with_suffix("")

    @property
    def log(self) -> Path:
        return self.file.with_suffix(".log")

    @property
    def peak_file(self) -> Path:
        return self.file.with_suffix(".peak")

    def __str__(self) -> str:
        return f"{self.config}, seed {self.seed}"

    def start(self, options: Options) -> None:
        """Run ``mmms train``, here or where srun finds room for it; a signal waits until there is a process to end."""
        print(f"training {self}: {self.log}", flush=True)
        own = ["--seed", str(self.seed), "--work-dir", str(make_folder(self.work_dir)), "--resume"]
        command = [sys.executable, "-m", "mmms_plugin", "train", self.config, *own, *options.train]
        environment = os.environ | self.place | {"PYTHONUTF8": "1"}  # otherwise it restarts itself, see commands.script
        slurm = options.launcher == "slurm"
        if slurm:
            command = ["srun", "--ntasks=1", *options.srun, *command]
            environment[PEAK_MEMORY] = str(self.peak_file.resolve())  # srun's own memory is not the training's
        with open(self.log, "ab") as stream:
            signals.hold()
            self.process = subprocess.Popen(
                command, env=environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=slurm
            )
        signals.release()

    def ended(self) -> bool:
        """Whether it is done.

        Raises:
            UserError, RunError: it failed.
        """
        assert self.process is not None
        self.peak = wait_and_measure(self.process, block=False, peak=self.peak)
        if not self.process.returncode:
            return self.process.returncode == 0
        last = self.log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        kind = UserError if self.process.returncode == 2 else RunError
        raise kind(one_line(f"{self}: {last} (see {self.log})"))

    def record(self, options: Sequence[str]) -> SeedRecord:
        """Write the record of the training."""
        with suppress(OSError, ValueError):
            self.peak = int(self.peak_file.read_text(encoding="utf-8"))
            self.peak_file.unlink()
        metrics, seconds = read_scalars(self.work_dir)
        record = SeedRecord(self.config, self.seed, tuple(options), metrics, seconds, self.peak)
        write_text(self.file, json.dumps(record.as_dict(), indent=1) + "\n")
        return record


def _trained(waiting: Sequence[_Job], options: Options) -> Generator[_Job, None, None]:
    """Run the trainings, as many at once as the options say; yield each when it is done.

    If one fails, or a signal ends the command, the others end too; they save their state.
    """
    left, running, places = list(waiting), list[_Job](), _places(options, len(waiting))
    try:
        while left or running:
            while left and places:
                running.append(left.pop(0))
                running[-1].place = places.pop(0)
                running[-1].start(options)
            for job in [job for job in running if job.ended()]:
                running.remove(job)
                places.append(job.place)
                yield job
                if len(places) + len(running) > 1:
                    print(f"{len(waiting) - len(left) - len(running)} of {len(waiting)} done: {job}", flush=True)
            if running and not (left and places):
                time.sleep(POLL)
    except BaseException:
        where = {0: "between trainings", 1: f"in the training of {''.join(map(str, running))}"}
        text = where.get(len(running), f"in {len(running)} trainings")
        with signals.explained(f"{text}; give the command again to continue"):
            raise
    finally:
        for job in running:
            # on Windows Ctrl-C reaches the training too, and terminate() would not let it save its state
            if job.process is not None and job.process.returncode is None and not WINDOWS:
                job.process.terminate()
        for job in running:
            if job.process is not None and job.process.returncode is None:
                job.process.wait()


def _places(options: Options, trainings: int) -> list[Mapping[str, str]]:
    """The variables of each of the trainings that run at once: its GPU, and its share of this machine's cores."""
    if options.launcher == "slurm":
        return [{}] * (options.jobs or trainings)
    jobs = min(options.jobs or 1, trainings)
    if jobs <= 1:
        return [{}] * jobs
    import torch

    from mmms_plugin.train.processes import usable_cores

    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[: torch.cuda.device_count()]
    if gpus == [""]:
        gpus = [str(number) for number in range(torch.cuda.device_count())]
    cores = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(max(1, usable_cores() // jobs))}
    return [cores | ({"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {}) for i in range(jobs)]


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) over the seeds; ``deviation`` is None for one seed.

    Both are NaN if a value is.
    """

    mean: float
    deviation: float | None
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if any(map(math.isnan, values)):
            return cls(math.nan, math.nan, tuple(values))
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, tuple(values))

    def text(self, digits: int, sign: str = "") -> str:
        """``58.21 ± 0.40``; with ``sign`` '+', gains have a sign too."""
        if math.isnan(self.mean):
            return NOT_AVAILABLE
        mean = f"{self.mean:{sign}.{digits}f}"
        return mean if self.deviation is None else f"{mean} ± {self.deviation:.{digits}f}"


def _summary(runs: Sequence[_Run]) -> dict[str, Any]:
    records, costs = [run.record for run in runs], [run.cost for run in runs]
    names = [name for name in records[0].metrics if all(name in record.metrics for record in records)]
    return dict(
        metrics={name: Spread.of([record.value(name) for record in records]) for name in names},
        params=costs[0].params,
        macs=Spread.of([cost.macs for cost in costs]),
        kept=Spread.of([cost.kept for cost in costs]),
        seconds=Spread.of([record.seconds for record in records]),
        peak_memory=Spread.of([record.peak_memory for record in records]),
    )


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
