"""Time and memory from file to result, beside the other evaluators that are installed, in one run.

The data are made up, with the size of COCO val. Every measurement has its own process, so that memory is that of one
evaluator; the evaluators take turns, in reverse order every other round, so that a slow moment of the machine affects
all. Compare processor time: it is for one thread, without Python's start and imports. Time on the clock, shown beside
it, grows with other work on the machine. Ours leaves out error types and the curve over sizes, which the others do not
compute.

Then come 500 paired replicates of the bootstrap beside hotcoco's, and the time that the command takes to start.

Ours is compared with pycocotools and, if installed, ultrafast-pycocotools, hotcoco, vernier and faster-coco-eval.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import track
from size_ap_population import as_coco, simulate

from mmms_plugin.processes import peak_memory
from mmms_plugin.report.tables import Column, Rows, Table

REPLICATES, PAIRED_REPLICATES, PAIRED_IMAGES, TINY = 1000, 500, 1000, 20
OURS = "mmms"
VERNIER = "vernier"  # whose interface is its own
# name: (module of COCO, module and name of the evaluator)
OTHERS = {
    "ultrafast-pycocotools": ("ultrafast_pycocotools", "ultrafast_pycocotools", "COCOeval"),
    "hotcoco": ("hotcoco", "hotcoco", "COCOeval"),
    "faster-coco-eval": ("faster_coco_eval", "faster_coco_eval", "COCOeval_faster"),
    "pycocotools": ("pycocotools.coco", "pycocotools.cocoeval", "COCOeval"),
}
RIVALS = (*OTHERS, VERNIER)
SLOW = ("faster-coco-eval", "pycocotools")  # measured once
ONE_THREAD = ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Measurement:
    """One evaluation in its own process.

    Attributes:
        load: processor time to read both files, in seconds.
        evaluate: processor time to evaluate, in seconds.
        wall: time on the clock of both, in seconds.
        mebibytes: peak memory.
        ap: the result.
    """

    load: float
    evaluate: float
    wall: float
    mebibytes: float
    ap: float


class _Clock:
    """Processor time and time on the clock since it was made, in seconds."""

    def __init__(self) -> None:
        self.start = time.process_time(), time.perf_counter()

    def read(self) -> tuple[float, float]:
        return time.process_time() - self.start[0], time.perf_counter() - self.start[1]


def measure(name: str, folder: str, replicates: int = 0) -> Measurement:
    """One evaluation of ``ann.json`` and ``pred.json`` in ``folder``, with COCO's bins, in this process."""
    truth_file, run_file = (str(Path(folder, f"{stem}.json")) for stem in ("ann", "pred"))
    if name == OURS:
        return _ours(truth_file, run_file, replicates)
    return _vernier(truth_file, run_file) if name == VERNIER else _other(name, truth_file, run_file)


def _ours(truth_file: str, run_file: str, replicates: int) -> Measurement:
    from mmms_plugin.coco.read import read_detections, read_ground_truth
    from mmms_plugin.size_ap.evaluate import evaluate
    from mmms_plugin.size_ap.options import Options

    clock = _Clock()
    truth, _ = read_ground_truth(truth_file, masks=False)
    run, _ = read_detections(run_file, truth, masks=False)
    loaded, _ = clock.read()
    results = evaluate(truth, [run], Options(errors=False, sweep=False, replicates=replicates))
    end, wall = clock.read()
    return Measurement(loaded, end - loaded, wall, peak_memory() / 2**20, results.runs[0].bins[0].ap or 0.0)


def _vernier(truth_file: str, run_file: str) -> Measurement:
    """It reads the predictions in the evaluation."""
    instance: Any = importlib.import_module("vernier.instance")
    clock = _Clock()
    truth = instance.CocoDataset.from_json(Path(truth_file).read_bytes())
    run = Path(run_file).read_bytes()
    loaded, _ = clock.read()
    evaluator = instance.Evaluator(iou=instance.Bbox(), parity_mode="strict")
    summary = evaluator.evaluate(truth, run, num_threads=1)
    end, wall = clock.read()
    return Measurement(loaded, end - loaded, wall, peak_memory() / 2**20, float(summary.stats[0]))


def _other(name: str, truth_file: str, run_file: str) -> Measurement:
    """The steps that all evaluators with the interface of pycocotools share."""
    data_module, evaluation_module, evaluation_name = OTHERS[name]
    coco_class = importlib.import_module(data_module).COCO
    evaluation_class = getattr(importlib.import_module(evaluation_module), evaluation_name)
    with contextlib.redirect_stdout(io.StringIO()):
        clock = _Clock()
        truth = coco_class(truth_file)
        run = (truth.loadRes if hasattr(truth, "loadRes") else truth.load_res)(run_file)
        loaded, _ = clock.read()
        evaluation = evaluation_class(truth, run, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        end, wall = clock.read()
    return Measurement(loaded, end - loaded, wall, peak_memory() / 2**20, float(evaluation.stats[0]))


def paired_bootstrap(name: str, folder: str) -> tuple[float, float]:
    """Processor and clock time, in seconds, of the paired bootstrap of ``pred.json`` and ``other.json`` alone.

    Ours is the time of an evaluation with the bootstrap minus one without; hotcoco's ``compare`` does nothing else.
    """
    paths = [str(Path(folder, f"{stem}.json")) for stem in ("ann", "pred", "other")]
    if name != OURS:
        hotcoco: Any = importlib.import_module("hotcoco")
        truth = hotcoco.COCO(paths[0])
        evaluations = [hotcoco.COCOeval(truth, truth.load_res(path), "bbox") for path in paths[1:]]
        for evaluation in evaluations:
            evaluation.evaluate()
        clock = _Clock()
        hotcoco.compare(*evaluations, n_bootstrap=PAIRED_REPLICATES)
        return clock.read()
    from mmms_plugin.coco.read import read_detections, read_ground_truth
    from mmms_plugin.size_ap.evaluate import evaluate
    from mmms_plugin.size_ap.options import Options

    ours, _ = read_ground_truth(paths[0], masks=False)
    runs = [read_detections(path, ours, masks=False)[0] for path in paths[1:]]
    times = []
    for replicates in (0, PAIRED_REPLICATES):
        clock = _Clock()
        evaluate(ours, runs, Options(errors=False, sweep=False, replicates=replicates))
        times.append(clock.read())
    return times[1][0] - times[0][0], times[1][1] - times[0][1]


def size_ap_speed(images: int = 5000, rounds: int = 3) -> Iterator[Table]:
    """Medians over ``rounds`` of all evaluators, of the paired bootstrap, and of the time to start.

    Those of `SLOW`, and ours with a bootstrap of 1,000 replicates, are measured once.
    """
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))  # read by the processes that measure
    with tempfile.TemporaryDirectory() as folder:
        what = _fresh(_write, images, folder)
        measurements: dict[str, list[Measurement]] = {}
        for name, replicates in track([*_jobs(rounds)], "measuring", console=Console(stderr=True), transient=True):
            label = _label(name) + (f", bootstrap of {replicates}" if replicates else "")
            measurements.setdefault(label, []).append(_fresh(measure, name, folder, replicates))
        yield _table(what, rounds, measurements)
    with tempfile.TemporaryDirectory() as folder:
        yield _bootstrap_table(folder, rounds)
    with tempfile.TemporaryDirectory() as folder:
        yield _start_table(folder, rounds)


def _fresh(function: Callable[..., Any], *arguments: object) -> Any:
    """The function's value, from a spawned process: on Linux a forked one starts with its parent's peak memory."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def _jobs(rounds: int) -> Iterator[tuple[str, int]]:
    """Evaluator and replicates of every measurement."""
    names = [OURS, *(name for name in RIVALS if _version(name))]
    for i in range(rounds):
        now = [name for name in names if i == 0 or name not in SLOW]
        yield from ((name, 0) for name in (now if i % 2 == 0 else now[::-1]))
    yield OURS, REPLICATES


def _bootstrap_table(folder: str, rounds: int) -> Table:
    what = _fresh(_write, PAIRED_IMAGES, folder, 0.9)
    title = f"{PAIRED_REPLICATES} paired replicates of two runs: {what}"
    names = [OURS, *(["hotcoco"] if _version("hotcoco") else [])]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for i in range(rounds):
        for name in names if i % 2 == 0 else names[::-1]:
            times[name].append(_fresh(paired_bootstrap, name, folder))
    rows = [(_label(name), *(median(column) for column in zip(*many, strict=True))) for name, many in times.items()]
    return _time_table("bootstrap", title, rows, rounds)


def _start_table(folder: str, rounds: int) -> Table:
    """Each in a new Python; with a report, matplotlib's start and the figures take most of the time."""
    _write(TINY, folder)
    ann, pred, out = (str(Path(folder, name)) for name in ("ann.json", "pred.json", "report"))
    command = [sys.executable, "-m", "mmms_plugin", "size-ap"]
    evaluate = f"from mmms_plugin.size_ap import size_ap; size_ap({ann!r}, {pred!r})"
    jobs = {
        "mmms size-ap --help": [*command, "--help"],
        "mmms size-ap --ann (sizes of objects)": [*command, "--ann", ann],
        "size_ap(ann, pred) in Python, with error types": [sys.executable, "-c", evaluate],
        "mmms size-ap with the report": [*command, "--ann", ann, "--pred", pred, "--out", out],
    }
    title = f"from the start of Python to its end, {TINY} images"
    rows = []
    for name, words in jobs.items():
        many = [_start(words) for _ in range(rounds)]
        rows.append((name, *(median(column) for column in zip(*many, strict=True))))
    return _time_table("start", title, rows, rounds)


def _time_table(name: str, title: str, rows: Rows, rounds: int) -> Table:
    note = f"medians, rounds: {rounds}"
    return Table(name, title, ("", "processor, s", "clock, s"), rows, note=note, form=".2f")


def _start(words: list[str]) -> tuple[float, float]:
    before, clock = os.times(), _Clock()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return spent, clock.read()[1]


def _write(images: int, folder: str, other: float = 0.0) -> str:
    """Write ground truth, a run, and another run with the share ``other`` of its detections; returns a description."""
    truth, run = simulate(images)
    annotations, results = as_coco(truth, run)
    content: dict[str, Any] = {"ann": annotations, "pred": results}
    if other:
        content["other"] = results[: round(other * len(run))]
    for stem, part in content.items():
        Path(folder, f"{stem}.json").write_text(json.dumps(part), encoding="utf-8")
    return f"{images:,} images, {len(truth):,} objects, {len(run):,} detections"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _label(name: str) -> str:
    return name if name == OURS else f"{name} {_version(name)}"


def _table(what: str, rounds: int, measurements: dict[str, list[Measurement]]) -> Table:
    note = f"seconds of the processor, medians, rounds: {rounds} (slow ones: one); memory: peak of the process"
    if absent := [name for name in RIVALS if not _version(name)]:
        note += f"; not installed, and so not measured: {', '.join(absent)}"
    if len({round(m.ap, 9) for many in measurements.values() for m in many}) > 1:
        note += "; the evaluators differ in AP: please report this"
    title = f"box AP by size: {what}"
    rows: Rows = []
    for name, many in measurements.items():
        columns = ("load", "evaluate", "wall", "mebibytes")
        load, evaluation, wall, memory = (median(getattr(m, key) for m in many) for key in columns)
        both = median(m.load + m.evaluate for m in many)
        rows.append((name, load, evaluation, both, wall, memory, many[0].ap))
    figures = (Column(name, ".2f") for name in ("read", "evaluate", "both", "on the clock"))
    columns = (Column("", left=True), *figures, Column("MiB", ".0f"), Column("AP", ".9f"))
    return Table("speed", title, columns, rows, note=note)
