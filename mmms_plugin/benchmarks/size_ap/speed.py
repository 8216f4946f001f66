"""Time and memory from file to result, beside the other evaluators that are installed, in one run.

The data are made up, of COCO val's size. Every measurement has a process of its own, so that memory is that of one
evaluator, and the evaluators take turns, so that a slow moment of the machine touches all. Time is the processor's,
with one thread, without the start of Python and imports.

Beside ours and pycocotools, which is always there: ultrafast-pycocotools, hotcoco and faster-coco-eval, if installed.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmms_plugin.benchmarks.size_ap.simulate import as_coco, simulate

REPLICATES = 1000
OURS = "mmms"
# name: (module of COCO, module and name of the evaluation)
OTHERS = {
    "ultrafast-pycocotools": ("ultrafast_pycocotools", "ultrafast_pycocotools", "COCOeval"),
    "hotcoco": ("hotcoco", "hotcoco", "COCOeval"),
    "faster-coco-eval": ("faster_coco_eval", "faster_coco_eval", "COCOeval_faster"),
    "pycocotools": ("pycocotools.coco", "pycocotools.cocoeval", "COCOeval"),
}
ONE_THREAD = ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Measurement:
    """Seconds of processor time to read both files and to evaluate, peak memory of the process in MiB, and AP."""

    load: float
    evaluate: float
    mebibytes: float
    ap: float


def measure(name: str, folder: str, replicates: int = 0) -> Measurement:
    """One evaluation of ``ann.json`` and ``pred.json`` in ``folder``, with COCO's bins, in this process."""
    truth_file, run_file = (str(Path(folder, f"{stem}.json")) for stem in ("ann", "pred"))
    return _ours(truth_file, run_file, replicates) if name == OURS else _other(name, truth_file, run_file)


def _ours(truth_file: str, run_file: str, replicates: int) -> Measurement:
    from mmms_plugin.analysis.size_ap.evaluate import Options, evaluate
    from mmms_plugin.analysis.size_ap.reading.read import read_detections, read_ground_truth

    start = time.process_time()
    truth, _ = read_ground_truth(truth_file, masks=False)
    run, _ = read_detections(run_file, truth, masks=False)
    loaded = time.process_time()
    results = evaluate(truth, [run], Options(errors=False, sweep=False, replicates=replicates))
    return Measurement(loaded - start, time.process_time() - loaded, _peak(), results.runs[0].bins[0].ap or 0.0)


def _other(name: str, truth_file: str, run_file: str) -> Measurement:
    """The steps that all heirs of pycocotools share."""
    data_module, evaluation_module, evaluation_name = OTHERS[name]
    coco_class = importlib.import_module(data_module).COCO
    evaluation_class = getattr(importlib.import_module(evaluation_module), evaluation_name)
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.process_time()
        truth = coco_class(truth_file)
        run = (truth.loadRes if hasattr(truth, "loadRes") else truth.load_res)(run_file)
        loaded = time.process_time()
        evaluation = evaluation_class(truth, run, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        end = time.process_time()
    return Measurement(loaded - start, end - loaded, _peak(), float(evaluation.stats[0]))


def run_size_ap_benchmark(images: int = 5000, rounds: int = 3) -> None:
    """Print medians over ``rounds`` of all evaluators, and ours with a bootstrap of 1000 replicates (once)."""
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))  # read by the processes that measure
    with tempfile.TemporaryDirectory() as folder:
        with get_context("spawn").Pool(1) as pool:  # on Linux a process starts with the peak of the one it comes from
            what = pool.apply(_write, (images, folder))
        jobs = [(name, 0) for _ in range(rounds) for name in (OURS, *_installed())] + [(OURS, REPLICATES)]
        found: dict[str, list[Measurement]] = {}
        for name, replicates in track(jobs, "measuring", console=Console(stderr=True), transient=True):
            label = _label(name) + (f", bootstrap of {replicates}" if replicates else "")
            with get_context("spawn").Pool(1) as pool:
                found.setdefault(label, []).append(pool.apply(measure, (name, folder, replicates)))
    console = Console()
    console.print(_table(what, rounds, found))
    if len({round(m.ap, 9) for many in found.values() for m in many}) > 1:
        console.print("AP differs between them: please report this")


def _write(images: int, folder: str) -> str:
    truth, run = simulate(images)
    for stem, content in zip(("ann", "pred"), as_coco(truth, run), strict=True):
        Path(folder, f"{stem}.json").write_text(json.dumps(content))
    return f"{images:,} images, {len(truth):,} objects, {len(run):,} detections"


def _installed() -> list[str]:
    return [name for name in OTHERS if _version(name)]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _label(name: str) -> str:
    return name if name == OURS else f"{name} {_version(name)}"


def _table(what: str, rounds: int, found: dict[str, list[Measurement]]) -> Table:
    caption = f"medians of {rounds} rounds, seconds of processor time; memory: peak of the process"
    table = Table("", "read", "evaluate", "both", "MiB", "AP", title=f"box AP by size: {what}", caption=caption)
    for name, many in found.items():
        load, evaluation, memory = (median(getattr(m, key) for m in many) for key in ("load", "evaluate", "mebibytes"))
        both = median(m.load + m.evaluate for m in many)
        table.add_row(name, f"{load:.2f}", f"{evaluation:.2f}", f"{both:.2f}", f"{memory:.0f}", f"{many[0].ap:.9f}")
    return table


def _peak() -> float:
    """Peak resident memory of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
