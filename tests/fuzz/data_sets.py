"""Damaged data sets for the commands that read them: a report, or one line and nothing written.

    python -m tests.fuzz.data_sets --kind coco --seed 1 --count 5000    # or lvis, yaml, xml, text

``coco`` goes through ``mmms check-data``, ``mmms train`` up to where the model would be built, and ``mmms advise`` up
to the first measurement; the others go through ``mmms size-ap``, and ``lvis`` through ``mmms check-data`` too. A case
fails on a traceback, a signal, more than 10 s of processor time or 2 GB of memory, any other exit status than 0 and 2,
a second line beside the error, control characters on the terminal, and files that are half-written or left behind.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np

from mmms_plugin.errors import UserError
from mmms_plugin.processes import peak_memory
from tests.fuzz import label_mutants, size_ap
from tests.fuzz.json_mutants import pick
from tests.fuzz.watch import failures, run_command

MEMORY = 2 << 30  # bytes
KINDS = ("coco", "lvis", "yaml", "xml", "text")
CONFIG = "nuclei/mask_rcnn_ps_r18_nuclei"
READ = "everything is read"  # the message in place of what follows
CHECKED = re.compile(r"(\d+ pictures in [\d.]+ s|looking at the pictures of .*)")


def check(case: int, seed: int, kind: str) -> str | None:
    """Run one case in this process; returns what is wrong with the outcome, or None."""
    rng, before = np.random.default_rng([seed, KINDS.index(kind), case]), peak_memory()
    with tempfile.TemporaryDirectory(prefix="fuzz") as name:
        folder = Path(name, "set")
        folder.mkdir()
        make = {"coco": _coco, "lvis": _lvis}.get(kind, partial(_labels, kind=kind))
        arguments = make(rng, folder)
        with _only_reading(reports=case % 20 == 0):
            status, printed, errors = run_command(arguments)
        complaint = _complaint(arguments[0], status, printed, errors, Path(name, "out"))
        if not complaint and peak_memory() > max(MEMORY, before):
            complaint = f"{peak_memory() / 2**30:.1f} GB of memory"
        if complaint:
            kept = Path(tempfile.gettempdir(), f"data_set_fuzz_{kind}_{seed}_{case}")
            shutil.copytree(name, kept, dirs_exist_ok=True)
            return f"{complaint}\n  arguments {[a.replace(name, str(kept)) for a in arguments]}"
    return None


def _coco(rng: np.random.Generator, folder: Path) -> list[str]:
    label_mutants.write_coco(folder, rng)
    way = rng.random()
    if way < 0.4:
        extra = pick(([], ["--boxes"], ["--decode"], ["--img-dir", str(folder / "images")]), rng)
        given = pick(([str(folder)], ["--ann", str(folder / "train.json")]), rng)
        return ["check-data", *given, *extra]
    if way < 0.8:
        out = ["--work-dir", str(folder.parent / "out")]
        return ["train", CONFIG, "--coco-dir", str(folder), *out, *pick(([], ["--epochs", "1"]), rng)]
    return ["advise", "--coco-dir", str(folder), "--config", CONFIG]


def _lvis(rng: np.random.Generator, folder: Path) -> list[str]:
    label_mutants.write_lvis(folder, rng)
    ann = ["--ann", str(folder / "ann.json")]
    if rng.random() < 0.15:
        return ["check-data", *ann]
    return _with_predictions([*ann, *pick(([], ["--format", "lvis"]), rng)], folder / "one.json", rng)


def _labels(rng: np.random.Generator, folder: Path, kind: str) -> list[str]:
    if kind == "xml":
        label_mutants.write_voc(folder, rng)
        ann = pick(("Annotations", "Annotations", "ImageSets/Main/val.txt"), rng)
        options = pick(([], ["--images", str(folder / "JPEGImages")]), rng)
    else:
        label_mutants.write_yolo(folder, rng, kind)
        ann = pick(("data.yaml", "data.yaml", "labels"), rng)
        options = pick(([], ["--classes", str(folder / pick(("data.yaml", "classes.txt"), rng))]), rng)
    return _with_predictions(["--ann", str(folder / ann), *options], folder / "found", rng)


def _with_predictions(arguments: list[str], found: Path, rng: np.random.Generator) -> list[str]:
    arguments = ["size-ap", *arguments, *pick(([], ["--iou-type", "segm"]), rng)]
    if rng.random() < 0.4:
        return arguments
    return [*arguments, "--pred", str(found), "--out", str(found.parent.parent / "out")]


@contextmanager
def _only_reading(reports: bool) -> Iterator[None]:
    """Reports without figures, if any, and an end of training and advice where the data have been read."""
    with ExitStack() as stack:
        stack.enter_context(size_ap.quick_figures(True))
        if not reports:
            stack.enter_context(size_ap.no_reports())
        for target in ("mmms_plugin.train.launch.set_start", "mmms_plugin.commands.advise_measure.find_advice"):
            if target.rpartition(".")[0] in sys.modules:
                stack.enter_context(mock.patch(target, side_effect=UserError(READ)))
        yield


def _complaint(command: str, status: int | str, printed: str, errors: str, out: Path) -> str | None:
    if command == "size-ap":
        return size_ap.complaint(status, printed, errors, out)
    lines = errors.splitlines()
    if status not in (0, 2):
        return str(status)
    strange = sorted({char for char in printed + errors if not char.isprintable() and char != "\n"})
    if strange:
        return f"control characters on the terminal: {strange}"
    if command == "check-data" and "training would" in printed:
        return None if all(map(CHECKED.fullmatch, lines)) else f"strange lines: {errors[:1000]!r}"
    if status != 2 or len(lines) != 1 or not lines[0].startswith(f"mmms {command}: error: ") or printed:
        return f"not one line: {printed[:200]!r} {errors[:1000]!r}"
    return None


def run(kind: str, seed: int, count: int) -> Iterator[tuple[int, str]]:
    """Failures among ``count`` cases, as they occur; imports once what the cases need, before the processes fork."""
    import cv2  # noqa: F401

    import mmms_plugin.coco.yaml_files
    import mmms_plugin.data.check
    import mmms_plugin.size_ap.evaluate
    import mmms_plugin.size_ap.report.gallery
    import mmms_plugin.size_ap.report.write  # noqa: F401

    with ExitStack() as stack:
        if kind == "coco":
            from mmms_plugin.commands import advise_measure
            from mmms_plugin.config.files import load_config
            from mmms_plugin.train import launch

            config = load_config(CONFIG)  # which takes longer than a case
            for module in (launch, advise_measure):
                stack.enter_context(mock.patch.object(module, "load_config", side_effect=lambda name: config.copy()))
        yield from failures(partial(check, seed=seed, kind=kind), range(count))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--only", type=int, metavar="CASE", help="run this case alone, in this process")
    args = parser.parse_args()
    if args.only is not None:
        print(check(args.only, args.seed, args.kind))
        return 0
    failed = 0
    for case, complaint in run(args.kind, args.seed, args.count):
        failed += 1
        print(f"case {case}: {complaint}", flush=True)
    print(f"{args.count} cases of {args.kind}, seed {args.seed}: {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
