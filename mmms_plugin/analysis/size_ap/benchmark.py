"""Time and memory of the evaluation beside pycocotools', on made-up data of COCO val's size, in one run.

Every measurement has a process of its own, so that memory is that of one evaluator; the two take turns, so that a slow
moment of the machine touches both. Reading files and building pycocotools' indices is not counted.
"""

from __future__ import annotations

import contextlib
import io
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import median

from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmms_plugin.analysis.size_ap.evaluate import Options, evaluate
from mmms_plugin.analysis.size_ap.simulate import as_coco, simulate

REPLICATES = 1000


@dataclass(frozen=True)
class Measurement:
    """Seconds, MiB that the evaluation added to the process's peak, AP found, and the size of the input."""

    seconds: float
    mebibytes: float
    ap: float
    objects: int
    detections: int


def measure_ours(images: int, replicates: int = 0) -> Measurement:
    """One evaluation with the preset 'coco', and ``replicates`` of the bootstrap."""
    truth, run = simulate(images)
    options = Options(sweep=False, replicates=replicates)
    before, start = _peak(), time.perf_counter()
    results = evaluate(truth, [run], options)
    seconds = time.perf_counter() - start
    ap = results.runs[0].bins[0].ap or 0.0
    return Measurement(seconds, _peak() - before, ap, len(truth), len(run))


def measure_pycocotools(images: int) -> Measurement:
    """The same evaluation by ``COCOeval``: evaluate, accumulate, summarize."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, run = simulate(images)
    data, found = as_coco(truth, run)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = data
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        before, start = _peak(), time.perf_counter()
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        seconds = time.perf_counter() - start
    return Measurement(seconds, _peak() - before, float(evaluation.stats[0]), len(truth), len(run))


def run_size_ap_benchmark(images: int = 5000, rounds: int = 3) -> None:
    """Print medians over ``rounds`` of ours, pycocotools', and ours with a bootstrap of 1000 replicates (once)."""
    jobs: list[tuple[str, Callable[..., Measurement], tuple[int, ...]]] = []
    for _ in range(rounds):
        jobs += [("mmms", measure_ours, (images,)), ("pycocotools", measure_pycocotools, (images,))]
    jobs.append((f"mmms, bootstrap of {REPLICATES}", measure_ours, (images, REPLICATES)))
    found: dict[str, list[Measurement]] = {}
    for name, function, arguments in track(jobs, "measuring", console=Console(stderr=True), transient=True):
        with get_context("spawn").Pool(1) as pool:
            found.setdefault(name, []).append(pool.apply(function, arguments))
    console = Console()
    console.print(_table(images, rounds, found))
    if len({round(m.ap, 9) for many in found.values() for m in many}) > 1:
        console.print("AP differs between the two: please report this")


def _table(images: int, rounds: int, found: dict[str, list[Measurement]]) -> Table:
    one = found["mmms"][0]
    title = f"box AP by size: {images:,} images, {one.objects:,} objects, {one.detections:,} detections"
    base = median(m.seconds for m in found["pycocotools"])
    caption = f"medians of {rounds} rounds; memory is what evaluation adds to the peak of its process"
    table = Table("", "seconds", "times as fast", "memory", "AP", title=title, caption=caption)
    for name, many in found.items():
        seconds, memory = median(m.seconds for m in many), median(m.mebibytes for m in many)
        faster = f"{base / seconds:.1f}" if "bootstrap" not in name else ""
        table.add_row(name, f"{seconds:.2f}", faster, f"{memory:.0f} MiB", f"{many[0].ap:.9f}")
    return table


def _peak() -> float:
    """Peak resident memory of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
