"""Damaged COCO files and odd options for ``mmms size-ap``: a report, or one line and nothing written.

    python -m tests.fuzz.size_ap --seed 1 --count 5000

One case in twenty writes its report. A case fails on a traceback, a signal, more than 10 s, any other exit status than
0 and 2, a second line beside the error, control characters on the terminal, and files that are half-written or left
behind.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from tests.fuzz.json_mutants import files, mutate
from tests.fuzz.watch import failures, run_command

WRITTEN_EVERY = 20  # cases whose report is written
BINS = (
    "coco", "tiny", "ai-tod", "soda", "quantiles:3", "quantiles:99999999999999999999", "quantiles:" + "9" * 5000, "",
    "quantiles:-1", "a=0:8,b=8:", "a=0:1e154,b=1e154:", "a=0:1e999", "a=nan:5", "a=5:3", "=1+1=0:9", "\x1b[31m=0:9",
    "[red]=0:9", ",", "a=0:9,a=9:", "-a=0:9", "x" * 300 + "=0:9", "a=-0:9", "a=1e-320:1", "all=0:5", "a=0:5:9",
    ",".join(f"b{i}={i}:{i + 1}" for i in range(200)),
)  # fmt: skip
OPTIONS: dict[str, tuple[str, ...]] = {
    "--bins": BINS,
    "--bin-unit": ("side", "area", "px"),
    "--area": ("annotation", "box", "mask", "none"),
    "--iou-type": ("bbox", "segm", "segm", "keypoints"),
    "--confidence": ("0.95", "0.9999999999999999", "1e-320", "0", "1", "nan", "-0.5", "inf", "0.5", "x"),
    "--bootstrap": ("0", "1", "2", "20", "-1", "99999999999999999999", "1.5", "9" * 5000),
    "--seed": ("0", "5", "-1", "99999999999999999999", "x"),
    "--max-dets": ("1", "100", "0", "99999999999999999999", "2147483648"),
    "--score-threshold": ("0.5", "nan", "inf", "-inf", "-3", "1e400"),
    "--resize": ("1333x800", "0x0", "-5x5", "1333", "axb", "1e9x1e9", "99999999999999999999x1", "1x1"),
    "--fail-if": ("small.AP < 0.2", "all.missed > 1e999", "x", ".AP<1", "all.AP < nan", "\x1b.AP < 1", "all.AP <", ""),
    "--baseline": ("/dev/null", "", "/nowhere"),
    "--no-errors": ("",),
    "--group": ("x", "=", "a=", "a=,", "a=/nowhere", "a=/dev/null,/dev/null", "\x1b[31m=x,y", "one=/dev/null", ""),
    "--allow-gaps": ("",), "--allow-overlaps": ("",), "--nonsense": ("5",),
}  # fmt: skip
NAMES = (
    "plain",
    "ps",
    "",
    "=1+1",
    "-5",
    "\x1b[31mred",
    "a\nb",
    "\udcff",
    "x" * 3000,
    "$\\frac$",
    "[bold]",
    "猫",
    "\x00",
    "/",
    "@a",
)


def check(case: int, seed: int, drawn_every: int) -> str | None:
    """Run one case in this process; returns what is wrong with the outcome, or None."""
    rng = np.random.default_rng([seed, case])
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        arguments = _case(rng, Path(folder))
        out = Path(folder, "out")
        with quick_figures(case % drawn_every != 0), no_reports() if case % WRITTEN_EVERY else nullcontext():
            status, printed, errors = run_command(["size-ap", *arguments])
        wrong = complaint(status, printed, errors, out)
        if wrong:
            kept = Path(tempfile.gettempdir(), f"size_ap_fuzz_{seed}_{case}")
            shutil.copytree(folder, kept, dirs_exist_ok=True)
            return f"{wrong}\n  arguments {[a.replace(folder, str(kept)) for a in arguments]}"
    return None


def _case(rng: np.random.Generator, folder: Path) -> list[str]:
    """Arguments, and the files that they name."""
    truth, results = files(rng)
    damage = rng.integers(4)  # of the annotations, of the results, of the options, of all
    contents: dict[str, Any] = {"ann": truth, "one": results, "two": _as_others_write(truth, results[::2], rng)}
    for name, content in contents.items():
        damaged = (
            (damage == 0 and name == "ann") or (damage == 1 and name != "ann") or (damage == 3 and rng.random() < 0.5)
        )
        plain = json.dumps(content).encode()
        (folder / f"{name}.json").write_bytes(mutate(content, rng) if damaged else plain)
    runs = ["one", "two"][: int(rng.choice([0, 1, 2], p=[0.15, 0.5, 0.35]))]
    arguments = ["--ann", str(folder / "ann.json"), "--out", str(folder / "out")]
    arguments += [word for name in runs for word in ("--pred", str(folder / f"{name}.json"))]
    if damage < 2:
        return [*arguments, "--iou-type", str(rng.choice(["bbox", "segm"])), "--bootstrap", str(rng.choice([0, 3]))]
    for option in rng.choice(list(OPTIONS), int(rng.integers(1, 4)), replace=False).tolist():
        value = OPTIONS[option][int(rng.integers(len(OPTIONS[option])))]
        arguments += [option, value] if OPTIONS[option] != ("",) else [option]
    if rng.random() < 0.3:
        arguments += ["--names", *(NAMES[i] for i in rng.integers(len(NAMES), size=max(1, len(runs))).tolist())]
    return arguments


def _as_others_write(truth: dict[str, Any], results: list[dict[str, Any]], rng: np.random.Generator) -> Any:
    """Results as they are, or with names beside their ids, or with images and categories of their own."""
    kind = int(rng.integers(3))
    if kind == 1:
        return [
            r | {"file_name": f"{r['image_id']}.png", "category_name": f"class {r['category_id']}"} for r in results
        ]
    images = [dict(image, file_name=f"/shots/{image['file_name']}") for image in truth["images"]]
    own = dict(images=images, annotations=results, categories=truth["categories"], info={"least_score": 0.3})
    return own if kind else results


def complaint(status: int | str, printed: str, errors: str, out: Path) -> str | None:
    """What is wrong with the outcome of a run into the folder ``out``; it is absent if none is asked for."""
    lines = errors.splitlines()
    if status == 1 and any(line.startswith("failed: ") for line in lines):
        lines, status = [line for line in lines if not line.startswith("failed: ")], 0  # --fail-if
    if status not in (0, 2):
        return str(status)
    strange = sorted({char for char in printed + errors if not char.isprintable() and char != "\n"})
    if strange:
        return f"control characters on the terminal: {strange}"
    if status == 2:
        if len(lines) != 1 or not lines[0].startswith("mmms size-ap: error: ") or printed:
            return f"not one line: {printed[:200]!r} {errors[:1000]!r}"
        return f"left behind: {list(out.iterdir())}" if out.exists() else None
    if any(not line.startswith(("note: ", "bootstrap ")) for line in lines):
        return f"strange lines: {errors[:1000]!r}"
    return _incomplete(out)


def _incomplete(out: Path) -> str | None:
    """What is wrong with the files of a report."""
    for path in out.iterdir() if out.exists() else ():
        if path.name.startswith(".") or path.is_dir() or not path.stat().st_size:
            return f"left behind: {path.name}"
        if path.suffix == ".json":
            json.loads(path.read_text("utf-8"), parse_constant=lambda text: 1 / 0)
        if path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.reader(file))
            if len({len(row) for row in rows}) != 1:
                return f"{path.name}: rows of different lengths"
            if any(cell.startswith(tuple("=+-@\t\r")) and not _is_number(cell) for row in rows for cell in row):
                return f"{path.name}: a formula"
    return None if list(out.glob("*.html")) or not out.exists() else "no page"


def _is_number(text: str) -> bool:
    try:
        return bool(float(text) or True)
    except ValueError:
        return False


@contextmanager
def quick_figures(quick: bool) -> Iterator[None]:
    """Make figures without rendering them, which takes nine tenths of the time."""
    from mmms_plugin.files import write_text
    from mmms_plugin.report import figure_style

    def save(figure: Any, folder: Path, name: str, formats: Sequence[str] = figure_style.FIGURES) -> list[Path]:
        return [write_text(folder / f"{name}.{kind}", "<svg/>") for kind in formats]

    with mock.patch.object(figure_style, "save", save if quick else figure_style.save):
        yield


@contextmanager
def no_reports() -> Iterator[None]:
    """A page without content in place of each report, whose making takes longer than everything else."""
    from mmms_plugin.files import write_text

    def write_page(_: object, out: str, *more: object) -> list[Path]:
        return [write_text(Path(out, "report.html"), "<p>")]

    with mock.patch("mmms_plugin.size_ap.report.write.write_report", write_page):
        yield


def run(seed: int, count: int, drawn_every: int = 500) -> list[tuple[int, str]]:
    """Failures among ``count`` cases; one in ``drawn_every`` renders its figures."""
    import mmms_plugin.size_ap.evaluate
    import mmms_plugin.size_ap.report.gallery
    import mmms_plugin.size_ap.report.write  # noqa: F401  (imported once, before the processes fork)

    return list(failures(partial(check, seed=seed, drawn_every=drawn_every), range(count)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--only", type=int, metavar="CASE", help="run this case alone, in this process")
    args = parser.parse_args()
    if args.only is not None:
        print(check(args.only, args.seed, 1))
        return 0
    failed = run(args.seed, args.count)
    for case, complaint in failed:
        print(f"case {case}: {complaint}")
    print(f"{args.count} cases of seed {args.seed}: {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
